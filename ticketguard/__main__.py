"""Run the command line with ``python -m ticketguard``."""

from __future__ import annotations

from ticketguard.cli import main

main()
