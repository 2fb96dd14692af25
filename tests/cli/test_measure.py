from __future__ import annotations

import json
from pathlib import Path

from .conftest import Files, Run, validate


def test_measure_tells_costs_of_ticket_and_dense_network(run: Run, files: Files, tmp_path: Path) -> None:
    arguments = ("measure", files.unmarked, "--model", f"{__name__.rpartition('.')[0]}.conftest:network")
    document = json.loads(run(*arguments, "--repeats", 2, "--batch-size", 3, "--json").stdout)
    validate(document, "measure")
    assert document["ticket"]["multiply_adds"] == document["dense"]["multiply_adds"] == 64 * 200 + 2000
    assert (document["batch_size"], document["threads"], len(document["dense"]["latencies"])) == (3, 1, 2)
    shown = run(*arguments, "--repeats", 1).stdout
    assert "network dense" in shown
    assert "a difference in latency is noise" in shown


def test_a_ticket_without_a_model_is_wrong_usage(run: Run, files: Files) -> None:
    assert "does not name its model" in run("measure", files.unmarked, code=2).stderr
