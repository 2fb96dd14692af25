"""Attacks that answer for a stolen model."""
