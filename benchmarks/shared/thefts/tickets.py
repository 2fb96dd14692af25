"""Finding a ticket, checking that it wins, and marking it: each a task of the fleet."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

import ticketguard as tg
from benchmarks.shared.fleet import DeviceData, Outcome, Run
from benchmarks.shared.thefts.settings import Setting
from ticketguard.credentials.vault_key import VaultKey
from ticketguard.evaluation.arms import DENSE, TICKET
from ticketguard.evaluation.verdict import ArmResult, Comparison, Status, judge
from ticketguard.models import load_arrays, prunable_layers, state_arrays
from ticketguard.pruning.engine.selection import full_mask, global_top_k
from ticketguard.pruning.methods.controls import dense_start, make_control
from ticketguard.ticket import Array, Mask, Ticket
from ticketguard.training import TrainingConfig

# A perceptron's step takes about an eighth of a residual network's.
PERCEPTRON_BURST = 8
CONTROLS = ("reinitialised", "shuffled", "random_like")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """One seed of one setting.

    Attributes:
        setting: The kind of ticket.
        seed: The seed.
        data: On the device.
        folder: Where what is made is kept.
        scale: Factor of all epochs; below one for a trial of the benchmark itself.
    """

    setting: Setting
    seed: int
    data: DeviceData
    folder: Path
    scale: float = 1.0

    def recipe(self, epochs: float | None = None, *, tuning: bool = False) -> TrainingConfig:
        """Return the recipe of tickets, or of a thief's *tuning*, for so many epochs; by default its own."""
        recipe = self.setting.fine_tuning if tuning else self.setting.training
        return dataclasses.replace(recipe, epochs=self.scale * (recipe.epochs if epochs is None else epochs))

    def network(self, state: Mapping[str, Array] | None = None, *, stream: int = 0) -> nn.Module:
        """Build the network, with *state* or with fresh weights of a *stream* of the seed."""
        model = self.setting.build(self.draw(stream))
        if state is not None:
            load_arrays(model, state)
        return model

    def draw(self, stream: int) -> int:
        """Return the seed of one of this seed's streams."""
        return int(np.random.default_rng([self.seed, stream]).integers(2**31))

    def run(
        self,
        model: nn.Module,
        training: TrainingConfig,
        *,
        stream: int,
        mask: Mask | None = None,
        **others: Any,
    ) -> Run:
        """Return a run on this bench's data, in the order of a *stream* of the seed."""
        burst = PERCEPTRON_BURST if self.setting.model == "mlp" else 1
        return Run(
            model=model, data=self.data, training=training, seed=self.draw(stream), mask=mask, burst=burst, **others
        )


def find(bench: Bench) -> Generator[Run, Outcome, Ticket]:
    """Find a ticket by iterative magnitude pruning, rewinding to where the setting says.

    The rounds, the choice of edges and the guard against empty layers are the package's; what differs from
    `ticketguard.find` is who takes the steps.
    """
    setting = bench.setting
    model = setting.build(bench.seed)
    rewind = state_arrays(model)
    names = prunable_layers(model)
    mask = full_mask({name: rewind[name].shape for name in names})
    counts = setting.rounds.kept_counts(mask.size, round(setting.density * mask.size))
    level = bench.recipe(setting.rounds.level_epochs or None)
    examples = len(bench.data.train_labels)
    batch = min(level.batch_size, examples)
    rewind_step = round(bench.scale * setting.rounds.rewind_epochs * (examples // batch))
    if setting.rounds.rewind_epochs:
        rewind_step = max(1, rewind_step)
    outcome = yield bench.run(model, level, stream=1, snapshot_step=rewind_step or None)
    rewind = outcome.snapshot or rewind
    history = [{"density": 1.0, "accuracy": outcome.accuracy, "steps": outcome.steps}]
    for number, keep in enumerate(counts, start=1):
        scores = {name: np.abs(outcome.state[name]) for name in names}
        mask = global_top_k(scores, keep, within=mask)
        load_arrays(model, rewind)
        recipe = bench.recipe() if number == len(counts) else level
        outcome = yield bench.run(model, recipe, stream=1 + number, mask=mask)
        history.append({"density": mask.density, "accuracy": outcome.accuracy, "steps": outcome.steps})
    info = setting.info(seed=bench.seed, accuracy=outcome.accuracy, data=bench.data.source, history=history)
    return Ticket(mask=mask, weights=mask.applied(outcome.state), rewind_weights=rewind, info=info)


def arm(bench: Bench, ticket: Ticket, name: str) -> Generator[Run, Outcome, float]:
    """Train one arm of `ticketguard.check_ticket` and return its accuracy; the ticket's own is that of `find`."""
    if name == DENSE:
        start, mask = dense_start(ticket) or ticket.start_weights, None
    else:
        control = make_control(name, ticket, seed=bench.seed)
        start, mask = control.start, control.mask
    outcome = yield bench.run(bench.network(start), bench.recipe(), stream=20, mask=mask)
    return outcome.accuracy


def check(arms: Mapping[str, Sequence[float]], setting: Setting) -> tuple[Status, tuple[Comparison, ...]]:
    """Judge tickets of several seeds together, one run an arm each, by the rule of `ticketguard.check_ticket`.

    Args:
        arms: Accuracies by arm, "dense" and "ticket" among them, one a seed.
        setting: Whose tickets they are.
    """
    results = [
        ArmResult(
            name=name,
            accuracies=tuple(accuracies),
            density=1.0 if name == DENSE else setting.density,
            epochs=setting.training.epochs,
            start="",
        )
        for name, accuracies in sorted(arms.items(), key=lambda item: item[0] != TICKET)
    ]
    return judge(results)


def secret_of(*words: object) -> bytes:
    """Return the secret of one of the benchmark's owners: a rerun draws the same marks."""
    return hashlib.sha256(" ".join(["survival", *map(str, words)]).encode()).digest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Marked:
    """A ticket with its owner's mark.

    Attributes:
        ticket: As it is released.
        planted: Per layer, which of its edges embedding moved into the secret set.
    """

    ticket: Ticket
    planted: Mapping[str, Array]


def embed(
    bench: Bench,
    ticket: Ticket,
    *,
    owner: tg.Owner,
    share: float,
    words: Sequence[object],
    training: TrainingConfig,
    stream: int,
    keep: Path | None = None,
) -> Generator[Run, Outcome, Marked]:
    """Embed a planted graph by the package's own plan, and train it through.

    Args:
        bench: Whose data and device.
        ticket: What is marked.
        owner: Whose mark it is.
        share: Share of the edges that moves.
        words: What the owner's secret is drawn from.
        training: How it is trained.
        stream: Of the seed, for the order of the data.
        keep: Folder for claim and vault; None keeps neither, and looks for no channel groups.
    """
    model = bench.network(ticket.start_weights)
    marks, known = [tg.PlantedGraph(share=share)], None if keep is None else model
    plan = tg.prepare(ticket, owner=owner, marks=marks, model=known, secret=secret_of(*words))
    plan.start(model)
    outcome = yield bench.run(model, training, stream=stream, mask=plan.mask, after_step=plan.after_step)
    load_arrays(model, outcome.state)
    marked, credential = plan.finish(model, accuracy=outcome.accuracy)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        recipient = vault_key(bench.folder).recipient
        credential.save(keep / "claim.json", keep / "vault.age", owner, recipient=recipient)
    planted = {name: marked.mask[name] & ~ticket.mask[name] for name in marked.mask}
    return Marked(ticket=marked, planted=planted)


def vault_key(folder: Path) -> VaultKey:
    """Return the key that opens the benchmark's vaults; they guard nothing."""
    return VaultKey.load(folder / "vault.key")


def owner_of(folder: Path, name: str) -> tg.Owner:
    """Return one of the benchmark's owners."""
    return tg.Owner.load(folder / f"{name}.key")


def make_keys(folder: Path) -> None:
    """Make the keys of owner, thief and vaults, if they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("owner", "thief"):
        if not (folder / f"{name}.key").exists():
            tg.Owner.generate(name).save(folder / f"{name}.key", passphrase=None)
    if not (folder / "vault.key").exists():
        VaultKey.generate().save(folder / "vault.key")


def fresh_state(bench: Bench, *, stream: int) -> dict[str, Array]:
    """Return a fresh initialisation that the ticket has nothing to do with."""
    return state_arrays(bench.setting.build(bench.draw(stream)))
