"""Weights and networks of other tools: read into tickets, and written for other tools to run."""
