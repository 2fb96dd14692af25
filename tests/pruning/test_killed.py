from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# One process that starts searches and kills them: the packages are imported once, and each search is a fork of it.
SEARCHES = """
import hashlib, json, os, random, signal, sys, time
from pathlib import Path
import safetensors.torch
import torch
torch.set_num_threads(1)
from ticketguard.data import load_data
from ticketguard.pruning import METHODS, SearchProblem
from ticketguard.pruning.engine import stepped
from ticketguard.ticket import Ticket
from ticketguard.training import TrainingConfig, loop

loop.CHECKPOINT_SECONDS = stepped.CHECKPOINT_SECONDS = 0.01
method, options = sys.argv[2], json.loads(sys.argv[3])
folder = Path(sys.argv[1])
data = load_data("digits", options={"train_limit": 400, "test_limit": 100})

def search(workdir, resume):
    ticket = METHODS[method].find(SearchProblem(
        model="mlp", model_options={"classes": 10, "input_shape": [1, 8, 8]}, data=data, data_name="digits",
        data_options={}, density=0.2, training=TrainingConfig(epochs=4, batch_size=32, learning_rate=0.05), seed=1,
        method_options=options, workdir=workdir, resume=resume))
    hasher = hashlib.sha256(ticket.mask.digest())
    for state in (ticket.weights, ticket.rewind_weights):
        for name in sorted(state):
            hasher.update(state[name].tobytes())
    return hasher.hexdigest()

search(folder / "warm", False)
begun = time.monotonic()
whole = search(folder / "whole", False)
seconds = time.monotonic() - begun
draw = random.Random(0)
killed = mid_round = 0
while True:
    child = os.fork()
    if child == 0:
        (folder / "digest").write_text(search(folder / "killed", True))
        os._exit(0)
    # Every other kill comes as soon as there is a checkpoint of a run that goes on; after some the search may finish.
    deadline = time.monotonic() + (draw.uniform(0.1, 0.4) * seconds if killed < 6 and killed % 2 else 100)
    caught = lambda: killed < 6 and killed % 2 == 0 and any((folder / "killed").glob("*.checkpoint"))
    while time.monotonic() < deadline and os.waitpid(child, os.WNOHANG) == (0, 0) and not caught():
        time.sleep(0.002)
    if (folder / "digest").exists():
        break
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    killed += 1
    mid_round += any((folder / "killed").glob("*.checkpoint"))
    # What a kill leaves besides whole files is a temporary one, which nobody reads.
    for path in (folder / "killed").glob("[!.]*"):
        Ticket.load(path) if path.suffix == ".ticket" else safetensors.torch.load_file(path)
resumed = (folder / "digest").read_text()
print(json.dumps({"whole": whole, "resumed": resumed, "killed": killed, "mid_round": mid_round}))
"""


# A search of rounds, and one that is a training alone; searches of many steps belong here too.
SEARCHED = {"ltr": {"prune_fraction": 0.5}, "random": {}, "cts": {"epochs": 4.0, "rewind_epochs": 0.5}}


@pytest.mark.parametrize("method", SEARCHED)
def test_a_search_that_is_killed_anywhere_resumes_to_the_same_ticket(method: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SEARCHES, str(tmp_path), method, json.dumps(SEARCHED[method])],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["resumed"] == outcome["whole"]
    assert outcome["killed"] >= 2
    assert outcome["mid_round"] >= 1
