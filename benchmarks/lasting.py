"""How long triggers last: eight or fewer in a batch, weights rescaled or not, under thieves' and licensees' training.

ResNet-20 on Fashion-MNIST pooled to 14x14, 10 000 images, density 5%, eight epochs. Per seed one ticket is found, and
marked with 8 triggers a batch, and as is usual (8, or 2 while the model knows them); each is released as it was
trained, and rescaled as `finish` does. On seed 0 there are also 2 triggers a batch from the start, other factors, and
more thieves. All thieves have the owner's own images. The informed ones know of the rescaling: they set every filter to
unit norm, or raise the rate by the factor's square, which is the same as undoing it. A licensee keeps the mask and
trains on 10 000 other images with a cosine schedule.

``python -m benchmarks.lasting SEED ...`` measures seeds, side by side if started so, and keeps what is measured under
``runs/benchmarks/lasting``; without seeds, what is missing, and writes the result.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

import ticketguard as tg
from benchmarks.shared.results import Bar, write_result
from benchmarks.shared.searches import measured_once, paired
from benchmarks.tickets import DATA_OPTIONS, DENSITY, METHOD_OPTIONS, TRAINING, network, owner, secret_of
from benchmarks.tickets import FOLDER as TICKETS
from ticketguard.credentials.credential import Credential
from ticketguard.data import Dataset, load_data
from ticketguard.embedding.interface import Binding, Mark
from ticketguard.embedding.trigger_set import TriggerRecipe, Triggers, draw_triggers
from ticketguard.marking.plan import prepare
from ticketguard.marking.rescaling import FACTOR, rescaled
from ticketguard.marking.scale_free import scale_free_layers
from ticketguard.models import load_arrays
from ticketguard.models.answers import answers_of
from ticketguard.ticket import Array, Ticket
from ticketguard.training import TrainingConfig, train
from ticketguard.verification.verdict import level_log10

SEEDS = (0, 1, 2)
FOLDER = TICKETS / "lasting"
OPTIONS = {**DATA_OPTIONS, "train_limit": 10_000}
PER_BATCH = {"8 a batch": 8, "2 a batch": 2, "usual": None}
# Beside `FACTOR` and none, factors that were not chosen.
OTHER_FACTORS = (2.0, 8.0)
# What a processor has no time for.
NOT_MEASURED = (
    "on more than one seed: 2 triggers a batch, other factors, dense thefts but for the first, unit norm at a constant "
    "rate; other informed thieves than those listed, thieves without the owner's images"
)
CONSTANT = dataclasses.replace(TRAINING, epochs=2, schedule="constant", learning_rate=0.05)
DECAYING = dataclasses.replace(TRAINING, epochs=4, learning_rate=0.05)
COSINE = dataclasses.replace(TRAINING, epochs=2, schedule="cosine", learning_rate=0.01)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """A training that somebody continues a released ticket with.

    Attributes:
        recipe: Of it.
        dense: Whether the mask is dropped.
        unit_norm: Whether every filter is first scaled to unit norm.
        other_images: Whether it sees images that the ticket has not seen, instead of those of its training.
    """

    recipe: TrainingConfig
    dense: bool = True
    unit_norm: bool = False
    other_images: bool = False


def _at(rate: float, **more: Any) -> TrainingConfig:
    return dataclasses.replace(CONSTANT, learning_rate=rate, **more)


MAIN = "dense, 2 epochs at 0.05"
MASKED = "masked, 2 epochs at 0.1"
DECAYING_THEFT = "dense, 4 epochs from 0.05, decaying"
THEFTS = {
    MAIN: Training(recipe=CONSTANT),
    "dense, 2 epochs at 0.1": Training(recipe=_at(0.1)),
    "dense, 2 epochs at 0.5": Training(recipe=_at(0.5)),
    "dense, 2 epochs of Adam at 0.001": Training(recipe=_at(0.001, optimizer="adam")),
    DECAYING_THEFT: Training(recipe=DECAYING),
    MASKED: Training(recipe=_at(0.1), dense=False),
}
UNIT_NORM = "informed: unit norm, dense, 4 epochs from 0.05, decaying"
RATE_RAISED = f"informed: dense, 2 epochs at {0.05 * FACTOR**2:g}"
INFORMED = {
    "informed: unit norm, dense, 2 epochs at 0.05": Training(recipe=CONSTANT, unit_norm=True),
    UNIT_NORM: Training(recipe=DECAYING, unit_norm=True),
    RATE_RAISED: Training(recipe=_at(0.05 * FACTOR**2)),
}
INFORMED_OF_ALL_SEEDS = (UNIT_NORM, RATE_RAISED)
LICENSEES = {
    f"licensee: masked, 2 epochs from {rate:g}": Training(
        recipe=dataclasses.replace(COSINE, learning_rate=rate), dense=False, other_images=True
    )
    for rate in (0.01, 0.1)
}
RELEASED = "released"


class Case(NamedTuple):
    """A release and what is done to it: how many triggers a batch ("none" is the unmarked ticket), factor, training."""

    portions: str
    factor: float
    training: str


def cases() -> list[Case]:
    """Return what is measured of every seed."""
    usual = [("usual", factor) for factor in (1.0, FACTOR)]
    both = [*usual, *(("8 a batch", factor) for factor in (1.0, FACTOR))]
    found = [Case(*release, RELEASED) for release in (("none", 1.0), *both)]
    found += [Case(*release, MAIN) for release in both]
    found += [Case(*release, name) for name in (*LICENSEES, MASKED) for release in usual]
    return [*found, *(Case("usual", FACTOR, name) for name in INFORMED_OF_ALL_SEEDS)]


def more_cases() -> list[Case]:
    """Return what is measured of the first seed only."""
    found = [Case("2 a batch", 1.0, RELEASED), Case("2 a batch", FACTOR, MAIN)]
    found += [Case("usual", factor, name) for factor in OTHER_FACTORS for name in (MAIN, tuple(LICENSEES)[-1])]
    found += [Case("usual", FACTOR, name) for name in THEFTS if name not in (MAIN, MASKED, DECAYING_THEFT)]
    found += [Case("usual", FACTOR, name) for name in INFORMED if name not in INFORMED_OF_ALL_SEEDS]
    return [*found, *(Case("usual", factor, DECAYING_THEFT) for factor in (1.0, FACTOR))]


@functools.cache
def images(*, other: bool) -> Dataset:
    """Return the ticket's images, or as many others."""
    data = load_data("fashion-mnist", options={**OPTIONS, "train_limit": 20_000})
    part = slice(10_000, 20_000) if other else slice(0, 10_000)
    return dataclasses.replace(data, train_inputs=data.train_inputs[part], train_labels=data.train_labels[part])


def unit_norm(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return weights in which every filter before a batch normalisation has unit norm; the function is the same."""
    model, result = network().eval(), dict(weights)
    for layer in scale_free_layers(model, lambda: model(torch.zeros(1, 1, 14, 14))):
        (name,), (norm,) = layer.parameters, layer.statistics
        norms = np.sqrt(np.square(weights[name]).sum(axis=(1, 2, 3)))
        by = (1 / np.where(norms > 0, norms, 1)).astype(np.float32)
        result[name] = weights[name] * by[:, None, None, None]
        mean, variance = norm.mean[0], norm.variance[0]
        result[mean] = weights[mean] * by
        result[variance] = np.maximum((weights[variance] + norm.eps) * by**2 - norm.eps, 0)
    return result


class Seed:
    """One seed's tickets, the credential that all of them share, and what is measured of them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        FOLDER.mkdir(parents=True, exist_ok=True)
        path = FOLDER / f"unmarked-{seed}.safetensors"
        if not path.exists():
            self._find().save(path)
        self.unmarked = Ticket.load(path)
        self.credential = self._credential()
        self.triggers = self._triggers()

    def _find(self) -> Ticket:
        return tg.find(
            "resnet20", data="fashion-mnist", data_options=OPTIONS, method="ltr", method_options=METHOD_OPTIONS,
            density=DENSITY, training=TRAINING, seed=self.seed,
        )  # fmt: skip

    def _credential(self) -> Credential:
        """Return what every embedding of this secret is proved by: nothing in it depends on the training."""
        model = network(self.seed)
        plan = prepare(self.unmarked, owner=owner(), model=model, secret=secret_of(self.seed))
        plan.start(model)
        return plan.finish(model, check=False, rescale=False)[1]

    def _triggers(self) -> Triggers:
        mark = self.credential.mark("trigger-set")
        binding = Binding(secret=self.credential.vault.secret, commitment=mark.commitment)
        return draw_triggers(binding, TriggerRecipe.from_json(mark.parameters))

    @functools.cache  # noqa: B019 a seed lives as long as the benchmark
    def released(self, portions: str, factor: float) -> Ticket:
        """Return a release, embedded once."""
        if portions == "none":
            marked = self.unmarked
        else:
            path = FOLDER / f"marked-{self.seed}-{portions.replace(' ', '-')}.safetensors"
            if not path.exists():
                marks: list[Mark] = [tg.PlantedGraph(), tg.TriggerSet(100, per_batch=PER_BATCH[portions])]
                tg.embed(
                    self.unmarked, owner=owner(), marks=marks, data_options=OPTIONS, seed=self.seed,
                    secret=secret_of(self.seed), rescale=False,
                )[0].save(path)  # fmt: skip
            marked = Ticket.load(path)
        inputs = images(other=False).scaled(images(other=False).test_inputs[:16]).numpy()
        weights = rescaled(network(), marked.weights, inputs, factor=factor) if factor != 1 else marked.weights
        return dataclasses.replace(marked, weights=weights)

    def what(self, weights: Mapping[str, Array]) -> dict[str, float]:
        """Return accuracy, and the share of the triggers that are answered."""
        model = network()
        load_arrays(model, weights)
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        data = images(other=False)
        tests = answers_of(model, data.scaled(data.test_inputs).numpy(), classes=10)
        answers = answers_of(model, self.triggers.inputs(), classes=10)
        return {
            "accuracy": float((tests == data.test_labels.numpy()).mean()),
            "triggers": float((answers == self.triggers.labels).mean()),
        }

    def log10_p(self, weights: Mapping[str, Array]) -> float:
        """Return what a verification of the weights says."""
        return tg.verify(tg.Checkpoint(dict(weights)), self.credential).log10_p

    def release(self, portions: str, factor: float) -> dict[str, Any]:
        """Measure a release before anybody touches it, and how far its scores are from those before rescaling."""
        ticket, before = self.released(portions, factor), self.released(portions, 1.0)
        scores = []
        data = images(other=False)
        for weights in (before.weights, ticket.weights):
            model = network().eval()
            load_arrays(model, weights)
            with torch.no_grad():
                scores.append(model(data.scaled(data.test_inputs[:2000])))
        moved = float((scores[1] - scores[0]).abs().max() / scores[0].abs().max())
        return {**self.what(ticket.weights), "log10_p": self.log10_p(ticket.weights), "scores_moved": moved}

    def trained_on(self, case: Case) -> dict[str, Any]:
        """Measure a release after each epoch that somebody continued to train it for."""
        training = {**THEFTS, **INFORMED, **LICENSEES}[case.training]
        ticket = self.released(case.portions, case.factor)
        model = network()
        load_arrays(model, unit_norm(ticket.weights) if training.unit_norm else ticket.weights)
        data = images(other=training.other_images)
        epoch = len(data.train_labels) // training.recipe.batch_size
        mask = None if training.dense else ticket.mask
        result = train(
            model, data, training.recipe, seed=1000 + self.seed, mask=mask,
            snapshot_steps=[epoch * number for number in range(1, int(training.recipe.epochs))],
        )  # fmt: skip
        states = [result.snapshots[step] for step in sorted(result.snapshots)] + [result.state]
        told: dict[str, Any] = {"after_epoch": [self.what(state) for state in states]}
        if case.training in INFORMED:
            # Whoever is rid of the triggers is still to be judged by weights.
            told["log10_p"] = self.log10_p(states[-1])
        return told

    def rows(self, chosen: Sequence[Case]) -> list[dict[str, Any]]:
        """Measure cases, those aside that were measured before."""
        found = []
        for case in chosen:
            what = {"seed": self.seed, **case._asdict()}

            def measure(case: Case = case) -> dict[str, Any]:
                if case.training == RELEASED:
                    return self.release(case.portions, case.factor)
                return self.trained_on(case)

            found.append({**what, **measured_once(FOLDER / "rows", what, measure)})
            print(found[-1], flush=True)
        return found


class Table:
    """All rows, looked up by case."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._rows = {(row["portions"], row["factor"], row["training"], row["seed"]): row for row in rows}

    def per_seed(self, portions: str, factor: float, training: str, field: str) -> list[float]:
        """Return one number for each seed that was measured, after the last epoch."""
        keys = [(portions, factor, training, seed) for seed in SEEDS]
        rows = [self._rows[key] for key in keys if key in self._rows]
        return [float(row.get("after_epoch", [row])[-1].get(field, row.get(field))) for row in rows]

    def summary(self) -> list[dict[str, Any]]:
        """Return, a row a case, mean and lowest of triggers and accuracy after the last epoch; worst first."""
        found = []
        for portions, factor, training in dict.fromkeys(key[:3] for key in self._rows):
            triggers, accuracy = (
                self.per_seed(portions, factor, training, field) for field in ("triggers", "accuracy")
            )
            found.append(
                {
                    "portions": portions, "factor": factor, "training": training,
                    "triggers": statistics.mean(triggers), "lowest": min(triggers),
                    "accuracy": statistics.mean(accuracy),
                }
            )  # fmt: skip
        return sorted(found, key=lambda row: float(row["triggers"]))

    def lost(self, portions: str) -> dict[str, float]:
        """Return the points that marks cost, against the same ticket retrained without them."""
        both = (self.per_seed(name, 1.0, RELEASED, "accuracy") for name in ("none", portions))
        return {name: 100 * value for name, value in paired(*both).items()}

    def dulled(self, training: str) -> dict[str, float]:
        """Return the points that rescaling costs a licensee."""
        both = (self.per_seed("usual", factor, training, "accuracy") for factor in (1.0, FACTOR))
        return {name: 100 * value for name, value in paired(*both).items()}


def bars_of(table: Table) -> dict[str, Bar]:
    """Return the bars."""

    def left(portions: str, factor: float, training: str) -> list[float]:
        return table.per_seed(portions, factor, training, "triggers")

    p = [table.per_seed("usual", factor, RELEASED, "log10_p") for factor in (1.0, FACTOR)]
    moved = table.per_seed("usual", FACTOR, RELEASED, "scores_moved")
    bars = {
        f"triggers left, {MAIN}, mean": Bar(
            value=statistics.mean(left("usual", FACTOR, MAIN)), bound=0.9, at_most=False
        ),
        f"triggers left, {MAIN}, lowest seed": Bar(value=min(left("usual", FACTOR, MAIN)), bound=0.9, at_most=False),
        f"triggers left, {MASKED}, lowest seed": Bar(
            value=min(left("usual", FACTOR, MASKED)), bound=0.9, at_most=False
        ),
        "triggers learned, lowest seed": Bar(value=min(left("usual", FACTOR, RELEASED)), bound=0.99, at_most=False),
        "points of accuracy lost, mean": Bar(value=table.lost("usual")["mean"], bound=0.3, at_most=True),
        "log10 p moved by rescaling": Bar(
            value=max(abs(one - other) for one, other in zip(*p, strict=True)), bound=0.0, at_most=True
        ),
        "scores moved by rescaling, of the largest": Bar(value=max(moved), bound=1e-5, at_most=True),
    }
    for training in LICENSEES:
        bars[f"points rescaling costs, {training}, mean"] = Bar(
            value=table.dulled(training)["mean"], bound=0.3, at_most=True
        )
    for training in INFORMED:
        bars[f"triggers left, {training}, lowest seed"] = Bar(
            value=min(left("usual", FACTOR, training)), bound=0.9, at_most=False
        )
        bars[f"log10 p of the weights, {training}, weakest seed"] = Bar(
            value=max(table.per_seed("usual", FACTOR, training, "log10_p")), bound=level_log10(64), at_most=True
        )
    return bars


def main() -> None:
    """Measure, and write the result."""
    chosen = [int(argument) for argument in sys.argv[1:]]
    rows = [row for seed in chosen or SEEDS for row in Seed(seed).rows(cases())]
    if chosen:
        return
    rows += Seed(SEEDS[0]).rows(more_cases())
    table = Table(rows)
    write_result(
        "lasting",
        setting={
            "model": "resnet20",
            "data": "fashion-mnist, first 10 000 training images, pooled to 14x14, all 10 000 test images; licensees: "
            "the next 10 000",
            "density": DENSITY,
            "factor": FACTOR,
            "not_measured": NOT_MEASURED,
            "training": TRAINING.to_json(),
            "method_options": METHOD_OPTIONS,
            "trainings": {name: dataclasses.asdict(item) for name, item in {**THEFTS, **INFORMED, **LICENSEES}.items()},
        },
        seeds=SEEDS,
        raw={
            "worst_first": table.summary(),
            "points_lost": {portions: table.lost(portions) for portions in ("8 a batch", "usual")},
            "points_rescaling_costs_licensees": {name: table.dulled(name) for name in LICENSEES},
            "rows": rows,
        },
        bars=bars_of(table),
    )


if __name__ == "__main__":
    main()
