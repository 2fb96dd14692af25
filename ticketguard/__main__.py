"""Run the command line with ``python -m ticketguard``."""

from __future__ import annotations

import sys
from pathlib import Path

# Python has put the current folder first: a file there named like a package would be run in its place. What a user
# names by import path is found there all the same.
if not sys.flags.safe_path and sys.path and Path(sys.path[0]) == Path.cwd():
    del sys.path[0]

from ticketguard.cli import main

main()
