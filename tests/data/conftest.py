from __future__ import annotations

import sys
from pathlib import Path

# pytest's importlib mode puts no test folder on the path; images.py is shared by these tests.
sys.path.insert(0, str(Path(__file__).parent))
