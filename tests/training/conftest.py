from __future__ import annotations

import sys
from pathlib import Path

import torch

# pytest's importlib mode puts no test folder on the path; runs.py is shared by these tests.
sys.path.insert(0, str(Path(__file__).parent))

# Networks this small only wait for each other on several threads, and worse beside other test processes.
torch.set_num_threads(1)
