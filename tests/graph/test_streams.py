"""Which axes run over the same channels, in a suspect that may have been rebuilt."""

from __future__ import annotations

from ticketguard.graph import groups_from_json
from ticketguard.graph.streams import Stream, bound_streams, loosened_streams

# Four channels of a convolution, each of which is nine places of the map behind it.
GROUPS = groups_from_json([[["conv", 0, 1, 0, 4], ["head", 1, 9, 0, 4], ["norm", 0, 1, 0, 4]]])
REFERENCE = {"conv": (4, 3, 3, 3), "head": (5, 36)}


def told(streams: tuple[Stream, ...]) -> dict[tuple[str, ...], tuple[int, int]]:
    """Return, by the axes of each stream, how many channels the reference has, and the suspect."""
    return {
        tuple(f"{member.tensor}{member.axis}" for member in stream.reference): (
            stream.channels,
            stream.suspect_channels,
        )
        for stream in streams
    }


def test_axes_of_one_group_are_one_stream_and_others_their_own() -> None:
    ends = {("conv1",): (3, 3), ("head0",): (5, 5)}
    assert told(loosened_streams(GROUPS, REFERENCE, REFERENCE)) == {("conv0", "head1"): (4, 4), **ends}
    wider = {"conv": (6, 3, 3, 3), "head": (5, 54)}
    assert told(loosened_streams(GROUPS, REFERENCE, wider)) == {("conv0", "head1"): (4, 6), **ends}


def test_axes_that_have_other_numbers_of_channels_are_not_one_stream() -> None:
    wider = {"conv": (6, 3, 3, 3), "head": (5, 45)}
    found = told(loosened_streams(GROUPS, REFERENCE, wider))
    assert found == {("conv0",): (4, 6), ("conv1",): (3, 3), ("head0",): (5, 5), ("head1",): (36, 45)}
    # Forty places are no number of maps of nine.
    found = told(loosened_streams(GROUPS, REFERENCE, {"conv": (4, 3, 3, 3), "head": (5, 40)}))
    assert found == {("conv0",): (4, 4), ("conv1",): (3, 3), ("head0",): (5, 5), ("head1",): (36, 40)}


def test_bound_groups_are_streams_as_far_as_the_suspect_has_their_layers() -> None:
    assert told(bound_streams(GROUPS, REFERENCE, REFERENCE)) == {("conv0", "head1"): (4, 4)}
    assert told(bound_streams(GROUPS, REFERENCE, {"head": (5, 36)})) == {("head1",): (4, 4)}
    assert bound_streams(GROUPS, REFERENCE, {}) == ()
    alone = groups_from_json([[["conv", 0, 1, 0, 1]]])
    assert bound_streams(alone, REFERENCE, REFERENCE) == ()
