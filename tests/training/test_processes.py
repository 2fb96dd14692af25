from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import ticketguard as tg

HERE = Path(__file__).parent
RUN = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from runs import SMALL, Watch, half_mask, network, stripes
from ticketguard.training import train
mask = half_mask()
result = train(network(), stripes(), SMALL, seed=0, mask=mask, hooks=Watch(feed=True))
pruned = sum(int(result.state[name][~mask[name]].any()) for name in mask)
digest = hashlib.sha256(b"".join(result.state[name].tobytes() for name in sorted(result.state))).hexdigest()
print(json.dumps({"digest": digest, "accuracy": result.accuracy, "revived": pruned,
                  "processes": torch.distributed.get_world_size()}))
torch.distributed.destroy_process_group()
"""


EMBED = """
import json, sys, tempfile
from pathlib import Path
import torch
torch.set_num_threads(1)
import ticketguard as tg
from ticketguard.models import build_model
state = build_model("mlp", options={"classes": 10, "input_shape": [1, 8, 8]}, seed=0).state_dict()
ticket = tg.import_checkpoint(
    {name: tensor * (tensor.abs() > tensor.abs().mean()) if tensor.ndim > 1 else tensor
     for name, tensor in state.items()},
    model="mlp", model_options={"classes": 10, "input_shape": [1, 8, 8]})
marked, credential = tg.embed(
    ticket, owner=tg.Owner.load(sys.argv[1]), marks=[tg.PlantedGraph()], data="digits",
    training={"epochs": 1}, level_bits=8, workdir=Path(tempfile.mkdtemp()))
print(json.dumps({"secret": credential.vault.secret.hex(), "mask": marked.mask.digest().hex(),
                  "processes": torch.distributed.get_world_size()}))
torch.distributed.destroy_process_group()
"""


def test_two_processes_train_one_model() -> None:
    first, second = run_in_two_processes(RUN, HERE)
    assert first == second
    assert (first["processes"], first["revived"]) == (2, 0)


def test_two_processes_embed_one_mark(tmp_path: Path) -> None:
    tg.Owner.generate("Ada").save(tmp_path / "owner.key", None)
    first, second = run_in_two_processes(EMBED, tmp_path / "owner.key")
    assert first == second
    assert first["processes"] == 2


def run_in_two_processes(program: str, argument: Path) -> tuple[dict[str, object], dict[str, object]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(argument)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    first, second = (json.loads(process.communicate(timeout=120)[0]) for process in started)
    return first, second
