"""What `soundness` tries: references, groups, parameters, suspects and answers, chosen before the secret is drawn."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np

from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.embedding.trigger_set import TriggerRecipe
from ticketguard.graph import ChannelGroup, GroupMember
from ticketguard.ticket import BoolArray, FloatArray, Mask, Reference

Weights: TypeAlias = dict[str, FloatArray]
Masks: TypeAlias = dict[str, BoolArray]

SHAPES = {"a": (24, 16), "b": (16, 24, 3, 3), "c": (10, 16)}
PARAMETERS = PlantedParameters(secret_ppm=30_000, share_ppm=50_000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim that is fixed before its secret is drawn, and the suspect that it is made against.

    Attributes:
        name: What it tries.
        reference: What the commitment binds.
        suspect: Weights under the reference's names.
        parameters: Of the planted graph.
        groups: Channel groups that the commitment binds.
    """

    name: str
    reference: Reference
    suspect: Weights
    parameters: PlantedParameters = PARAMETERS
    groups: tuple[ChannelGroup, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answering:
    """A trigger set and a suspect that answers it.

    Attributes:
        name: What it tries.
        recipe: Of the triggers.
        answer: Gives an answer to the input and its number.
    """

    name: str
    recipe: TriggerRecipe
    answer: Callable[[FloatArray, int], int]

    def predictor(self) -> _Answers:
        """Return a suspect that has not been asked yet."""
        return _Answers(self.answer)


class _Answers:
    target = "simulated"

    def __init__(self, answer: Callable[[FloatArray, int], int]) -> None:
        self._answer = answer
        self._asked = 0

    def predict(self, inputs: FloatArray, *, classes: int) -> int:
        self._asked += 1
        return self._answer(inputs, self._asked - 1) % classes


def random_masks(density: float, seed: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> Masks:
    """Return random masks."""
    generator = np.random.default_rng(seed)
    return {name: generator.random(shape) < density for name, shape in shapes.items()}


def normal(seed: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> Weights:
    """Return dense normal weights."""
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def mapped(change: Callable[[FloatArray], FloatArray], weights: Weights) -> Weights:
    """Return every layer changed."""
    return {name: change(layer).astype(np.float32) for name, layer in weights.items()}


def masked(weights: Weights, masks: Masks) -> Weights:
    """Return weights under masks."""
    return {name: np.where(masks[name], layer, 0).astype(np.float32) for name, layer in weights.items()}


def reference_of(masks: Masks, weights: Weights | None = None) -> Reference:
    """Return a reference with random weights, or these."""
    drawn = weights or normal(1, {name: mask.shape for name, mask in masks.items()})
    return Reference(mask=Mask(layers=masks), kept_weights={name: drawn[name][mask] for name, mask in masks.items()})


def pattern(keeps: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Masks:
    """Return masks that rows and columns decide."""
    masks = {}
    for name, shape in SHAPES.items():
        rows, columns = np.indices(shape)[:2]
        masks[name] = np.asarray(keeps(rows, columns), dtype=np.bool_)
    return masks


def group(*members: tuple[str, int, int, int]) -> ChannelGroup:
    """Return a channel group of (tensor, axis, first, channels)."""
    return tuple(
        GroupMember(tensor=tensor, axis=axis, block=1, runs=((first, count),)) for tensor, axis, first, count in members
    )


SPARSE = random_masks(0.1, 0)
FULL = random_masks(1.0, 0)
EMPTY_BUT_ONE = pattern(lambda rows, columns: (rows == 3) & (columns == 3))
TRUE_GROUPS = (group(("a", 0, 0, 24), ("b", 1, 0, 24)), group(("b", 0, 0, 16), ("c", 1, 0, 16)))
EVERY_AXIS = tuple(group((name, axis, 0, SHAPES[name][axis])) for name in SHAPES for axis in (0, 1))
PAIRS = tuple(group(("a", 0, first, 2)) for first in range(0, 24, 2)) + tuple(
    group(("b", 1, first, 2)) for first in range(0, 24, 2)
)
ONE_WEIGHT = {f"layer{index}": (1, 1) for index in range(60)}
TWO_WEIGHTS = {f"layer{index}": (1, 2) for index in range(40)}
LINES = {"wide": (1, 400), "tall": (400, 1)}


def _references() -> Iterator[Claim]:
    """Yield references of every shape, against a dense suspect, aligned with the network's groups."""
    suspect = normal(5)
    own = {name: np.abs(layer) > np.quantile(np.abs(layer), 0.9) for name, layer in suspect.items()}
    dense_rows = pattern(lambda rows, columns: rows < 3)
    references: dict[str, tuple[Masks, Weights | None]] = {
        "a random tenth": (SPARSE, None),
        "everything kept": (FULL, None),
        "one edge a layer": (EMPTY_BUT_ONE, None),
        "a checkerboard": (pattern(lambda rows, columns: (rows + columns) % 2 == 0), None),
        "blocks on the diagonal": (pattern(lambda rows, columns: rows // 4 == columns // 4), None),
        "three full rows": (dense_rows, None),
        "one full column": (pattern(lambda rows, columns: columns == 0), None),
        "degrees that rise": (pattern(lambda rows, columns: columns < rows), None),
        "the suspect's own mask": (own, suspect),
        "the suspect, all of it": (FULL, suspect),
        "the suspect's weakest": ({name: ~mask for name, mask in own.items()}, suspect),
        "the suspect mirrored": ({name: mask[::-1] for name, mask in own.items()}, mapped(lambda w: w[::-1], suspect)),
    }
    for name, (masks, weights) in references.items():
        yield Claim(
            name=f"reference: {name}", reference=reference_of(masks, weights), suspect=suspect, groups=TRUE_GROUPS
        )


def _suspects() -> Iterator[Claim]:
    """Yield suspects of every kind, against a sparse reference."""
    reference = reference_of(SPARSE)
    other = random_masks(0.1, 9)
    dense = normal(6)
    suspects: dict[str, Weights] = {
        "another ticket": masked(dense, other),
        "the reference's mask": masked(dense, SPARSE),
        "all but the reference's mask": masked(dense, {name: ~mask for name, mask in SPARSE.items()}),
        "nothing but zeros": mapped(lambda w: w * 0, dense),
        "one constant": mapped(lambda w: w * 0 + 0.5, dense),
        "two magnitudes": mapped(lambda w: np.where(w > 0.5, 2, 1), dense),
        "all negative": mapped(lambda w: -np.abs(w), dense),
        "near float32's end": mapped(lambda w: w * 1e37, dense),
        "denormal": mapped(lambda w: w * 1e-42, dense),
        "one weight a layer": masked(dense, pattern(lambda rows, columns: (rows == 0) & (columns == 0))),
        "sorted by position": mapped(lambda w: np.arange(w.size, 0.0, -1).reshape(w.shape), dense),
        "sorted the other way": mapped(lambda w: np.arange(1.0, w.size + 1).reshape(w.shape), dense),
        "channels rescaled by 10^6": mapped(
            lambda w: w * (10.0 ** np.linspace(-3, 3, w.shape[0])).reshape(-1, *[1] * (w.ndim - 1)), dense
        ),
        "as many edges as a quarter": masked(dense, random_masks(0.025, 9)),
        "rows all alike": mapped(lambda w: np.broadcast_to(w[:1], w.shape), dense),
        "one layer thirty times the others": {**dense, "b": dense["b"] * 30},
    }
    for name, suspect in suspects.items():
        yield Claim(name=f"suspect: {name}", reference=reference, suspect=suspect, groups=TRUE_GROUPS)


def _groups() -> Iterator[Claim]:
    """Yield channel groups that were chosen to give the alignment as much room as there is, or to steer it."""
    dense = normal(7)
    permuted = {"a": dense["a"][::-1], "b": dense["b"][::-1, ::-1], "c": dense["c"][:, ::-1]}
    steering = reference_of(pattern(lambda rows, columns: rows % 8 == 0))
    for name, groups in (
        ("every axis by itself", EVERY_AXIS),
        ("pairs of channels", PAIRS),
        ("three rows only", (group(("a", 0, 0, 3)),)),
        ("one channel, which cannot move", (group(("a", 0, 5, 1)),)),
        ("rows of one layer with columns of another", (group(("a", 0, 0, 10), ("c", 0, 0, 10)),)),
    ):
        yield Claim(name=f"groups: {name}", reference=steering, suspect=permuted, groups=groups)


def _parameters() -> Iterator[Claim]:
    """Yield parameters at their ends, and marks of other kinds."""
    dense, sparse = normal(8), masked(normal(8), random_masks(0.1, 11))
    reference, full = reference_of(SPARSE), reference_of(FULL)
    for name, kept, suspect, secret_ppm, share_ppm, holes_ppm, density_ppm in (
        ("one secret position in a million", reference, dense, 1, 50_000, 0, 0),
        ("half of all positions secret", reference, dense, 500_000, 50_000, 0, 0),
        ("half secret, sparse suspect", reference, sparse, 500_000, 500_000, 0, 0),
        ("share of a millionth", reference, sparse, 10_000, 1, 0, 0),
        ("share of a half", reference, sparse, 10_000, 500_000, 0, 0),
        ("holes", full, dense, 250_000, 50_000, 100_000, 0),
        ("holes in half of all", full, sparse, 250_000, 50_000, 500_000, 0),
        ("planted during the search", full, dense, 30_000, 50_000, 0, 100_000),
        ("planted during the search, sparse suspect", full, sparse, 30_000, 50_000, 0, 20_000),
        ("planted during the search of half", full, dense, 100_000, 50_000, 0, 500_000),
        ("planted during the search of a millionth", full, dense, 30_000, 50_000, 0, 1),
    ):
        parameters = PlantedParameters(
            secret_ppm=secret_ppm, share_ppm=share_ppm, holes_ppm=holes_ppm, density_ppm=density_ppm
        )
        yield Claim(name=f"parameters: {name}", reference=kept, suspect=suspect, parameters=parameters)


def _shapes() -> Iterator[Claim]:
    """Yield layers of odd shapes."""
    for name, shapes, secret_ppm in (
        ("sixty layers of one weight", ONE_WEIGHT, 500_000),
        ("forty layers of two weights", TWO_WEIGHTS, 500_000),
        ("one row and one column", LINES, 30_000),
    ):
        parameters = PlantedParameters(secret_ppm=secret_ppm, share_ppm=50_000)
        masks = random_masks(0.5, 2, shapes)
        suspect = masked(normal(3, shapes), random_masks(0.5, 4, shapes))
        yield Claim(name=f"shapes: {name}", reference=reference_of(masks), suspect=suspect, parameters=parameters)


def _signs() -> Iterator[Claim]:
    """Yield claims whose edges are planted with signs, against suspects of one sign, and others."""
    dense = normal(10)
    signed = dataclasses.replace(PARAMETERS, turned_ppm=80_000)
    for name, masks, weights, suspect, parameters in (
        ("one sign", SPARSE, None, mapped(lambda w: -np.abs(w), dense), signed),
        ("signs of the reference", SPARSE, dense, mapped(lambda w: np.sign(w), dense), signed),
        ("the reference is the suspect's weakest", random_masks(0.3, 12), dense, dense, signed),
        ("a sign a row", SPARSE, None, mapped(lambda w: np.abs(w) * np.sign(w[:, :1]), dense), signed),
        ("half of all positions secret", SPARSE, None, dense, dataclasses.replace(signed, secret_ppm=500_000)),
        ("no edge to turn a row by", EMPTY_BUT_ONE, None, dense, dataclasses.replace(signed, secret_ppm=200_000)),
        ("a full reference", FULL, None, dense, signed),
    ):
        yield Claim(
            name=f"signs: {name}",
            reference=reference_of(masks, weights),
            suspect=suspect,
            parameters=parameters,
            groups=TRUE_GROUPS,
        )


def _answerers() -> Iterator[Answering]:
    def recipe(count: int, classes: int) -> TriggerRecipe:
        return TriggerRecipe(count=count, classes=classes, input_shape=(1, 4, 4), grid=2, mean_ppm=(), std_ppm=())

    def by_hash(inputs: FloatArray, _number: int) -> int:
        return int.from_bytes(hashlib.sha256(inputs.tobytes()).digest()[:6], "little")

    for name, count, classes, answer in (
        ("one trigger of two classes", 1, 2, lambda inputs, number: 0),
        ("always the first class", 100, 10, lambda inputs, number: 0),
        ("always the last class", 100, 10, lambda inputs, number: 9),
        ("in turn", 100, 10, lambda inputs, number: number),
        ("by how bright the input is", 100, 10, lambda inputs, number: int(inputs.sum())),
        ("by a hash of the input", 100, 10, by_hash),
        ("two classes, in turn", 200, 2, lambda inputs, number: number),
        ("two classes, adaptive", 200, 2, lambda inputs, number: number * number // 3 + int(inputs.sum())),
        ("a thousand triggers", 1000, 10, by_hash),
        ("a thousand classes", 100, 1000, by_hash),
        ("2^31 classes", 100, 2**31, by_hash),
    ):
        yield Answering(name=f"answers: {name}", recipe=recipe(count, classes), answer=answer)


CLAIMS = (*_references(), *_suspects(), *_groups(), *_parameters(), *_shapes(), *_signs())
ANSWERERS = tuple(_answerers())
