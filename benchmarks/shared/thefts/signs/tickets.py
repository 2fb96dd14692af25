"""Tickets whose start carries keyed signs, by the package's own searches, and where they are kept."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ticketguard as tg
from benchmarks.shared.thefts.reading import Owned
from benchmarks.shared.thefts.settings import Setting
from benchmarks.shared.thefts.tickets import Bench, owner_of, secret_of, vault_key
from ticketguard.credentials.credential import Credential
from ticketguard.embedding.interface import Binding, Mark
from ticketguard.embedding.keyed_signs import SCHEME, drawn_signs
from ticketguard.models import load_arrays, state_arrays
from ticketguard.ticket import Array, StartReference, Ticket
from ticketguard.training import train

MARKED, PARENT = "marked", "dense parent"
WEIGHT_MARKS: tuple[Mark, ...] = (tg.PlantedGraph(), tg.KeyedSigns())
# Other methods' options for the perceptron, the usual ones but for shorter searches: epochs are scaled with the rest.
METHODS: Mapping[str, Mapping[str, Any]] = {
    "ltr": {"prune_fraction": 0.37, "rewind_epochs": 0.5},
    "cts": {"epochs": 20.0},
    "snip": {},
    "bip": {"pretrain_epochs": 5.0, "epochs": 5.0, "mask_learning_rate": 1.0},
    "jackpot": {"pretrain_epochs": 5.0, "epochs": 10.0},
}


def own_method(setting: Setting) -> str:
    """Return the method that a setting's tickets are found by."""
    return "ltr" if setting.rounds.rewind_epochs else "imp"


def search(bench: Bench, method: str | None = None) -> dict[str, Any]:
    """Return the arguments of `ticketguard.find` for a ticket of this bench, by its own method or another."""
    setting = bench.setting
    own = {name: getattr(setting.rounds, name) for name in ("prune_fraction", "level_epochs", "rewind_epochs")}
    options = {name: value for name, value in own.items() if value} if method is None else METHODS[method]
    return {
        "model": setting.model,
        "model_options": {name: value for name, value in setting.model_options.items() if name == "width"},
        "data": bench.data.source,
        "density": setting.density,
        "method": method or own_method(setting),
        "method_options": {
            name: bench.scale * value if name.endswith("epochs") else value for name, value in options.items()
        },
        "training": bench.recipe(),
        "seed": bench.seed,
    }


def work_of(bench: Bench) -> Path:
    """Return where what is not a suspect is kept."""
    folder = bench.folder / "work" / bench.setting.name / str(bench.seed)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def find_signed(bench: Bench, name: str, *, marks: Sequence[Mark], method: str | None = None) -> None:
    """Find a ticket with marks, and keep it, its credential and its accuracy; an interrupted search goes on.

    It is released without the larger weights before norms: a thief can undo them, and moves smaller ones further.
    """
    workdir = work_of(bench) / f"{name}.find"
    ticket, credential = tg.find_marked(
        **search(bench, method),
        owner=owner_of(bench.folder, "owner"),
        marks=marks,
        # One start for all: what methods make of it is compared.
        secret=secret_of("signs", bench.setting.name, bench.seed),
        rescale=False,
        workdir=workdir,
        resume=True,
    )
    keep(bench, name, ticket, credential)
    shutil.rmtree(workdir)


def keep(bench: Bench, name: str, ticket: Ticket, credential: Credential) -> None:
    """Keep a ticket, its credential and its accuracy."""
    shelf = Owned(bench=bench, mark=name).shelf
    folder = shelf.folder / f"{name} credential"
    folder.mkdir(parents=True, exist_ok=True)
    recipient, owner = vault_key(bench.folder).recipient, owner_of(bench.folder, "owner")
    credential.save(folder / "claim.json", folder / "vault.age", owner, recipient=recipient)
    ticket.save(work_of(bench) / f"{name}.ticket")
    shelf.tell(name, accuracy=ticket.info.accuracy)


def find_ordinary(bench: Bench) -> None:
    """Find a ticket from an ordinary start, and keep its accuracy."""
    workdir = work_of(bench) / "ordinary.find"
    ticket = tg.find(**search(bench), workdir=workdir, resume=True)
    Owned(bench=bench).shelf.tell("ordinary", accuracy=ticket.info.accuracy)
    shutil.rmtree(workdir)


def train_parent(bench: Bench, of: str) -> None:
    """Train the dense network from the signed start of a ticket, as long as a ticket is trained."""
    owned = Owned(bench=bench, mark=of)
    model = bench.setting.build(bench.seed)
    load_arrays(model, signed_start(bench, owned.credential))
    checkpoint = work_of(bench) / f"{PARENT}.checkpoint"
    result = train(model, bench.data.source, bench.recipe(), seed=bench.seed, checkpoint=checkpoint, resume=True)
    owned.shelf.keep(PARENT, result.state, exact=True, accuracy=result.accuracy)
    checkpoint.unlink()


def signed_start(bench: Bench, credential: Credential) -> dict[str, Array]:
    """Return the start weights with the key's signs.

    Raises:
        AssertionError: The credential rests on another start.
    """
    state = state_arrays(bench.setting.build(bench.seed))
    reference, mark = start_of(credential), tg.KeyedSigns()
    again, _ = mark.bound({name: state[name] for name in reference.layers}, salt=reference.salt)
    assert again.digest() == reference.digest(), "the credential is of another start"
    return mark.drawn(state, reference, _binding_of(credential))


def start_signs(credential: Credential) -> dict[str, Array]:
    """Return which of the start weights are negative, by layer in its shape: the anchors' own, the votes' drawn."""
    binding, reference = _binding_of(credential), start_of(credential)
    return {
        name: np.where(
            reference.anchors(name), layer.negative(layer.size), drawn_signs(binding, name, layer.size)
        ).reshape(layer.shape)
        for name, layer in reference.layers.items()
    }


def _binding_of(credential: Credential) -> Binding:
    (mark,) = (mark for mark in credential.claim.marks if mark.scheme == SCHEME)
    return Binding(secret=credential.vault.secret, commitment=mark.commitment)


def start_of(credential: Credential) -> StartReference:
    """Return the start weights that a credential rests on."""
    assert isinstance(credential.reference, StartReference)
    return credential.reference
