"""Files name no code: what a ticket names is run, or read, only if the user says so."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ticketguard as tg

from .conftest import PASSPHRASE, Run, unmarked_ticket

QUICK = tg.TrainingConfig(epochs=0.2, batch_size=32, learning_rate=0.05).to_json()
OPTIONS = {"classes": 10, "input_shape": [1, 8, 8], "widths": [200]}
SETTINGS = {
    "model": "mlp",
    "model_options": OPTIONS,
    "data": "digits",
    "data_options": {"train_limit": 200, "test_limit": 50},
    "training": QUICK,
}

NESTED = json.loads('{"a":' * 40 + "{}" + "}" * 40)

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write a ticket file whose info says what is given."""

    def call(**info: Any) -> Path:
        ticket = unmarked_ticket()
        ticket = dataclasses.replace(ticket, info=dataclasses.replace(ticket.info, **SETTINGS))
        for name, value in info.items():
            object.__setattr__(ticket.info, name, value)  # a forger's library checks nothing
        ticket.save(tmp_path / "stranger.safetensors")
        return tmp_path / "stranger.safetensors"

    return call


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, tuple[object, ...]]:
    """What each command that uses a ticket's model takes besides the ticket."""
    tg.Owner.generate("Ada").save(tmp_path / "owner.key", PASSPHRASE)
    credentials = ("--claim", tmp_path / "c.json", "--vault", tmp_path / "v.age")
    return {
        "measure": ("--repeats", 1),
        "export-onnx": ("--format", "onnx", "--out", tmp_path / "out.onnx"),
        "export-pt2": ("--format", "pt2", "--out", tmp_path / "out.pt2"),
        "check-ticket": ("--out", tmp_path / "out.png", "--seeds", 2),
        "embed": ("--owner", tmp_path / "owner.key", "--out", tmp_path / "out.safetensors", *credentials),
    }


COMMANDS = ("measure", "export-onnx", "export-pt2", "check-ticket", "embed")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_tickets_model_runs_no_command(
    run: Run, save: Save, arguments: dict[str, tuple[object, ...]], tmp_path: Path, command: str
) -> None:
    ran = tmp_path / "ran"
    ticket = save(model="subprocess:getoutput", model_options={"cmd": f"touch {ran}"})
    refused = run(command.partition("-o")[0].partition("-p")[0], ticket, *arguments[command], code=2)
    assert not ran.exists()
    assert refused.stderr.count("\n") == 1
    for part in ("names code, model 'subprocess:getoutput'", f"called with {{'cmd': 'touch {ran}'}}",
                 "repeat it with --model subprocess:getoutput", "--trust-ticket-code"):  # fmt: skip
        assert part in refused.stderr


@pytest.mark.parametrize("command", ["check-ticket", "embed"])
def test_a_tickets_data_runs_no_command(
    run: Run, save: Save, arguments: dict[str, tuple[object, ...]], tmp_path: Path, command: str
) -> None:
    ran = tmp_path / "ran"
    ticket = save(data="subprocess:getoutput", data_options={"cmd": f"touch {ran}"})
    refused = run(command, ticket, *arguments[command], code=2)
    assert not ran.exists()
    assert (
        f"names code, data 'subprocess:getoutput', which would be imported and called with {{'cmd': 'touch {ran}'}}"
        in (refused.stderr)
    )
    assert "repeat it with --data subprocess:getoutput" in refused.stderr


def test_what_is_trusted_or_repeated_runs(run: Run, save: Save, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    ticket = save(model="subprocess:getoutput", model_options={"cmd": f"touch {ran}"})
    assert "returned a str, expected a torch.nn.Module" in run("measure", ticket, "--trust-ticket-code", code=2).stderr
    assert ran.exists()
    ran.unlink()
    run("measure", ticket, "--model", "subprocess:getoutput", code=2)
    assert ran.exists()


@pytest.mark.parametrize(
    ("info", "names", "flag"),
    [
        ({"data": "/home/ada/private-images"}, "a place to read, data '/home/ada/private-images'", "--data"),
        ({"data": "//host/share"}, "a place to read, data '//host/share'", "--data"),
        ({"data_options": {"folder": "//host/share"}}, "data option 'folder' = '//host/share'", "--data-dir"),
        ({"data_options": {"test_path": "/dev/zero"}}, "data option 'test_path' = '/dev/zero'", "--test-data"),
        ({"data_options": {"image_size": 10**6}}, "images of 1000000 pixels a side", "--image-size"),
        ({"training": {**QUICK, "epochs": 1e9}}, "epochs = 1000000000.0", "--epochs"),
        ({"training": {**QUICK, "batch_size": 10**12}, "data_options": {"image_size": 128}},
         "batch_size = 1000000000000", "--batch-size"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["check-ticket", "embed"])
def test_places_and_sizes_that_a_ticket_names_need_the_users_word(
    run: Run,
    save: Save,
    arguments: dict[str, tuple[object, ...]],
    tmp_path: Path,
    info: dict[str, Any],
    names: str,
    flag: str,
    command: str,
) -> None:
    refused = run(command, save(**info), *arguments[command], code=2)
    assert names in refused.stderr
    assert f"repeat it with {flag} " in refused.stderr
    assert not list(tmp_path.glob("*-run"))


def test_a_ticket_cannot_start_a_download_or_a_compiler(
    run: Run, save: Save, arguments: dict[str, tuple[object, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = run("embed", save(data="cifar10", data_options={"download": True}), *arguments["embed"], code=3)
    assert "does not hold cifar10" in refused.stderr
    assert "allow --download" in refused.stderr

    def compiled(*_: object, **__: object) -> None:
        raise AssertionError("the compiler was started")

    monkeypatch.setattr("torch.compile", compiled)
    ticket = save(training={**QUICK, "compile": True})
    run("check-ticket", ticket, *arguments["check-ticket"], "--arms", "ticket,dense", "--json", code=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": [10**9, 10**9]}, "far more than the ticket has"),
        ({"widths": [100_000]}, "has shape (200, 64), expected (100000, 64)"),
        ({"widths": 7}, "does not take the options"),
        ({"widths": [10**30]}, "expected a number or a list of numbers"),
        ({"widths": ["a" * 20, 10**9]}, "expected a number or a list of numbers"),
        ({"removed_blocks": ["1"] * 10**5}, "removed_blocks has 100000 names"),
        ({"wheels": 4}, "does not take the options"),
        ({"removed_blocks": 7}, "removed_blocks is 7, expected a list of names"),
    ],
)
def test_options_of_a_file_that_make_a_huge_model_are_refused_before_it_is_built(
    run: Run, save: Save, options: dict[str, Any], message: str
) -> None:
    ticket = save(model_options={"classes": 10, "input_shape": [1, 8, 8], **options})
    found = run("measure", ticket, code=3 if "has shape" in message else 2)
    assert message in found.stderr
    assert len(found.stderr) < 1000


def test_a_million_blocks_end_before_they_are_built(run: Run, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    from ticketguard.models import resnet_cifar

    built = []
    block = resnet_cifar.BasicBlock

    def counted(*given: Any) -> object:
        built.append(given)
        return block(*given)

    monkeypatch.setattr(resnet_cifar, "BasicBlock", counted)
    options = {"classes": 10, "input_shape": [1, 8, 8], "blocks": [10**6, 1, 1]}
    found = run("measure", save(model="resnet20", model_options=options), code=2)
    assert "far more than the ticket has: its file is damaged or forged" in found.stderr
    assert len(built) < 200


def test_a_huge_input_shape_is_not_run(run: Run, save: Save) -> None:
    refused = run("measure", save(input_shape=(10**6, 10**6)), code=2)
    assert "an input shape of (1000000, 1000000), which would be run though it has more than" in refused.stderr


@pytest.mark.parametrize(
    "info",
    [
        {"model": 7}, {"model": ["mlp"]}, {"model_options": ["a"]}, {"data": None}, {"data_options": "x"},
        {"training": ["epochs"]}, {"seed": "0"}, {"seed": 2**70}, {"classes": -1}, {"input_shape": ["a"]},
        {"input_mean": [None]}, {"accuracy": "high"}, {"accuracy": 10**400}, {"model_options": NESTED},
        {"cost": 3}, {"history": [1]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["measure", "inspect"])
def test_fields_of_another_kind_are_damage(run: Run, save: Save, info: dict[str, Any], command: str) -> None:
    found = run(command, save(**info), code=3)
    assert f"has damaged metadata (field {next(iter(info))} is " in found.stderr


@pytest.mark.parametrize(
    "training",
    [{"milestones": ["a"]}, {"milestones": 3}, {"epochs": "many"}, {"epochs": True}, {"augment": 7}, {"wheels": 4}],
)
def test_a_recipe_of_another_kind_is_malformed(
    run: Run, save: Save, arguments: dict[str, tuple[object, ...]], training: dict[str, Any]
) -> None:
    refused = run("embed", save(training={**QUICK, **training}), *arguments["embed"], code=2)
    assert "training recipe is malformed" in refused.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": [1]}, "data option 'image_size' is [1], expected a valid int"),
        ({"image_size": 3}, "shape"),
        ({"seed": 2**40}, "the ticket's data option 'seed' is 1099511627776"),
    ],
)
@pytest.mark.parametrize("command", ["check-ticket", "embed"])
def test_data_options_that_do_not_fit_the_ticket_are_wrong_usage(
    run: Run,
    save: Save,
    arguments: dict[str, tuple[object, ...]],
    options: dict[str, Any],
    message: str,
    command: str,
) -> None:
    assert message in run(command, save(data_options=options), *arguments[command], code=2).stderr


def run_in(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    source = Path(tg.__file__).parents[1]
    return subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(source)},
    )  # fmt: skip


# What some package tries to import, though it is not installed or comes late; and what every program imports.
SHADOWS = ("json", "numpy", "yaml", "onnxruntime", "tensorboard", "cupy", "scipy", "networkx", "rich", "sitecustom")


@pytest.mark.parametrize("start", [("-m", "ticketguard"), ("-c", "from ticketguard.cli import main; main()")])
def test_only_what_the_user_names_is_imported_from_the_current_folder(
    save: Save, tmp_path: Path, start: tuple[str, str]
) -> None:
    folder = tmp_path / "downloaded"
    folder.mkdir()
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(f"open('ran-{name}', 'w')\nraise ImportError('{name} of the folder')\n")
    (folder / "mynets.py").write_text(
        "import torch\nfrom mynets_parts import widths\n"
        "def net(**options):\n"
        "    from mynets_later import classes\n"
        "    import importlib\n"
        "    assert importlib.import_module('mynets_later').classes == classes\n"
        "    w = widths()\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, w), torch.nn.ReLU(),"
        " torch.nn.Linear(w, classes))\n"
    )
    (folder / "mynets_parts.py").write_text("def widths():\n    return 200\n")
    (folder / "mynets_later.py").write_text("classes = 10\n")
    ticket = save(model="mynets:net")
    if start[0] == "-c":
        # Python puts the current folder first for -c; the installed command does not.
        start = ("-P", *start)  # type: ignore[assignment]
    named = run_in(folder, *start, "measure", str(ticket), "--model", "mynets:net", "--repeats", "1")
    assert named.returncode == 0, named.stderr
    assert [path.name for path in folder.glob("ran-*")] == []


def test_trying_whether_a_package_is_there_does_not_find_the_current_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ticketguard.import_paths import load_object

    (tmp_path / "nets_of_a_user.py").write_text("net = 1\n")
    (tmp_path / "no_such_package.py").write_text("open('ran', 'w')\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert load_object("nets_of_a_user:net") == 1
    assert sys.path == before
    with pytest.raises(ModuleNotFoundError):
        import no_such_package  # type: ignore[import-not-found]  # noqa: F401
    assert not (tmp_path / "ran").exists()
