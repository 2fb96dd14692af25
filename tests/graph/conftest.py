from __future__ import annotations

import sys
from pathlib import Path

# pytest's importlib mode puts no test folder on the path; the networks in nets.py are shared by these tests.
sys.path.insert(0, str(Path(__file__).parent))
