from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
# Examples set no seed: nobody should copy one that is known. Here they go the same way each time.
# torchvision, which Transformers imports, may lack operators beside a CPU build of torch.
RUN = (
    "import runpy, sys, torch; from ticketguard.torchvision_shim import import_torchvision; import_torchvision(); "
    "torch.manual_seed(0); runpy.run_path(sys.argv[1], run_name='__main__')"
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_proves_its_point(example: Path, tmp_path: Path) -> None:
    if "transformers" in example.read_text():
        pytest.importorskip("transformers")
    done = subprocess.run(
        [sys.executable, "-c", RUN, example], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if "weights: supported" in line or "answers: supported" in line]
    assert any("stranger" in line and "inconclusive" in line for line in lines)
