"""Attacks that try to remove a mark."""
