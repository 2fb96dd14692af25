"""What a test of weights assumes, and why an absent mark would not show that a suspect is no copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ticketguard.graph.alignment import Alignment
from ticketguard.verification.verdict import Status

ASSUMPTIONS = (
    "the owner's key was drawn at random and the claim's commitment binds it to the reference",
    "the suspect was not made with knowledge of this key, unless it derives from the marked ticket",
    "the weights are the accused model's own: their origin is for the auditor to establish",
    "a claimant who tries 2^k keys buys a factor of 2^k, which the level allows for",
)
NOT_ALIGNED = (
    "could not be aligned: nothing of the reference is recognisable in the suspect, in any order of its channels. An "
    "unrelated model looks like this, and so does one that was rebuilt in a way that is not undone here: verify from "
    "its answers as well"
)
ONE_NOT_ALIGNED = (
    "one of the suspect's networks could not be aligned, and it may be the copy: verify from its answers as well"
)
PARTLY_ALIGNED = (
    "only part of the reference is recognised in the suspect, and a copy might show the mark in the rest: verify from "
    "its answers as well"
)
CUT_SHORT = (
    "the alignment was cut short: channels that may be out of place were not looked for to the end. Of a file with "
    "several networks, verify thoroughly, and each is looked at for as long as one alone"
)
ONLY_PART = (
    "channels were looked for in a few of the layers, which show nothing of the reference: verify thoroughly, at all "
    "of them"
)
LAYERS_ARE_MISSING = (
    "layers or networks are missing or cannot be read, and a copy might show the mark there: ask for all weights"
)
TOO_LITTLE = "too little is left: an intact copy of this size would not reach the level either"
IN_BETWEEN = "the evidence is above chance and below the level: verify from its answers as well"


def doubts_about(
    status: Status, alignments: Sequence[Alignment], *, is_short: bool, details: Mapping[str, Any]
) -> list[str]:
    """Return why an absent mark would not show that the suspect is no copy; nothing if it would.

    Args:
        status: What the test says.
        alignments: All that were tried; none if what was read as stored was enough.
        is_short: Whether an untouched copy of this size would not reach the level either.
        details: What was read: "missing_layers", "unreadable_layers", "values_not_finite" and "unreadable_networks".
    """
    doubts = []
    if not any(alignment.is_found for alignment in alignments):
        doubts.append(NOT_ALIGNED)
    elif not all(alignment.is_found for alignment in alignments):
        doubts.append(ONE_NOT_ALIGNED)
    elif not all(alignment.is_clear for alignment in alignments):
        doubts.append(PARTLY_ALIGNED)
    if doubts and any(not alignment.complete for alignment in alignments):
        doubts.append(CUT_SHORT)
    if any(alignment.is_part for alignment in alignments):
        doubts.append(ONLY_PART)
    is_damaged = any(2 * wrong["values"] >= wrong["of"] for wrong in details["values_not_finite"])
    if is_damaged or any(details[what] for what in ("missing_layers", "unreadable_layers", "unreadable_networks")):
        doubts.append(LAYERS_ARE_MISSING)
    if is_short:
        doubts.append(TOO_LITTLE)
    elif status == "inconclusive":
        doubts.append(IN_BETWEEN)
    return doubts
