"""Who has said what a ticket says: a file, or the calling code."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path

import pytest
import torch

import ticketguard as tg
from ticketguard.data import load_data
from ticketguard.errors import UntrustedNameError

QUICK = {"epochs": 0.5}
OPTIONS = {"train_limit": 300, "test_limit": 100}


def net(classes: int, input_shape: list[int], width: int = 40) -> torch.nn.Module:
    """A model of the user's own."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.Linear(width, classes))


def digits() -> tg.Dataset:
    """Data of the user's own."""
    return load_data("digits", options=OPTIONS)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An import path of the user's own."""
    source = inspect.getsource(net)
    (tmp_path / "net_of_a_caller.py").write_text(f"import torch\n{source}\n")
    monkeypatch.chdir(tmp_path)
    return "net_of_a_caller:net"


def find(path: str, tmp_path: Path | None = None, *, resume: bool = False) -> tg.Ticket:
    return tg.find(
        path, data="digits", density=0.3, method="magnitude", training=QUICK, data_options=OPTIONS, workdir=tmp_path,
        resume=resume,
    )  # fmt: skip


def test_what_the_caller_named_needs_no_other_word_in_the_same_process(path: str) -> None:
    ticket = find(path)
    assert not ticket.info.from_file
    marked, _ = tg.embed(ticket, owner=tg.Owner.generate("Ada"), marks=[tg.PlantedGraph()], level_bits=8)
    assert marked.info.model == path
    assert tg.measure(marked, repeats=1).ticket.parameters


def test_a_ticket_from_a_file_needs_the_callers_word(path: str, tmp_path: Path) -> None:
    find(path).save(tmp_path / "ticket")
    loaded = tg.Ticket.load(tmp_path / "ticket")
    changed = dataclasses.replace(loaded, info=dataclasses.replace(loaded.info, seed=3))
    for ticket in (loaded, changed, tg.Ticket.from_bytes(loaded.to_bytes())):
        with pytest.raises(UntrustedNameError, match="names code, model 'net_of_a_caller:net'"):
            tg.measure(ticket, repeats=1)
        assert tg.measure(ticket, repeats=1, model=path)
    assert tg.measure(tg.Ticket.load(tmp_path / "ticket", trust_code=True), repeats=1)
    assert loaded.info == tg.Ticket.load(tmp_path / "ticket", trust_code=True).info
    assert "from_file" not in loaded.info.to_json()


def test_a_marked_ticket_says_still_that_a_file_named_its_data(tmp_path: Path) -> None:
    ticket = find("mlp")
    info = dataclasses.replace(ticket.info, data="subprocess:getoutput", data_options={"cmd": "true"})
    dataclasses.replace(ticket, info=info).save(tmp_path / "ticket")
    loaded = tg.Ticket.load(tmp_path / "ticket")
    marked, _ = tg.embed(loaded, owner=tg.Owner.generate("Ada"), marks=[tg.PlantedGraph()], level_bits=8, data=digits())
    with pytest.raises(UntrustedNameError, match="names code, data 'subprocess:getoutput'"):
        tg.check_ticket(marked)


def test_a_search_that_goes_on_returns_what_the_caller_named(path: str, tmp_path: Path) -> None:
    arguments = {"method": "imp", "method_options": {"prune_fraction": 0.7}}
    both = [
        tg.find(path, data="digits", density=0.3, training=QUICK, data_options=OPTIONS, workdir=tmp_path / "run",
                resume=resume, **arguments)  # type: ignore[arg-type]
        for resume in (False, True)
    ]  # fmt: skip
    assert list((tmp_path / "run").glob("round-*.ticket"))
    assert both[0].info == both[1].info
    assert not both[1].info.from_file
    assert tg.measure(both[1], repeats=1)


def test_a_folder_is_read_if_it_is_repeated(tmp_path: Path) -> None:
    ticket = find("mlp")
    info = dataclasses.replace(ticket.info, data="fashion-mnist", data_options={"folder": str(tmp_path / "data")})
    dataclasses.replace(ticket, info=info).save(tmp_path / "ticket")
    loaded = tg.Ticket.load(tmp_path / "ticket")
    with pytest.raises(UntrustedNameError, match="a place to read, data option 'folder'"):
        tg.check_ticket(loaded)
    with pytest.raises(tg.TicketguardError, match="does not hold the Fashion-MNIST files"):
        tg.check_ticket(loaded, data_options={"folder": str(tmp_path / "data")})


# What builds, loads or imports whatever it is told to, and what a ticket names.
UNGUARDED = {"build_model", "model_factory", "load_data", "load_object", "import_module"}
NAMED = {"model", "model_options", "data", "data_options"}


def test_what_a_ticket_names_is_resolved_in_one_place_each() -> None:
    root = Path(tg.__file__).parent
    both = set()
    for source in root.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(source.read_text())))
        reads = any(
            isinstance(node, ast.Attribute) and node.attr in NAMED and ast.unparse(node.value).endswith("info")
            for node in nodes
        )
        if reads and any(isinstance(node, ast.Name) and node.id in UNGUARDED for node in nodes):
            both.add(str(source.relative_to(root)))
    # An import describes what its own call named; the demo finds its ticket itself.
    assert both == {"models/of_ticket.py", "data/of_ticket.py", "interchange/importing.py", "demo.py"}
