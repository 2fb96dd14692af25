"""A thief who learns what planted edges look like from marks of his own, and replaces what looks like one."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from torch import nn

from benchmarks.shared.fleet import Outcome, Run, Task
from benchmarks.shared.thefts import masks
from benchmarks.shared.thefts.rows import Theft
from benchmarks.shared.thefts.tickets import Bench, embed, owner_of
from ticketguard.models import named_parameters
from ticketguard.ticket import Array, Mask, Ticket

KEYS = 3
REPLACED = 0.5
# Other edges that the forest is fitted to, for each planted one: all of them take minutes and teach it nothing more.
OTHERS = 4
FISHER_BATCHES, FISHER_BATCH = 48, 16
FEATURES = (
    "size", "rank in its layer", "size over its row's mean", "size over its column's mean", "sign", "squared gradient",
    "Fisher saliency", "its rank", "drift in an epoch", "growth in an epoch", "row degree", "column degree",
    "kernel degree", "layer", "layer density", "position",
)  # fmt: skip
Table = npt.NDArray[np.float32]


def squared_gradients(bench: Bench, ticket: Ticket, generator: np.random.Generator) -> dict[str, Array]:
    """Return E[g²] of every weight over small batches (Theis et al. 2018, arXiv 1801.05787, eq. 5)."""
    model = bench.network(ticket.weights).to(bench.data.device).eval()
    parameters = named_parameters(model, every_name=True)
    layers = [parameters[name] for name in ticket.mask]
    sums = [torch.zeros_like(layer) for layer in layers]
    for _ in range(FISHER_BATCHES):
        drawn = torch.from_numpy(generator.integers(len(bench.data.train_labels), size=FISHER_BATCH))
        chosen = drawn.to(bench.data.device)
        loss = nn.functional.cross_entropy(model(bench.data.train[chosen]), bench.data.train_labels[chosen])
        torch._foreach_add_(sums, [gradient.square() for gradient in torch.autograd.grad(loss, layers)])
    return {name: (total / FISHER_BATCHES).cpu().numpy() for name, total in zip(ticket.mask, sums, strict=True)}


def features(ticket: Ticket, later: Mapping[str, Array], squares: Mapping[str, Array]) -> Table:
    """Return what a thief sees of each edge, shape (edges, 16), layers in order of name.

    Args:
        ticket: Whose edges.
        later: The state dict after an epoch of fine-tuning under the mask.
        squares: `squared_gradients`.
    """
    return np.concatenate(
        [
            _layer_features(number, ticket.mask[name], ticket.weights[name], later[name], squares[name])
            for number, name in enumerate(ticket.mask)
            if ticket.mask[name].any()
        ]
    )


def _layer_features(number: int, mask: Array, weights: Array, later: Array, squares: Array) -> Table:
    out, into = np.nonzero(mask)[:2]
    sizes = np.abs(weights)
    kernels = mask.reshape(*mask.shape[:2], -1)
    degrees = kernels.sum(axis=2)
    rows, columns = degrees.sum(axis=1), degrees.sum(axis=0)
    totals = sizes.reshape(*mask.shape[:2], -1).sum(axis=2)
    row_means, column_means = totals.sum(axis=1) / np.maximum(rows, 1), totals.sum(axis=0) / np.maximum(columns, 1)
    size, saliency = sizes[mask], (weights**2 * squares)[mask]
    change = (later - weights)[mask]
    table = [
        size, _ranks(size), size / np.maximum(row_means[out], 1e-9), size / np.maximum(column_means[into], 1e-9),
        np.sign(weights[mask]), squares[mask], saliency, _ranks(saliency), np.abs(change),
        change * np.sign(weights[mask]), rows[out], columns[into], degrees[out, into], np.full(size.size, number),
        np.full(size.size, mask.mean()), np.flatnonzero(mask) / mask.size,
    ]  # fmt: skip
    return np.column_stack(table).astype(np.float32)


def _ranks(values: Array) -> Array:
    ranks: Array = np.argsort(np.argsort(values)) / max(len(values), 1)
    return ranks


def labels(mask: Mask, planted: Mapping[str, Array]) -> npt.NDArray[np.bool_]:
    """Say of each edge whether it was planted, in the order of `features`."""
    return np.concatenate([planted[name][mask[name]] for name in mask])


def _forest(seed: int) -> RandomForestClassifier:
    return RandomForestClassifier(n_estimators=60, min_samples_leaf=5, random_state=seed, n_jobs=3)


def learned(tables: list[Table], answers: list[npt.NDArray[np.bool_]], seed: int) -> RandomForestClassifier:
    """Fit a forest to the planted edges of several own marks, and to `OTHERS` times as many others."""
    table, answer = np.concatenate(tables), np.concatenate(answers)
    planted, others = np.flatnonzero(answer), np.flatnonzero(~answer)
    count = min(len(others), OTHERS * len(planted))
    chosen = np.concatenate([planted, np.random.default_rng(seed).choice(others, size=count, replace=False)])
    return _forest(seed).fit(table[chosen], answer[chosen])


def auc(forest: RandomForestClassifier, table: Table, answers: npt.NDArray[np.bool_]) -> float:
    """Return the area under the curve of a forest on marks that it was not fitted to."""
    return float(roc_auc_score(answers, forest.predict_proba(table)[:, 1]))


def adaptive(theft: Theft, *, share: float, planted: Mapping[str, Array], name: str) -> Task:
    """Learn from own marks in the stolen ticket, then replace the most suspicious half of its edges.

    Args:
        theft: The stolen ticket.
        share: Of the owner's mark; the thief's own are as large.
        planted: The owner's edges, for the measure alone.
        name: Of the rows that are kept.
    """
    bench, generator = theft.bench, theft.generator(5)
    table = yield from _seen(bench, theft.stolen, generator, stream=110)
    tables, answers = [], []
    for key in range(KEYS):
        own = yield from embed(
            bench,
            dataclasses.replace(theft.stolen, rewind_weights=None),
            owner=owner_of(bench.folder, "thief"),
            share=share,
            words=("own key", bench.setting.name, bench.seed, share, key),
            training=bench.recipe(),
            stream=120 + key,
        )
        tables.append((yield from _seen(bench, own.ticket, generator, stream=130 + key)))
        answers.append(labels(own.ticket.mask, own.planted))
    left_out = [
        auc(
            learned([t for k, t in enumerate(tables) if k != key], [a for k, a in enumerate(answers) if k != key], key),
            tables[key],
            answers[key],
        )
        for key in range(KEYS)
    ]
    forest = learned(tables, answers, bench.seed)
    real = auc(forest, table, labels(theft.stolen.mask, planted))
    state, mask = replaced(theft.stolen, forest.predict_proba(table)[:, 1], generator)
    recipe = bench.recipe(2, tuning=True)
    outcome = yield bench.run(bench.network(state), recipe, stream=111, mask=mask)
    theft.keep(name, outcome, recipe, auc_leave_one_key_out=left_out, auc_of_the_mark=real, features=FEATURES)


def _seen(
    bench: Bench, ticket: Ticket, generator: np.random.Generator, *, stream: int
) -> Generator[Run, Outcome, Table]:
    """Fine-tune for an epoch and return what is then seen of each edge."""
    recipe = bench.recipe(1, tuning=True)
    outcome = yield bench.run(bench.network(ticket.weights), recipe, stream=stream, mask=ticket.mask)
    return features(ticket, outcome.state, squared_gradients(bench, ticket, generator))


def replaced(ticket: Ticket, scores: Array, generator: np.random.Generator) -> tuple[dict[str, Array], Mask]:
    """Move the most suspicious half of all edges to random places, with weights drawn from their layer's."""
    bound = np.quantile(scores, 1 - REPLACED)
    ends = np.cumsum([int(ticket.mask[name].sum()) for name in ticket.mask])[:-1]
    gone = {}
    for name, part in zip(ticket.mask, np.split(scores > bound, ends), strict=True):
        layer = np.zeros(ticket.mask[name].shape, dtype=np.bool_)
        layer[ticket.mask[name]] = part
        gone[name] = layer
    mask = masks.moved(ticket.mask, gone, generator)
    state = dict(mask.applied(ticket.weights))
    for name in mask:
        values, new = state[name].copy(), mask[name] & ~ticket.mask[name]
        pool = ticket.weights[name][ticket.mask[name]]
        values[new] = generator.choice(pool, size=int(new.sum())) if len(pool) else 0
        state[name] = values
    return state, mask
