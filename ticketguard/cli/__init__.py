"""The command line: one file per command, each of which parses, makes one call, and prints."""

from __future__ import annotations

from ticketguard.cli.group import main

__all__ = ["main"]
