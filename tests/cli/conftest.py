"""A small marked ticket with its claim and vault, made without training, and a way to call the command line."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import click.testing
import jsonschema
import numpy as np
import pytest
import referencing
import torch

import ticketguard as tg
from ticketguard.cli import main
from ticketguard.cli.group import CommandGroup
from ticketguard.credentials import age_passphrase
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.trigger_set import TriggerRecipe, draw_triggers

PASSPHRASE = "correct horse battery staple"
SCHEMAS = Path(__file__).parents[2] / "docs" / "schema"

Run = Callable[..., click.testing.Result]


@pytest.fixture(autouse=True)
def passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETGUARD_PASSPHRASE", PASSPHRASE)


@pytest.fixture(autouse=True)
def each_vault_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a vault takes a second on purpose; here the key of one vault and passphrase is derived once."""
    monkeypatch.setattr(age_passphrase, "_wrap_key", _wrap_key_once)


_wrap_key_once = functools.cache(age_passphrase._wrap_key)


@pytest.fixture
def run() -> Run:
    """Call the command line in this process and check its exit code, unless that is None."""

    def call(*args: object, code: int | None = 0) -> click.testing.Result:
        result = click.testing.CliRunner().invoke(main, [str(arg) for arg in args])
        assert code in (None, result.exit_code), (result.output, result.stderr, result.exception)
        assert "Traceback" not in result.stderr
        return result

    return call


def failing_with(error: BaseException) -> click.testing.Result:
    """Call a command that ends in *error*."""
    group = CommandGroup(name="ticketguard")

    @click.command()
    def failing() -> None:
        raise error

    group.get_command = lambda ctx, cmd_name: failing  # type: ignore[method-assign]
    return click.testing.CliRunner().invoke(group, ["failing"])


def validate(document: Any, schema: str) -> None:
    """Check a document against a schema of docs/schema."""
    resources = [
        (path.name, referencing.Resource.from_contents(json.loads(path.read_text()))) for path in SCHEMAS.glob("*.json")
    ]
    registry: referencing.Registry[Any] = referencing.Registry().with_resources(resources)
    contents = json.loads((SCHEMAS / f"{schema}.json").read_text())
    jsonschema.Draft202012Validator(contents, registry=registry).validate(document)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
    """Files of one owner and one marked ticket."""

    folder: Path
    unmarked: Path
    marked: Path
    claim: Path
    vault: Path
    key: Path


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 200), torch.nn.ReLU(), torch.nn.Linear(200, 10))


def unmarked_ticket() -> tg.Ticket:
    generator = np.random.default_rng(0)
    shapes = {"1.weight": (200, 64), "1.bias": (200,), "3.weight": (10, 200), "3.bias": (10,)}
    state = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    mask = tg.Mask(layers={name: generator.random(shapes[name]) < 0.2 for name in ("1.weight", "3.weight")})
    weights = {
        name: np.where(mask[name], array, np.float32(0)) if name in mask else array for name, array in state.items()
    }
    info = tg.TicketInfo(method="random", classes=10, input_shape=(1, 8, 8), input_mean=(0.5,), input_std=(0.25,))
    return tg.Ticket(mask=mask, weights=weights, rewind_weights=state, info=info)


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Files, tg.Credential]:
    folder = tmp_path_factory.mktemp("marked")
    files = Files(
        folder=folder,
        unmarked=folder / "ticket.safetensors",
        marked=folder / "marked.safetensors",
        claim=folder / "claim.json",
        vault=folder / "vault.age",
        key=folder / "owner.key",
    )
    ticket = unmarked_ticket()
    owner = tg.Owner.generate("Ada")
    plan = tg.prepare(ticket, owner=owner)
    model = network()
    plan.start(model)
    marked, credential = plan.finish(model, check=False)
    ticket.save(files.unmarked)
    marked.save(files.marked)
    owner.save(files.key, PASSPHRASE)
    credential.save(files.claim, files.vault, owner, PASSPHRASE)
    return files, credential


@pytest.fixture(scope="session")
def files(_made: tuple[Files, tg.Credential]) -> Files:
    return _made[0]


@pytest.fixture(scope="session")
def trigger_answers(_made: tuple[Files, tg.Credential]) -> tuple[np.ndarray, np.ndarray]:
    """The owner's triggers as inputs, and their labels."""
    credential = _made[1]
    mark = credential.mark("trigger-set")
    binding = Binding(secret=credential.vault.secret, commitment=mark.commitment)
    triggers = draw_triggers(binding, TriggerRecipe.from_json(mark.parameters))
    return triggers.inputs(), triggers.labels


def credentials(files: Files) -> tuple[object, ...]:
    return ("--claim", files.claim, "--vault", files.vault)
