from __future__ import annotations

import dataclasses
import functools
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.verification import claims
from tests.verification.claims import marked_weights, planted_mark
from ticketguard.embedding.interface import Binding, Start
from ticketguard.embedding.planted_graph import PlantedGraph, PlantedParameters, secret_edges
from ticketguard.errors import CapacityError
from ticketguard.graph import Alignment
from ticketguard.graph.similarity import balanced
from ticketguard.ticket import Mask, Reference, Ticket, TicketInfo
from ticketguard.verification.outcome import Outcome
from ticketguard.verification.planted_graph import counting
from ticketguard.verification.planted_graph.counting import ReadSuspect, count_hits, edges_to_read
from ticketguard.verification.planted_graph.evidence import evidence_of
from ticketguard.verification.planted_graph.passages import Passage, examine
from ticketguard.verification.readings import READINGS, Layers, edges_that_stand_out, read_layer, strongest
from ticketguard.verification.registry import scheme
from ticketguard.verification.statistics import LayerCount, log10_upper_tail
from ticketguard.verification.verdict import Evidence, level_log10

BINDING = Binding(secret=bytes(range(32)), commitment=bytes(32))
SHAPES = {"conv.weight": (32, 16, 3, 3), "fc.weight": (100, 200)}
THRESHOLD = level_log10(64)
PARAMETERS = PlantedParameters(secret_ppm=10_000, share_ppm=50_000)


def tickets(seed: int = 0) -> tuple[Ticket, dict[str, np.ndarray]]:
    """Return an unmarked ticket and the marked weights of the same, without training."""
    generator = np.random.default_rng(seed)
    state = {name: generator.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    mask = Mask(layers={name: generator.random(shape) < 0.05 for name, shape in SHAPES.items()})
    weights = {name: np.where(mask[name], array, 0).astype(np.float32) for name, array in state.items()}
    ticket = Ticket(mask=mask, weights=weights, rewind_weights=state, info=TicketInfo(method="random"))
    settings = PlantedGraph(secret_share=0.01, signed=False)
    planned = settings.plan(ticket, Start(mask=mask, weights=weights), BINDING, settings.parameters(ticket))
    return ticket, dict(planned.start.weights)


# Of a suspect in which the reference was recognised.
FOUND = Alignment(streams=(), orders=(), overlap=1.0, deviations=50.0, is_found=True, is_clear=True)


def judged(
    passage: Passage,
    binding: Binding = BINDING,
    *,
    looks: int = len(READINGS),
    missing: Sequence[str] = (),
    alignment: Alignment = FOUND,
    beside: Sequence[Alignment] = (),
) -> Evidence:
    no_network: Any = None
    outcome = Outcome(
        best=passage,
        network=no_network,
        alignment=None,
        alignments=[alignment, *beside],
        attainable_log10_p=passage.attainable_log10_p,
        looks=looks,
        threshold_log10_p=THRESHOLD,
    )
    return evidence_of(
        outcome,
        binding,
        PARAMETERS,
        details={
            "missing_layers": list(missing),
            "unreadable_layers": [],
            "values_not_finite": [],
            "unreadable_networks": [],
        },
    )


def drawn_reference(mask: Mask) -> Reference:
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=mask.count(name)).astype(np.float32) for name in mask}
    return Reference(mask=mask, kept_weights=weights)


def passage_of(weights: dict[str, np.ndarray], reference: Mask, binding: Binding = BINDING) -> Passage:
    layers = Layers(read=lambda name: weights[name], names={name: name for name in weights})
    present = Mask(layers={name: reference[name] for name in reference if name in weights})
    return examine(layers, drawn_reference(present), binding, PARAMETERS)


def evidence(weights: dict[str, np.ndarray], reference: Mask, binding: Binding = BINDING) -> Evidence:
    missing = [name for name in reference if name not in weights]
    return judged(passage_of(weights, reference, binding), binding, missing=missing)


@given(
    arrays.arrays(np.float32, st.integers(1, 40), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])),
    st.lists(st.integers(0, 40), max_size=4),
)
def test_the_strongest_are_those_of_a_stable_sort(magnitudes: np.ndarray, keeps: list[int]) -> None:
    order = [position for position in np.argsort(-magnitudes, kind="stable") if magnitudes[position] > 0]
    keeps = [min(keep, len(order)) for keep in keeps]
    found = strongest(magnitudes, keeps)
    assert {keep: positions.tolist() for keep, positions in found.items()} == {
        keep: sorted(order[:keep]) for keep in keeps
    }


@pytest.mark.parametrize("alive", [0.0, 0.02, 0.2, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("found_later", [False, True])
def test_readings_of_sparse_and_of_dense_layers_are_the_largest_weights(alive: float, found_later: bool) -> None:
    generator = np.random.default_rng(3)
    layer = generator.integers(1, 9, size=(40, 30)).astype(np.float32) * (generator.random((40, 30)) < alive)
    keeps, kept = read_layer(layer, edges=60, found_later=found_later)
    for bit, reading in enumerate(READINGS):
        is_scaled = reading.relative and (found_later or np.count_nonzero(layer) > 60)
        strength = np.abs(balanced(layer) if is_scaled else layer).reshape(-1)
        edges = edges_that_stand_out(strength) if reading.relative and found_later else 60
        share = reading.share_of_reference
        wanted = layer.size if share is None else round(share * edges)
        order = [position for position in np.argsort(-strength, kind="stable") if strength[position] > 0][:wanted]
        assert keeps[bit] == len(order)
        assert np.flatnonzero(kept >> bit & 1).tolist() == sorted(order)


def test_a_copy_is_supported() -> None:
    ticket, marked = tickets()
    found = evidence(marked, ticket.mask)
    assert found.status == "supported"
    assert found.log10_p < -19.3
    assert found.observed > 5 * found.expected


def test_the_unmarked_ticket_is_not_supported() -> None:
    ticket, _ = tickets()
    found = evidence(dict(ticket.weights), ticket.mask)
    assert found.status == "not_supported"
    assert found.log10_p > -3


def test_a_wrong_key_is_not_supported() -> None:
    ticket, marked = tickets()
    wrong = Binding(secret=bytes(32), commitment=bytes(32))
    assert evidence(marked, ticket.mask, wrong).status == "not_supported"


def test_dense_weights_on_top_do_not_hide_the_mark() -> None:
    ticket, marked = tickets()
    generator = np.random.default_rng(1)
    dense = {
        name: array + 0.02 * generator.normal(size=array.shape).astype(np.float32) for name, array in marked.items()
    }
    found = evidence(dense, ticket.mask)
    assert found.status == "supported"
    assert "largest weights" in found.details["reading"]


@pytest.mark.parametrize("decades", [4, 12])
def test_dense_noise_and_rescaled_channels_do_not_hide_the_mark(decades: int) -> None:
    """A thief rescales channels for free (the next layer, or batch norm, takes it back) and fills up what is pruned."""
    ticket, marked = tickets()
    generator = np.random.default_rng(2)
    hidden = {}
    for name, array in marked.items():
        noisy = array + np.where(array == 0, 1e-3 * generator.normal(size=array.shape), 0)
        rows = 10.0 ** generator.uniform(-decades, decades, size=(array.shape[0], *[1] * (array.ndim - 1)))
        columns = 10.0 ** generator.uniform(-decades, decades, size=(1, array.shape[1], *[1] * (array.ndim - 2)))
        hidden[name] = (noisy * rows * columns).astype(np.float32)
    found = evidence(hidden, ticket.mask)
    assert found.status == "supported"
    assert "for their channels" in found.details["reading"]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_a_constant_suspect_is_never_supported(value: float) -> None:
    ticket, marked = tickets()
    constant = {name: np.full(array.shape, value, dtype=np.float32) for name, array in marked.items()}
    assert evidence(constant, ticket.mask).status != "supported"


def test_an_empty_suspect_could_not_be_checked() -> None:
    ticket, marked = tickets()
    found = evidence({name: np.zeros_like(array) for name, array in marked.items()}, ticket.mask)
    assert found.status == "inconclusive"
    # No correction lifts a p above 1.
    assert found.log10_p == found.details["attainable_log10_p"] == found.details["decoy_log10_p"] == 0.0


def test_too_little_of_a_suspect_is_inconclusive_and_names_what_is_missing() -> None:
    generator = np.random.default_rng(0)
    shapes = {"big.weight": (300, 100), "tiny.weight": (10, 30)}
    mask = Mask(layers={name: generator.random(shape) < 0.05 for name, shape in shapes.items()})
    tiny = {"tiny.weight": generator.normal(size=(10, 30)).astype(np.float32)}
    found = evidence(tiny, mask)
    assert found.status == "inconclusive"
    assert found.details["missing_layers"] == ["big.weight"]


def test_a_suspect_with_a_few_edges_left_is_inconclusive() -> None:
    ticket, _ = tickets()
    few = {
        name: np.where(np.arange(array.size).reshape(array.shape) < 5, 1.0, 0.0)
        for name, array in ticket.weights.items()
    }
    assert (
        evidence({name: array.astype(np.float32) for name, array in few.items()}, ticket.mask).status == "inconclusive"
    )


def test_every_look_is_paid_for() -> None:
    ticket, marked = tickets()
    passage = passage_of(marked, ticket.mask)
    once, eight = (judged(passage, looks=looks) for looks in (1, 8))
    assert eight.log10_p - once.log10_p == pytest.approx(np.log10(8))


@pytest.mark.usefixtures("all_decoys")
def test_decoy_keys_find_nothing() -> None:
    ticket, marked = tickets()
    found = evidence(marked, ticket.mask)
    assert found.details["decoy_keys"] == 20
    assert found.details["decoy_log10_p"] > -4


def test_wrong_keys_reach_small_p_values_as_rarely_as_they_should() -> None:
    ticket, marked = tickets()
    results = [
        evidence(marked, ticket.mask, Binding(secret=index.to_bytes(32, "little"), commitment=bytes(32))).log10_p
        for index in range(1, 301)
    ]
    # All readings are paid for with a factor, so that even the corrected p is uniform or larger.
    assert np.mean(np.array(results) <= -1) <= 0.1 + 4 * np.sqrt(0.09 / 300)
    assert min(results) > -6


def layers_of(seed: int, *, scale: float = 1.0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "a": (scale * generator.normal(size=(20, 30))).astype(np.float32),
        "b": np.where(generator.random((40, 5, 3, 3)) < 0.3, generator.normal(size=(40, 5, 3, 3)), 0).astype(
            np.float32
        ),
        "c": np.zeros((7, 3), np.float32),
    }


@given(st.integers(0, 1000), st.integers(1, 999_999), st.sampled_from([2e-45, 1e-20, 1.0, 1e20]))
def test_edges_of_a_ticket_found_later_are_the_largest_weights_overall(
    seed: int, density_ppm: int, scale: float
) -> None:
    suspect = layers_of(seed, scale=scale)
    reference = Mask(layers={name: np.ones(layer.shape, bool) for name, layer in suspect.items()})
    parameters = PlantedParameters(secret_ppm=10_000, share_ppm=50_000, density_ppm=density_ppm)
    everything = np.concatenate([np.abs(layer).reshape(-1) for layer in suspect.values()])
    keep = max(1, everything.size * density_ppm // 1_000_000)
    threshold = np.sort(everything)[::-1][keep - 1]
    expected = {name: int(((np.abs(layer) >= threshold) & (layer != 0)).sum()) for name, layer in suspect.items()}
    assert edges_to_read(suspect, reference, parameters) == expected


def test_edges_stand_out_at_any_scale() -> None:
    generator = np.random.default_rng(0)
    edges = np.abs(generator.normal(size=100)) + 0.5
    noise = np.abs(generator.normal(size=900)) * 0.01
    for scale in (1e-8, 1.0, 1e8):
        assert edges_that_stand_out((scale * np.concatenate([edges, noise])).astype(np.float32)) == 100
    assert edges_that_stand_out(np.zeros(5, np.float32)) == 0
    assert edges_that_stand_out(np.array([0, 3], np.float32)) == 1


def tails_by_hits() -> Callable[[Sequence[LayerCount]], float]:
    """Return what computes a tail, which depends on all layers' hits together, once for each number of them."""

    @functools.cache
    def tail(hits: int, *layers: LayerCount) -> float:
        return log10_upper_tail(layers, hits)

    def of_layers(layers: Sequence[LayerCount]) -> float:
        return tail(sum(layer.hits for layer in layers), *(dataclasses.replace(layer, hits=0) for layer in layers))

    return of_layers


@pytest.mark.parametrize(
    "parameters",
    [
        PlantedParameters(secret_ppm=20_000, share_ppm=50_000, density_ppm=50_000),
        PlantedParameters(secret_ppm=250_000, share_ppm=50_000, holes_ppm=100_000),
    ],
)
def test_p_values_of_other_kinds_of_claims_are_as_rare_as_they_say(
    parameters: PlantedParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the randomness of keys, on suspects that derive from no marked ticket."""
    # Of full layers every key has as many positions: few tails are different.
    monkeypatch.setattr(counting, "log10_upper_tail", tails_by_hits())
    suspect = layers_of(3)
    reference = Mask(layers={name: np.ones(suspect[name].shape, bool) for name in ("a", "b")})
    bindings = [Binding(secret=index.to_bytes(32, "little"), commitment=bytes(32)) for index in range(600)]
    read = ReadSuspect.of(suspect, drawn_reference(reference), parameters)
    counts = [count_hits(read, binding, parameters) for binding in bindings]
    for of_keys in zip(*counts, strict=True):
        p_values = np.array([10**counted.log10_p for counted in of_keys])
        for level in (0.5, 0.1, 0.01):
            # Four standard deviations above the share that an exact test has at most.
            assert (p_values <= level).mean() <= level + 4 * np.sqrt(level * (1 - level) / len(bindings))


def test_memory_is_for_one_layer_and_one_key_whatever_share_of_the_positions_is_secret() -> None:
    shape = (1000, 1000)
    suspect = {"a": np.ones(shape, np.float32)}
    reference = Mask(layers={"a": np.ones(shape, bool)})
    parameters = PlantedParameters(secret_ppm=500_000, share_ppm=50_000)
    bindings = [Binding(secret=index.to_bytes(32, "little"), commitment=bytes(32)) for index in range(21)]
    tracemalloc.start()
    read = ReadSuspect.of(suspect, drawn_reference(reference), parameters)
    for binding in bindings:
        count_hits(read, binding, parameters)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 10**6  # 21 keys' positions alone are 84 bytes a position


@pytest.mark.parametrize("is_full", [False, True])
def test_every_reading_is_counted_where_the_reference_is_empty_or_full(is_full: bool) -> None:
    suspect = layers_of(3)
    reference = Mask(layers={name: np.abs(layer) > (-1 if is_full else 1) for name, layer in suspect.items()})
    edges = edges_to_read(suspect, reference, PARAMETERS)
    counts = count_hits(ReadSuspect.of(suspect, drawn_reference(reference), PARAMETERS), BINDING, PARAMETERS)
    for index, name in enumerate(reference):
        keeps, kept = read_layer(suspect[name], edges=edges[name])
        secret = np.zeros(suspect[name].size, bool)
        secret[secret_edges(BINDING, {name: reference[name].shape}, secret_ppm=PARAMETERS.secret_ppm)[name]] = True
        counted = np.ones(suspect[name].size, bool) if is_full else ~reference[name].reshape(-1)
        for bit, keep in enumerate(keeps):
            mask = (kept >> bit & 1).astype(bool)
            assert counts[bit].kept[index] == mask.sum() == keep
            assert counts[bit].layers[index] == LayerCount(
                size=counted.sum(),
                kept=(mask & counted).sum(),
                secret=(secret & counted).sum(),
                hits=(mask & secret & counted).sum(),
            )


def test_edges_of_the_reference_itself_say_nothing() -> None:
    """Not even where all of them are secret: they are where the suspect comes from, not whose it is."""
    generator = np.random.default_rng(0)
    secret = secret_edges(BINDING, SHAPES, secret_ppm=PARAMETERS.secret_ppm)
    layers = {}
    for name, shape in SHAPES.items():
        layers[name] = np.isin(np.arange(np.prod(shape)), secret[name]).reshape(shape)
    weights = {name: (layer * generator.normal(size=layer.shape)).astype(np.float32) for name, layer in layers.items()}
    found = evidence(weights, Mask(layers=layers))
    assert (found.observed, found.log10_p) == (0, 0.0)


def test_all_readings_of_a_passage_are_told() -> None:
    ticket, marked = tickets()
    passage = passage_of(marked, ticket.mask)
    assert len(passage.readings_log10_p) == len(READINGS)
    assert min(passage.readings_log10_p) == passage.log10_p
    assert passage.readings_log10_p[READINGS.index(passage.counted.reading)] == passage.log10_p


@pytest.mark.parametrize(
    ("alignment", "word"),
    [
        (FOUND, None),
        (dataclasses.replace(FOUND, is_found=False, is_clear=False), "could not be aligned"),
        (dataclasses.replace(FOUND, is_clear=False), "only part of the reference is recognised"),
        (dataclasses.replace(FOUND, is_found=False, is_clear=False, complete=False), "was cut short"),
        (dataclasses.replace(FOUND, complete=False), None),
    ],
)
def test_what_could_not_be_aligned_does_not_acquit(alignment: Alignment, word: str | None) -> None:
    ticket, _ = tickets()
    found = judged(passage_of(dict(ticket.weights), ticket.mask), alignment=alignment)
    assert found.status == ("inconclusive" if word else "not_supported")
    assert (word or "") in " ".join(found.details.get("why", [""]))


@pytest.mark.parametrize(
    ("other", "word"),
    [
        (FOUND, None),
        (dataclasses.replace(FOUND, is_found=False, is_clear=False), "one of the suspect's networks could not be"),
        (dataclasses.replace(FOUND, is_clear=False), "only part of the reference is recognised"),
    ],
)
def test_a_relative_beside_a_network_that_could_not_be_aligned_does_not_acquit_it(
    other: Alignment, word: str | None
) -> None:
    ticket, _ = tickets()
    found = judged(passage_of(dict(ticket.weights), ticket.mask), beside=[other])
    assert found.status == ("inconclusive" if word else "not_supported")
    assert (word or "") in " ".join(found.details.get("why", [""]))


def test_missing_layers_do_not_acquit() -> None:
    ticket, _ = tickets()
    part = {"conv.weight": ticket.weights["conv.weight"]}
    found = evidence(part, ticket.mask)
    assert found.details["attainable_log10_p"] < THRESHOLD
    assert found.status == "inconclusive"
    assert "layers or networks are missing" in found.details["why"][0]


def test_a_mark_without_room_is_refused_with_the_edges_that_it_needs() -> None:
    """Square of the level: what thieves take is allowed for."""
    made = planted_mark(level_bits=256)
    reference, weights = claims.TICKET.mask, marked_weights(made)
    binding = Binding(secret=claims.SECRET, commitment=made.commitment)
    marked = Mask(layers={name: weights[name] != 0 for name in reference})
    # Of every layer the first fifth: a fifth of the mark and of the rest.
    fifth = {name: np.arange(layer.size).reshape(layer.shape) < layer.size // 5 for name, layer in weights.items()}
    marked = Mask(layers={name: marked[name] & fifth[name] for name in reference})
    free = 0
    for name in reference:
        secret = secret_edges(binding, {name: reference[name].shape}, secret_ppm=claims.PLANTED["secret_ppm"])[name]
        free += int((marked[name] & ~reference[name]).reshape(-1)[secret].sum())
    with pytest.raises(CapacityError, match=f"has room for {free} edges of the mark, which needs [0-9]+:") as caught:
        scheme("planted-graph").require_room(
            made, binding, marked=marked, reference=claims.TICKET.reference(), decided={}
        )
    # About as many bits an edge as there are; a mark of so many more edges has room.
    assert 1.1 * free < caught.value.needed_edges < 3 * free
    # Of a quarter of the bits, the same mark has room.
    made = planted_mark(level_bits=32)
    marked = Mask(layers={name: layer != 0 for name, layer in marked_weights(made).items()})
    binding = Binding(secret=claims.SECRET, commitment=made.commitment)
    scheme("planted-graph").require_room(made, binding, marked=marked, reference=claims.TICKET.reference(), decided={})
