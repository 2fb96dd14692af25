from __future__ import annotations

import sys
from pathlib import Path

# The language models that channel groups are tested with are marked here.
sys.path.insert(0, str(Path(__file__).parents[1] / "graph"))
