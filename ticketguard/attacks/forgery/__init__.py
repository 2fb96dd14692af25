"""Attacks that claim somebody else's ticket."""
