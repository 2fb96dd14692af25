from __future__ import annotations

import torch

# Networks this small only wait for each other on several threads, and worse beside other test processes.
torch.set_num_threads(1)
