"""Files with several networks, damaged ones, and networks under names that nobody knows, and what a verdict says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import pytest

import ticketguard as tg
from tests.verification.claims import GROUPS, SHAPES, evidence, marked_weights, planted_mark, signed, unmarked_ticket
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.errors import UnverifiableError
from ticketguard.graph import group_channels, groups_from_json, permute
from ticketguard.graph.symmetries import Renaming
from ticketguard.verification.networks import find_networks
from ticketguard.verification.planted_graph.counting import ReadSuspect, count_hits
from ticketguard.verification.readings import Layers

Weights = Mapping[str, np.ndarray]

MADE = planted_mark()
MARKED = marked_weights(MADE)
CREDENTIAL = signed(MADE)
INNOCENT = dict(unmarked_ticket(seed=5).weights)
ALONE = evidence(MARKED, CREDENTIAL).log10_p
TWO_LOOKS = pytest.approx(ALONE + np.log10(2))


def under(**networks: Weights) -> dict[str, np.ndarray]:
    return {f"{front}.{name}": layer for front, network in networks.items() for name, layer in network.items()}


@pytest.mark.parametrize("marked_last", [False, True])
@pytest.mark.parametrize(
    ("stolen", "other"),
    [
        pair
        for one, two in (("student", "teacher"), ("net", "ema"), ("online", "target"), ("encoder_q", "encoder_k"))
        for pair in ((one, two), (two, one))
    ],
)
def test_the_stolen_one_of_two_networks_is_found_whatever_it_is_called(
    stolen: str, other: str, marked_last: bool
) -> None:
    networks = [(stolen, MARKED), (other, INNOCENT)]
    found = evidence(under(**dict(networks[::-1] if marked_last else networks)), CREDENTIAL)
    assert (found.status, found.details["network"], found.details["networks"]) == ("supported", f"{stolen}.", 2)
    assert found.log10_p == TWO_LOOKS


@pytest.mark.parametrize("front", ["ema.", "target_", "state/ema/", "inner.ema."])
@pytest.mark.parametrize("inside", [False, True])
def test_a_network_beside_one_without_a_front_is_found(front: str, inside: bool) -> None:
    outer, inner = (INNOCENT, MARKED) if inside else (MARKED, INNOCENT)
    found = evidence({**outer, **{front + name: layer for name, layer in inner.items()}}, CREDENTIAL)
    assert (found.status, found.log10_p) == ("supported", TWO_LOOKS)
    assert found.details["network"] == (front if inside else "")


def nan(layer: np.ndarray) -> np.ndarray:
    return np.full_like(layer, np.nan)


DAMAGES: dict[str, Callable[[Weights], dict[str, np.ndarray]]] = {
    "NaN": lambda net: {**net, "fc2.weight": nan(net["fc2.weight"])},
    "missing": lambda net: {"fc1.weight": net["fc1.weight"]},
    "other channels": lambda net: {**net, "fc2.weight": net["fc2.weight"][:20]},
    "another kernel": lambda net: {**net, "fc2.weight": np.repeat(net["fc2.weight"][..., None], 3, axis=2)},
    "whole numbers": lambda net: {**net, "fc2.weight": np.ones(SHAPES["fc2.weight"], np.int8)},
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("stolen", "other"), [("a", "b"), ("b", "a")])
def test_a_damaged_network_hides_neither_itself_nor_another(damage: str, stolen: str, other: str) -> None:
    harm = DAMAGES[damage]
    beside_damaged = evidence(under(**{stolen: MARKED, other: harm(INNOCENT)}), CREDENTIAL)
    assert (beside_damaged.status, beside_damaged.log10_p) == ("supported", TWO_LOOKS)
    itself = evidence(under(**{stolen: harm(MARKED), other: INNOCENT}), CREDENTIAL)
    assert (itself.status, itself.details["network"]) == ("supported", f"{stolen}.")
    alone = evidence({"fc1.weight": MARKED["fc1.weight"]}, CREDENTIAL)
    assert itself.log10_p == pytest.approx(alone.log10_p + np.log10(2))


@pytest.mark.parametrize(("stolen", "other"), [("a", "b"), ("b", "a")])
def test_a_network_that_cannot_be_read_is_no_acquittal(stolen: str, other: str) -> None:
    unreadable = {name: nan(layer) for name, layer in MARKED.items()}
    found = evidence(under(**{stolen: unreadable, other: INNOCENT}), CREDENTIAL)
    assert (found.status, found.details["unreadable_networks"]) == ("inconclusive", [f"{stolen}."])
    assert evidence(under(**{stolen: unreadable, other: MARKED}), CREDENTIAL).status == "supported"


@pytest.mark.parametrize(("known", "other"), [("a", "b"), ("b", "a")])
def test_a_network_that_was_recognised_does_not_speak_for_one_that_was_not(known: str, other: str) -> None:
    """The unmarked ticket beside a stranger, which might be a copy that was rebuilt."""
    credential = signed(planted_mark(groups=GROUPS), groups=GROUPS)
    unmarked = dict(unmarked_ticket().weights)
    assert evidence(unmarked, credential).status == "not_supported"
    found = evidence(under(**{known: unmarked, other: INNOCENT}), credential)
    assert found.status == "inconclusive"
    assert found.details["why"][0].startswith("one of the suspect's networks could not be aligned")


def test_a_network_under_unknown_names_is_found_beside_one_under_known_names() -> None:
    renamed = {f"blob.{index}": layer for index, layer in enumerate(MARKED.values())}
    found = evidence({**INNOCENT, **renamed}, CREDENTIAL)
    assert (found.status, found.log10_p, found.details["network"]) == ("supported", TWO_LOOKS, "blob.")
    # A few more tensors are not a network.
    more = {"head": INNOCENT["fc1.weight"], "scale": np.ones((4, 4), np.float32)}
    assert evidence({**MARKED, **more}, CREDENTIAL).details["networks"] == 1


def test_what_the_reference_does_not_need_may_be_damaged() -> None:
    extra = {"head.weight": np.full((7, 40), np.nan, np.float32), "fc9.weight": np.full((40, 200), np.inf, np.float32)}
    found = evidence({**MARKED, **extra}, CREDENTIAL)
    assert (found.log10_p, found.details["unreadable_layers"]) == (ALONE, [])


# Networks whose layers are alike: six of one shape, and four of another.
ALIKE = {
    **{f"conv{index}.weight": (16, 16, 3, 3) for index in range(6)},
    **{f"fc{index}.weight": (48, 48) for index in range(4)},
}
TICKET = unmarked_ticket(ALIKE, density=0.2)
REFERENCE = TICKET.reference()
ALIKE_MADE = planted_mark(reference=REFERENCE)
ALIKE_MARKED = marked_weights(ALIKE_MADE, TICKET)
ALIKE_CREDENTIAL = signed(ALIKE_MADE, reference=REFERENCE)


def shuffled(weights: Weights, seed: int = 0, front: str = "") -> dict[str, np.ndarray]:
    names = list(weights)
    order = np.random.default_rng(seed).permutation(len(names))
    return {f"{front}t{number:02}": weights[names[index]] for number, index in enumerate(order)}


def average(weights: Weights) -> dict[str, np.ndarray]:
    """A moving average of a network: nearly the network."""
    generator = np.random.default_rng(3)
    return {
        name: (layer * (1 + 0.05 * generator.normal(size=layer.shape))).astype(np.float32)
        for name, layer in weights.items()
    }


def pruned(weights: Weights, share: float) -> dict[str, np.ndarray]:
    return {
        name: np.where(np.abs(layer) >= np.quantile(np.abs(layer[layer != 0]), share), layer, 0)
        for name, layer in weights.items()
    }


def transposed(weights: Weights) -> dict[str, np.ndarray]:
    """Every other layer the other way round: what nobody but a thief does."""
    return {
        name: np.ascontiguousarray(layer.swapaxes(0, 1)) if index % 2 else layer
        for index, (name, layer) in enumerate(weights.items())
    }


@pytest.mark.parametrize("change", [dict, lambda net: pruned(net, 0.5), transposed, average])
def test_shuffled_names_are_seen_through(change: Callable[[Weights], Weights]) -> None:
    plain = evidence(ALIKE_MARKED, ALIKE_CREDENTIAL)
    changed = change(ALIKE_MARKED)
    as_named = evidence(changed, ALIKE_CREDENTIAL) if change is not transposed else plain
    found = evidence(shuffled(changed), ALIKE_CREDENTIAL)
    assert (found.status, found.log10_p) == ("supported", as_named.log10_p)
    assert set(found.details["layers_paired_by_content"]) | set(found.details["layers_paired_by_order"]) == set(ALIKE)
    assert len(found.details["layers_paired_by_content"]) > 4
    assert not set(found.details["layers_paired_by_content"]) & set(found.details["layers_paired_by_order"])


def test_shuffled_names_are_seen_through_beside_an_average() -> None:
    both = {**ALIKE_MARKED, **{f"ema {name}": layer for name, layer in average(ALIKE_MARKED).items()}}
    found = evidence(shuffled(both), ALIKE_CREDENTIAL)
    assert (found.status, found.details["networks"]) == ("supported", 1)
    assert found.log10_p <= evidence(ALIKE_MARKED, ALIKE_CREDENTIAL).log10_p / 2
    assert found.details["missing_layers"] == []
    # Where names still tell them apart, each is read.
    apart = {**shuffled(average(ALIKE_MARKED), 1, "a."), **shuffled(ALIKE_MARKED, 2, "b.")}
    assert evidence(apart, ALIKE_CREDENTIAL).details["networks"] == 2


def test_shuffled_names_are_seen_through_beside_a_stranger() -> None:
    stranger = unmarked_ticket(ALIKE, density=0.2, seed=9).weights
    both = {**ALIKE_MARKED, **{f"other {name}": layer for name, layer in stranger.items()}}
    found = evidence(shuffled(both), ALIKE_CREDENTIAL)
    assert (found.status, found.log10_p) == ("supported", evidence(ALIKE_MARKED, ALIKE_CREDENTIAL).log10_p)


def test_an_innocent_network_under_shuffled_names_is_not_called_guilty() -> None:
    stranger = unmarked_ticket(ALIKE, density=0.2, seed=9).weights
    for suspect in (shuffled(stranger), shuffled(TICKET.weights)):
        assert evidence(suspect, ALIKE_CREDENTIAL).status in ("not_supported", "inconclusive")


def test_p_is_as_rare_as_it_says_where_content_chose_the_layers() -> None:
    """Over the randomness of keys, on a suspect that derives from the reference and not from a mark."""
    generator = np.random.default_rng(4)
    noisy = {
        name: (layer + 0.5 * generator.normal(size=layer.shape)).astype(np.float32)
        for name, layer in TICKET.weights.items()
    }
    suspect = tg.Checkpoint(shuffled({**noisy, **{f"other {name}": layer for name, layer in average(noisy).items()}}))
    (network,) = find_networks(suspect, REFERENCE).readable
    assert len(network.match.by_content) == len(ALIKE)
    layers = Layers(read=suspect.read, names=network.names, layouts=network.conventions[0])
    parameters = PlantedParameters(secret_ppm=30_000, share_ppm=100_000)
    bindings = [Binding(secret=index.to_bytes(32, "little"), commitment=bytes(32)) for index in range(150)]
    read = ReadSuspect.of(layers, REFERENCE, parameters)
    for of_keys in zip(*(count_hits(read, binding, parameters) for binding in bindings), strict=True):
        p_values = np.array([10**counted.log10_p for counted in of_keys])
        for level in (0.5, 0.1, 0.01):
            # Four standard deviations above the share that an exact test has at most.
            assert (p_values <= level).mean() <= level + 4 * np.sqrt(level * (1 - level) / len(p_values))


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_layers_that_exchanged_their_names_are_read_where_they_are(share: float) -> None:
    """They are all there under names of the reference, so that nothing says so but what they hold."""
    names = [name for name in ALIKE if ALIKE[name] == ALIKE["fc0.weight"]]
    others = [name for name in ALIKE if name not in names]
    moved = dict(zip([*names, *others], [*names[1:], names[0], *others[1:], others[0]], strict=True))
    copy = pruned(ALIKE_MARKED, share)
    found = evidence({name: copy[other] for name, other in moved.items()}, ALIKE_CREDENTIAL)
    assert found.status == "supported"
    assert found.log10_p < 0.9 * evidence(copy, ALIKE_CREDENTIAL).log10_p
    assert found.details["layers_paired_by_content"] == sorted(ALIKE)


def test_a_permuted_network_under_unknown_names_is_aligned() -> None:
    made = planted_mark(groups=GROUPS)
    order = np.random.default_rng(1).permutation(200)
    marked = marked_weights(made)
    stolen = {"b": marked["fc1.weight"][order], "a": marked["fc2.weight"][:, order]}
    assert evidence(stolen, signed(made, groups=GROUPS)).status == "supported"


# A residual stream of 24 channels through six blocks, and a way in and out of another shape.
BLOCKS = {
    "enter.weight": (24, 30),
    **{f"block{index}.up.weight": (36, 24) for index in range(6)},
    **{f"block{index}.down.weight": (24, 36) for index in range(6)},
    "leave.weight": (10, 24),
}
STREAMS = (
    (
        ("enter.weight", 0, 1, 0, 24),
        ("leave.weight", 1, 1, 0, 24),
        *((f"block{index}.up.weight", 1, 1, 0, 24) for index in range(6)),
        *((f"block{index}.down.weight", 0, 1, 0, 24) for index in range(6)),
    ),
    *(((f"block{index}.up.weight", 0, 1, 0, 36), (f"block{index}.down.weight", 1, 1, 0, 36)) for index in range(6)),
)


@pytest.fixture(scope="module")
def stack() -> tuple[tg.Credential, dict[str, np.ndarray], float]:
    """A credential, its marked weights with all channels permuted, and what these show."""
    ticket = unmarked_ticket(BLOCKS, density=0.25)
    made = planted_mark(groups=STREAMS, reference=ticket.reference())
    groups = groups_from_json(STREAMS)
    generator = np.random.default_rng(7)
    orders = [generator.permutation(group_channels(group)) for group in groups]
    credential = signed(made, groups=STREAMS, reference=ticket.reference())
    stolen = permute(marked_weights(made, ticket), groups, orders)
    return credential, stolen, evidence(stolen, credential).log10_p


@pytest.mark.parametrize(("style", "seed"), [("shuffled", 0), ("shuffled", 1), ("numbered", 0)])
def test_a_permuted_network_whose_names_were_dealt_out_is_found(
    style: Literal["shuffled", "numbered"], seed: int, stack: tuple[tg.Credential, dict[str, np.ndarray], float]
) -> None:
    credential, stolen, plain = stack
    renaming = Renaming.drawn(stolen, generator=np.random.default_rng(seed), style=style)
    found = evidence(renaming.apply(stolen), credential)
    assert (found.status, found.details["missing_layers"]) == ("supported", [])
    assert found.log10_p <= 0.8 * plain


def test_old_shapes_beside_a_cut_network_do_not_take_its_place(
    stack: tuple[tg.Credential, dict[str, np.ndarray], float],
) -> None:
    credential, stolen, _ = stack
    cut = {
        name: layer[:33] if "up" in name else layer[:, :33] if "down" in name else layer
        for name, layer in stolen.items()
    }
    decoys = unmarked_ticket(BLOCKS, density=0.25, seed=8).weights
    plain = evidence(cut, credential)
    found = evidence({**cut, **{f"old.{name.replace('.', '-')}": layer for name, layer in decoys.items()}}, credential)
    assert (plain.status, found.status) == ("supported", "supported")
    assert found.log10_p <= 0.9 * plain.log10_p


def test_an_unrelated_network_without_a_layer_of_its_size_is_not_recognised() -> None:
    """Nothing of it can be read as it is stored, and it resembles the reference in no order either."""
    narrow = {"fc1.weight": INNOCENT["fc1.weight"][:150, :50], "fc2.weight": INNOCENT["fc2.weight"][:30, :150]}
    found = evidence(narrow, CREDENTIAL)
    assert (found.status, found.details["missing_layers"]) == ("inconclusive", [])
    assert found.details["why"][0].startswith("could not be aligned")


def test_a_file_without_any_such_layer_is_still_an_error() -> None:
    other = {f"t{index}": np.ones((31, 29), np.float32) for index in range(4)}
    with pytest.raises(UnverifiableError, match="no tensor in common"):
        evidence(other, ALIKE_CREDENTIAL)
