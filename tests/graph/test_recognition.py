"""Which channels count as found: those whose edges are likelier there than anywhere else."""

from __future__ import annotations

import math

import numpy as np
from drawn_perceptron import GROUPS, a_network, edges_of, permuted, whole

from ticketguard.graph import align, group_channels
from ticketguard.graph.recognition import DOUBT, MOSTLY, recognised

MIDDLE = (whole("a", 0, 40), whole("b", 1, 40))
SHAPES = {"a": (40, 60), "b": (50, 40)}


def drawn(share: float, seed: int = 0) -> dict[str, np.ndarray]:
    luck = np.random.default_rng(seed)
    return {name: luck.random(shape) < share for name, shape in SHAPES.items()}


def known(reference: dict[str, np.ndarray], suspect: dict[str, np.ndarray]) -> np.ndarray:
    (found,) = recognised(
        {name: edges_of(mask) for name, mask in reference.items()},
        {name: edges_of(mask) for name, mask in suspect.items()},
        [MIDDLE],
    )
    return found


def test_channels_at_random_places_are_not_recognised_and_the_others_are() -> None:
    reference, other = drawn(0.1), drawn(0.1, seed=1)
    suspect = {name: mask.copy() for name, mask in reference.items()}
    suspect["a"][:10], suspect["b"][:, :10] = other["a"][:10], other["b"][:, :10]
    found = known(reference, suspect)
    assert not found[:10].any()
    assert found[10:].all()


def test_what_was_pruned_away_or_grown_beside_does_not_make_a_channel_unknown() -> None:
    luck = np.random.default_rng(3)
    reference, other = drawn(0.1), drawn(0.1, seed=1)
    few = {name: mask & (luck.random(mask.shape) < 0.3) for name, mask in other.items()}
    suspect = {name: (mask & (luck.random(mask.shape) < 0.7)) | few[name] for name, mask in reference.items()}
    suspect["a"][7], suspect["b"][:, 7] = False, False
    found = known(reference, suspect)
    assert found[7]  # without edges there is nothing to be wrong about
    assert found.mean() > 0.95


def test_edges_to_channels_that_are_not_recognised_say_nothing_of_their_other_ends() -> None:
    """Eight wrong outputs all lead to one input: that is held against it until they are known to be wrong."""
    luck = np.random.default_rng(2)
    reference = {"a": luck.random((40, 60)) < 0.1}
    reference["a"][:, 5] = np.arange(40) % 10 == 9
    suspect = {"a": reference["a"].copy()}
    suspect["a"][:8] = luck.random((8, 60)) < 0.1
    suspect["a"][:8, 5] = True
    outputs, inputs = ((whole("a", axis, size),) for axis, size in enumerate((40, 60)))
    found = recognised({"a": edges_of(reference["a"])}, {"a": edges_of(suspect["a"])}, [outputs, inputs])
    assert not found[0][:8].any()
    assert found[0][8:].all()
    assert found[1][5]


def test_layers_of_which_the_reference_has_all_say_nothing() -> None:
    full = {name: np.ones(shape, dtype=bool) for name, shape in SHAPES.items()}
    assert known(full, drawn(0.1)).all()
    assert known(full, full).all()


def test_so_many_nats_have_to_speak_against_a_channel() -> None:
    """Fisher's law by hand: a channel that shares nothing, beside 39 that share four of five edges."""
    reference = {"a": np.zeros((40, 60), dtype=bool), "b": np.zeros((50, 40), dtype=bool)}
    suspect = {name: mask.copy() for name, mask in reference.items()}
    reference["a"][:, :5] = True
    suspect["a"][1:, 1:6] = True
    seen = []
    for beside in (1, 2):
        suspect["a"][0, 20 : 20 + beside] = True
        shared, extra, lost = 4 * 39, 39 + beside, 39 + 5
        neither = 40 * 60 - shared - extra - lost
        odds = (shared + 0.5) * (neither + 0.5) / ((extra + 0.5) * (lost + 0.5))
        against = min(beside * math.log(1 + 5 / 60 * (odds - 1)), 5 * math.log(1 + beside / 60 * (odds - 1)))
        seen.append(against <= DOUBT)
        assert known(reference, suspect)[0] == seen[-1]
    assert seen == [True, False]


def test_channels_with_few_edges_of_their_own_under_noise_are_recognised() -> None:
    """Noise comes to all rows alike: a channel of two edges keeps both, and they are a small share of what it has."""
    luck = np.random.default_rng(0)
    reference = drawn(0.2)
    reference["a"][:10] = luck.random((10, 60)) < 0.04
    suspect = {name: mask | (luck.random(mask.shape) < 0.1) for name, mask in reference.items()}
    assert known(reference, suspect).all()


def test_where_most_edges_are_the_thiefs_no_channel_is_left_out() -> None:
    reference, other = drawn(0.1), drawn(0.1, seed=1)
    suspect = {name: mask | other[name] for name, mask in reference.items()}
    suspect["a"][:10], suspect["b"][:, :10] = other["a"][:10], other["b"][:, :10]
    assert known(reference, suspect).all()


def test_channels_that_were_replaced_are_left_out_and_told() -> None:
    reference, state = a_network()
    luck = np.random.default_rng(9)
    for channel in range(12):
        state["a"][channel] = luck.permutation(state["a"][channel])
        state["b"][:, channel] = luck.permutation(state["b"][:, channel])
    suspect, (order, _) = permuted(state)
    found = align(suspect, reference, GROUPS)
    assert (found.orders[0][12:] == order[12:]).all()
    assert (found.orders[0][:12] == -1).sum() == found.unrecognised >= 10
    assert (found.missing, found.added) == (0, 0)
    whole = found.apply("a", suspect["a"])
    assert not whole[found.orders[0] < 0].any()
    assert (whole[12:] == state["a"][12:]).all()


# With kernels, behind a flattened map, and with what no stream moves: the first inputs, and the last four outputs.
LAYERS = {"conv": (14, 5, 2, 2), "next": (9, 14, 2, 2), "head": (11, 9 * 4)}
STREAMS = (
    (whole("conv", 0, 14), whole("next", 1, 14)),
    (whole("next", 0, 9), whole("head", 1, 9, block=4)),
    (whole("head", 0, 7),),
)


def odds_of(both: float, suspect: float, reference: float, positions: float) -> float:
    neither = positions - suspect - reference + both
    return (both + 0.5) * (neither + 0.5) / ((suspect - both + 0.5) * (reference - both + 0.5))


def by_hand(reference: dict[str, np.ndarray], suspect: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The rule as it is written, channel by channel: four rounds, each by the edges to what the last one recognised."""
    known = [np.ones(group_channels(stream), dtype=bool) for stream in STREAMS]
    for _ in range(4):
        nats = [np.zeros(len(one)) for one in known]
        for name, wanted in reference.items():
            found = suspect[name]
            rows, columns = (np.ones(size, dtype=bool) for size in wanted.shape[:2])
            places: list[tuple[int, int, int, np.ndarray]] = []
            for number, stream in enumerate(STREAMS):
                for member in (member for member in stream if member.tensor == name):
                    for channel, there in enumerate(member.positions()):
                        (columns if member.axis else rows)[there] = known[number][channel]
                        places.append((member.axis, number, channel, there))

            def counts(area: tuple[np.ndarray, ...], r: np.ndarray = wanted, s: np.ndarray = found) -> list[float]:
                one, other = r[np.ix_(*area)], s[np.ix_(*area)]
                return [float(x) for x in ((one & other).sum(), other.sum(), one.sum(), one.size)]

            odds = odds_of(*counts((np.flatnonzero(rows), np.flatnonzero(columns))))
            if odds <= 1:
                continue
            for axis, number, channel, there in places:
                area = (np.flatnonzero(rows), there) if axis else (there, np.flatnonzero(columns))
                both, own, others, positions = counts(area)
                share = max(positions, 1)
                least = min(
                    own * math.log1p(others / share * (odds - 1)), others * math.log1p(own / share * (odds - 1))
                )
                nats[number][channel] += both * math.log(odds) - least
        known = [one >= -DOUBT for one in nats]
    return known


def test_channels_are_judged_by_fishers_law_over_the_edges_to_those_recognised() -> None:
    told = np.zeros(2)
    for seed in range(60):
        luck = np.random.default_rng(seed)
        reference = {name: luck.random(shape) < luck.uniform(0.2, 0.35) for name, shape in LAYERS.items()}
        suspect = {
            name: (mask & (luck.random(mask.shape) < 0.8)) | (luck.random(mask.shape) < 0.03)
            for name, mask in reference.items()
        }
        for stream in STREAMS:
            for channel in luck.permutation(group_channels(stream))[: luck.integers(1, 5)]:
                for member in stream:
                    axis_first = np.moveaxis(suspect[member.tensor], member.axis, 0)
                    for place in member.positions()[channel]:
                        axis_first[place] = luck.random(axis_first.shape[1:]) < luck.uniform(0.1, 0.4)
        if seed % 3 == 1:
            suspect["head"][7:] = luck.random((4, 36)) < 0.2
        if seed % 3 == 2:  # less of a layer in common than chance gives says nothing of any channel
            suspect["next"] = ~reference["next"] & (luck.random(LAYERS["next"]) < 0.15)
        found = recognised(
            {name: edges_of(mask) for name, mask in reference.items()},
            {name: edges_of(mask) for name, mask in suspect.items()},
            STREAMS,
        )
        kept = sum((suspect[name] & reference[name]).sum() for name in LAYERS) / sum(x.sum() for x in suspect.values())
        wanted = by_hand(reference, suspect) if kept >= MOSTLY else [np.ones_like(one) for one in found]
        assert [one.tolist() for one in found] == [one.tolist() for one in wanted]
        told += [sum(one.sum() for one in found), sum((~one).sum() for one in found)]
    assert (told > 50).all()
