"""Keyed signs, looked for in a suspect's weights."""
