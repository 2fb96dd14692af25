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


FIND_MARKED = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import ticketguard as tg
marked, credential = tg.find_marked(
    "mlp", data="digits", density=0.2, owner=tg.Owner.load(sys.argv[1]), marks=[tg.PlantedGraph()], level_bits=32,
    data_options={"train_limit": 200, "test_limit": 50}, training={"epochs": 1, "batch_size": 32},
    method_options={"prune_fraction": 0.6}, workdir=Path(sys.argv[1]).parent / "work")
verdict = tg.verify(tg.Checkpoint(marked.weights), credential)
print(json.dumps({"secret": credential.vault.secret.hex(), "mask": marked.mask.digest().hex(),
                  "verdict": verdict.status, "processes": torch.distributed.get_world_size()}))
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


# Each process draws on its own, so that only what they share can make them agree.
FIND = """
import hashlib, json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import ticketguard as tg
from ticketguard.data import load_data
from ticketguard.pruning import SearchProblem
from ticketguard.pruning.engine.stepped import run_search
from ticketguard.training import TrainingConfig

class Search:
    def __init__(self):
        draws = torch.Generator().manual_seed(int(os.environ["RANK"]))
        self.state = {"kept": torch.rand(6, generator=draws) < 0.5, "scores": torch.rand(2, 3, generator=draws).T}
    def tensors(self):
        return self.state
    def load(self, tensors):
        self.state = dict(tensors)
    def step(self, number):
        self.state["scores"] = self.state["scores"] + number

options = {"train_limit": 100, "test_limit": 50}
ticket = tg.find("mlp", data="digits", density=0.5, data_options=options, training={"epochs": 1, "batch_size": 32},
                 method="imp", method_options={"prune_fraction": 0.4}, workdir=Path(sys.argv[1]))
search = Search()
before = search.state["scores"].tolist()
run_search(SearchProblem(model="mlp", model_options={}, data=load_data("digits", options=options), data_name="digits",
                         data_options={}, density=0.5, training=TrainingConfig(epochs=1, batch_size=32),
                         workdir=Path(sys.argv[1])), search, name="search", steps=3, identity="x")
digest = hashlib.sha256(b"".join(ticket.weights[name].tobytes() for name in sorted(ticket.weights))).hexdigest()
files = sorted(path.name.split("-")[0] for path in Path(sys.argv[1]).iterdir())
print(json.dumps({"mask": ticket.mask.digest().hex(), "weights": digest, "before": before, "files": files,
                  "state": {name: tensor.tolist() for name, tensor in search.state.items()}}))
torch.distributed.barrier()
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


def test_two_processes_find_one_marked_ticket(tmp_path: Path) -> None:
    tg.Owner.generate("Ada").save(tmp_path / "owner.key", None)
    first, second = run_in_two_processes(FIND_MARKED, tmp_path / "owner.key")
    assert first == second
    assert (first["processes"], first["verdict"]) == (2, "supported")


def test_two_processes_find_one_ticket(tmp_path: Path) -> None:
    first, second = run_in_two_processes(FIND, tmp_path)
    assert first.pop("before") != second.pop("before")
    assert first == second
    assert first["files"] == ["find.identity", "round", "run.lock", "run.seed", "search.checkpoint"]


def test_of_two_processes_the_first_writes_and_prints(tmp_path: Path) -> None:
    program = [
        "-m", "ticketguard", "find", "--model", "mlp", "--data", "digits", "--train-limit", "100", "--epochs", "1",
        "--density", "0.5", "--out", str(tmp_path / "ticket"), "--json",
    ]  # fmt: skip
    first, second = outputs_of_two_processes(program)
    assert json.loads(first)["file"] == str(tmp_path / "ticket")
    assert second == ""
    assert [path.name for path in tmp_path.iterdir()] == ["ticket"]
    assert 0.49 < tg.Ticket.load(tmp_path / "ticket").mask.density < 0.51


def run_in_two_processes(program: str, argument: Path) -> tuple[dict[str, object], dict[str, object]]:
    first, second = (json.loads(output) for output in outputs_of_two_processes(["-c", program, str(argument)]))
    return first, second


def outputs_of_two_processes(arguments: list[str]) -> tuple[str, str]:
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
            [sys.executable, *arguments],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    first, second = (process.communicate(timeout=120)[0] for process in started)
    assert [process.returncode for process in started] == [0, 0]
    return first, second
