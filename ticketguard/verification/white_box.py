"""White-box verification: is the owner's planted graph in the suspect's weights?

1. Draw the secret edges S from (secret, C); C binds the unmarked reference, so S is fixed by it.
2. Read the suspect's mask in a few ways: as stored, and its largest weights at a few densities.
3. Count the mask's edges inside S; the tail of the hypergeometric sum is the p-value.
4. If that is not enough, align the suspect's channels to the reference, which never sees S, and read again.
5. Multiply by the number of readings (Bonferroni); show decoy keys through the same steps.

Nothing here runs a model or needs torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ticketguard.embedding import planted_graph
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.graph.alignment import Alignment
from ticketguard.graph.similarity import balanced
from ticketguard.ticket import BoolArray, FloatArray, Mask
from ticketguard.verification.statistics import LayerCount, log10_upper_tail
from ticketguard.verification.verdict import Evidence, decide

DECOYS = 20
DECOY_DOMAIN = b"ticketguard/decoy/v1\0"
ASSUMPTIONS = (
    "the owner's key was drawn at random and the claim's commitment binds it to the reference",
    "the suspect was not made with knowledge of this key, unless it derives from the marked ticket",
    "the weights are the accused model's own: their origin is for the auditor to establish",
    "a claimant who tries 2^k keys buys a factor of 2^k, which the level allows for",
)


class Layers(Mapping[str, FloatArray]):
    """A suspect's weights under the reference's layer names, read one layer at a time.

    Args:
        read: Reads a tensor by the suspect's name.
        names: The suspect's name of each reference layer it has.
        alignment: Puts the suspect's channels into the reference's order.
    """

    def __init__(
        self, *, read: Callable[[str], FloatArray], names: Mapping[str, str], alignment: Alignment | None = None
    ) -> None:
        self._read = read
        self._names = names
        self.alignment = alignment

    def __getitem__(self, name: str) -> FloatArray:
        layer = self._read(self._names[name])
        return layer if self.alignment is None else self.alignment.apply(name, layer)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to read a mask from weights.

    Attributes:
        name: As evidence names it.
        share_of_reference: Keep the largest weights, this multiple of the reference's edges in each layer; None
            reads what is not zero.
        relative: Weights are compared relative to their rows and columns, which rescaling channels, free for a thief
            to do, leaves alone.
    """

    name: str
    share_of_reference: float | None
    relative: bool = False


READINGS = (
    Reading(name="weights that are not zero", share_of_reference=None),
    Reading(name="largest weights, as many as the reference has edges", share_of_reference=1.0),
    Reading(name="largest weights, half the reference's edges", share_of_reference=0.5),
    Reading(name="largest weights, a quarter of the reference's edges", share_of_reference=0.25),
    Reading(
        name="weights largest for their channels, as many as the reference has edges",
        share_of_reference=1.0,
        relative=True,
    ),
)


def kept_among(magnitudes: FloatArray, keep: int) -> BoolArray:
    """Tell which positions are among the *keep* largest magnitudes; ties go to the earlier position.

    Args:
        magnitudes: Flat absolute weights.
        keep: How many positions to keep; at most those that are not zero are.
    """
    alive = magnitudes[magnitudes > 0]
    if keep >= len(alive):
        return np.asarray(magnitudes > 0)
    if keep == 0:
        return np.zeros(len(magnitudes), dtype=np.bool_)
    threshold = np.partition(alive, len(alive) - keep)[len(alive) - keep]
    kept = np.asarray(magnitudes > threshold)
    ties = np.flatnonzero(magnitudes == threshold)
    kept[ties[: keep - int(np.count_nonzero(kept))]] = True
    return kept


def read_layer(layer: FloatArray, *, edges: int, found_later: bool = False) -> tuple[list[int], npt.NDArray[np.uint8]]:
    """Take every reading of one layer.

    Args:
        layer: The suspect's weights.
        edges: Edges of the reference in this layer.
        found_later: Whether the reference keeps everything, because the ticket was found after the secret edges were
            drawn: relative weights then say by themselves how many of them are edges.

    Returns:
        Per reading how many positions it keeps; and per flat position a byte whose bit *r* says that reading *r* keeps
        it: a key that looks positions up pays for all readings at once.
    """
    magnitudes = np.abs(layer).reshape(-1)
    alive = int(np.count_nonzero(magnitudes))
    # Where no more weights are alive than are asked for, their sizes do not matter.
    relative = np.abs(balanced(layer)).reshape(-1) if found_later or alive > edges else magnitudes
    relative_edges = edges_that_stand_out(relative) if found_later else edges
    keeps: list[int] = []
    kept = np.zeros(layer.size, dtype=np.uint8)
    for bit, reading in enumerate(READINGS):
        share = reading.share_of_reference
        wanted = relative_edges if reading.relative else edges
        keeps.append(alive if share is None else min(alive, round(share * wanted)))
        kept |= kept_among(relative if reading.relative else magnitudes, keeps[-1]).view(np.uint8) << np.uint8(bit)
    return keeps, kept


def edges_that_stand_out(magnitudes: FloatArray) -> int:
    """Return how many magnitudes stand out from the rest, whatever scale they have: Otsu's split of their square roots.

    A thief can rescale whole layers for free and fill pruned positions with noise; this count does not see it.
    (Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9(1), 1979, equation 14.)
    """
    roots = np.sqrt(np.sort(magnitudes[magnitudes > 0].astype(np.float64))[::-1])
    if len(roots) < 2:
        return len(roots)
    sums, first = np.cumsum(roots), np.arange(1, len(roots))
    rest = len(roots) - first
    apart = (sums[:-1] / first - (sums[-1] - sums[:-1]) / rest) ** 2 * first * rest
    return int(first[apart.argmax()])


def count_hits(
    suspect: Mapping[str, FloatArray],
    reference: Mask,
    bindings: Sequence[Binding],
    *,
    parameters: PlantedParameters,
    edges: Mapping[str, int],
) -> list[list[list[LayerCount]]]:
    """Count a suspect's edges inside the secret edges of several keys, one layer and one key in memory at a time.

    Args:
        suspect: Weights in the reference's shapes; each layer is looked up once.
        reference: The layers to count in (those the suspect has), with the reference's edges.
        bindings: The keys: the owner's, and decoys.
        parameters: Say how large the secret sets are.
        edges: Per layer how many edges a copy has, as `edges_to_read` tells.

    Returns:
        One list a reading, one list a key in it, one count a layer in that.
    """
    counts: list[list[list[LayerCount]]] = [[[] for _ in bindings] for _ in READINGS]
    for name in reference:
        size, shape = reference[name].size, {name: reference[name].shape}
        keeps, kept = read_layer(suspect[name], edges=edges[name], found_later=bool(parameters.density_ppm))
        for key, binding in enumerate(bindings):
            secret = planted_graph.secret_edges(binding, shape, secret_ppm=parameters.secret_ppm)[name]
            found = np.bincount(kept[secret], minlength=2 ** len(READINGS)).reshape([2] * len(READINGS))
            for bit, keep in enumerate(keeps):
                # The last axis is the lowest bit.
                hits = int(found.take(1, axis=len(READINGS) - 1 - bit).sum())
                counts[bit][key].append(LayerCount(size=size, kept=keep, secret=len(secret), hits=hits))
    return counts


def edges_to_read(suspect: Mapping[str, FloatArray], reference: Mask, parameters: PlantedParameters) -> dict[str, int]:
    """Return how many of each layer's weights to take for its edges.

    A ticket that was found after the secret edges were drawn is not the reference, which keeps everything: there it is
    as many as the layer has among the suspect's largest weights overall. Neither count looks at a key.

    Args:
        suspect: Weights in the reference's shapes; each layer is looked up once, and held one at a time, or three times
            where the ticket was found later.
        reference: The layers to count in.
        parameters: Of the claim.
    """
    if not parameters.density_ppm:
        return {name: parameters.edges_of_a_copy(reference[name]) for name in reference}
    keep = max(1, reference.size * parameters.density_ppm // planted_graph.PARTS)
    threshold = _largest_overall(suspect, list(reference), keep)
    return {
        name: int(np.count_nonzero((bits >= threshold) & (bits > 0)))
        for name in reference
        for bits in (_ordered_bits(suspect[name]),)
    }


def _ordered_bits(layer: FloatArray) -> npt.NDArray[np.uint32]:
    """Return magnitudes as the integers that their bits are: those of floats that are not negative sort alike."""
    return np.abs(np.ascontiguousarray(layer, dtype=np.float32)).reshape(-1).view(np.uint32)


def _largest_overall(suspect: Mapping[str, FloatArray], names: Sequence[str], keep: int) -> int:
    """Return the bits of the *keep*-th largest magnitude of all layers, found half a word at a time."""
    known = 0
    for shift in (16, 0):
        counts = np.zeros(2**16, dtype=np.int64)
        for name in names:
            bits = _ordered_bits(suspect[name])
            here = bits if shift else bits[bits >> 16 == known >> 16]
            counts += np.bincount((here >> shift) & 0xFFFF, minlength=2**16)
        at_least = np.cumsum(counts[::-1])[::-1]
        half = int(np.flatnonzero(at_least >= keep)[-1])
        keep -= int(at_least[half + 1]) if half + 1 < len(at_least) else 0
        known |= half << shift
    return known


def decoy_bindings(commitment: bytes, count: int = DECOYS) -> list[Binding]:
    """Return keys that are nobody's, derived from the commitment alone, to run beside the owner's."""
    return [
        Binding(
            secret=hashlib.sha256(DECOY_DOMAIN + commitment + index.to_bytes(4, "little")).digest(),
            commitment=commitment,
        )
        for index in range(count)
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passage:
    """One pass over the suspect's layers: aligned or as stored.

    Attributes:
        alignment: How channels were aligned to the reference first; None if they were taken as stored.
        reading: The reading with the smallest p.
        counts: The owner's counts in that reading, one a layer.
        log10_p: Of that reading, before correction.
        readings_log10_p: Of every reading, in the order of `READINGS`, before correction.
        attainable_log10_p: Of the most powerful reading, if as many edges were planted as in an untouched copy.
        decoy_log10_p: Smallest p of any decoy key in any reading, before correction.
    """

    alignment: Alignment | None
    reading: Reading
    counts: tuple[LayerCount, ...]
    log10_p: float
    readings_log10_p: tuple[float, ...]
    attainable_log10_p: float
    decoy_log10_p: float


def examine(suspect: Layers, reference: Mask, binding: Binding, parameters: PlantedParameters) -> Passage:
    """Read the suspect in every way, and keep the reading with the strongest result."""
    bindings = [binding, *decoy_bindings(binding.commitment)]
    edges = edges_to_read(suspect, reference, parameters)
    counts = count_hits(suspect, reference, bindings, parameters=parameters, edges=edges)
    results: list[tuple[float, Reading, tuple[LayerCount, ...]]] = []
    attainable_log10_p = decoy_log10_p = 0.0
    for reading, (own, *decoys) in zip(READINGS, counts, strict=True):
        results.append((log10_upper_tail(own), reading, tuple(own)))
        attainable_log10_p = min(
            attainable_log10_p, log10_upper_tail(own, _hits_of_a_copy(own, parameters, list(edges.values())))
        )
        # All keys' secret sets have one size, so more hits is less probable: only the best decoy needs a p-value.
        most = max(sum(layer.hits for layer in decoy) for decoy in decoys)
        decoy_log10_p = min(decoy_log10_p, log10_upper_tail(own, most))
    log10_p, reading, layers = min(results, key=lambda result: result[0])
    return Passage(
        alignment=suspect.alignment,
        reading=reading,
        counts=layers,
        log10_p=log10_p,
        readings_log10_p=tuple(result for result, _, _ in results),
        attainable_log10_p=attainable_log10_p,
        decoy_log10_p=decoy_log10_p,
    )


def _hits_of_a_copy(layers: Sequence[LayerCount], parameters: PlantedParameters, edges: Sequence[int]) -> int:
    """Return the hits to expect where the planted edges are still there, as likely as the others to be among the kept.

    Args:
        layers: What one reading keeps.
        parameters: Of the claim.
        edges: Per layer how many edges a copy has.
    """
    share = parameters.share_ppm / planted_graph.PARTS
    hits = 0
    for layer, count in zip(layers, edges, strict=True):
        secret_share = layer.secret / max(1, layer.size)
        # No more can be planted than there are secret positions, in a layer of holes too.
        planted = min(layer.secret, count * (share + secret_share))
        if layer.kept <= count:
            found = planted * layer.kept / max(1, count)
        else:
            found = planted + (layer.secret - planted) * (layer.kept - count) / max(1, layer.size - count)
        hits += min(layer.highest, round(found))
    return hits


def to_evidence(
    passages: Sequence[Passage],
    *,
    threshold_log10_p: float,
    looks: int,
    missing: Sequence[str],
    paired_by_order: Sequence[str] = (),
) -> Evidence:
    """Correct the strongest passage for every look that could have been taken, and say what it means.

    Args:
        passages: The passes that were made.
        threshold_log10_p: What a supported claim needs.
        looks: Readings in all passes that the rule allows, made or not.
        missing: Reference layers that the suspect lacks.
        paired_by_order: Reference layers whose names the suspect does not have, paired by shape and order.
    """
    best = min(passages, key=lambda passage: passage.log10_p)
    correction = math.log10(looks)
    log10_p = min(0.0, best.log10_p + correction)
    attainable = min(0.0, min(passage.attainable_log10_p for passage in passages) + correction)
    status = decide(log10_p, threshold_log10_p=threshold_log10_p, attainable_log10_p=attainable)
    if status == "not_supported" and any(not passage.alignment.complete for passage in passages if passage.alignment):
        status = "inconclusive"  # A copy's channels might be out of place, and were not looked for to the end.
    return Evidence(
        mark=planted_graph.SCHEME,
        status=status,
        statistic="edges of the suspect's mask inside the owner's secret edge set",
        observed=sum(layer.hits for layer in best.counts),
        expected=sum(layer.expected for layer in best.counts),
        log10_p=log10_p,
        threshold_log10_p=threshold_log10_p,
        details={
            "reading": best.reading.name,
            "aligned": best.alignment is not None,
            "channels_out_of_place": 0 if best.alignment is None else best.alignment.moved,
            "looks": looks,
            "log10_p_uncorrected": best.log10_p,
            "attainable_log10_p": attainable,
            "decoy_keys": DECOYS,
            "decoy_log10_p": min(0.0, min(passage.decoy_log10_p for passage in passages) + correction),
            "edges": sum(layer.kept for layer in best.counts),
            "positions": sum(layer.size for layer in best.counts),
            "layers": len(best.counts),
            "missing_layers": list(missing),
            "layers_paired_by_order": list(paired_by_order),
        },
        assumptions=ASSUMPTIONS,
    )
