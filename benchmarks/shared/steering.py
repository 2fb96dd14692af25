"""Forgers who know their secret edges, and bring a reference that steers an innocent network's channels onto them.

The first hidden channels of an innocent network can be put in any order. A forger who knows the secret edges S takes
the order that brings most of its edges into S, and calls what they leave out the reference: an alignment finds it, and
the count is far above chance. A padded reference has more places than the network has channels, and so more choice.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

import ticketguard as tg
from benchmarks.shared.planted_claims import claimed
from benchmarks.shared.quick_tickets import Quick, State
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters, secret_edges
from ticketguard.errors import CredentialError
from ticketguard.graph import groups_from_json
from ticketguard.ticket import Mask, Reference
from ticketguard.verification.planted_graph.examination import examine_networks
from ticketguard.verification.verdict import level_log10
from ticketguard.verification.ways import likeliest_way


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forgery:
    """What came of one forged credential.

    Attributes:
        refused: What `verify` said to it; empty if it was judged.
        log10_p: What an innocent suspect would have shown, had the reference been believed.
        honest_log10_p: What it shows by the reference that the forger committed to.
    """

    refused: str
    log10_p: float
    honest_log10_p: float


def steered(tickets: Quick, suspect: State, *, padding: int) -> Forgery:
    """Steer an innocent perceptron, in a reference that has *padding* times as many places for its first channels.

    Args:
        tickets: Whose reference the forger commits to at first, with room for more channels.
        suspect: The innocent network.
        padding: 1 for a reference of the suspect's own shape.
    """
    first, second, *_ = tickets.reference.mask
    committed = _widened(tickets.reference, first, second, padding)
    secret = bytes(range(32))
    channels_of_reference = committed.mask[first].shape[0]
    groups = groups_from_json([[[first, 0, 1, 0, channels_of_reference], [second, 1, 1, 0, channels_of_reference]]])
    credential = _claimed(committed, secret, tickets.parameters)
    mark = credential.claim.marks[0]
    binding = Binding(secret=secret, commitment=mark.commitment)
    shapes = {name: committed.mask[name].shape for name in committed.mask}
    drawn = secret_edges(binding, shapes, secret_ppm=tickets.parameters.secret_ppm)
    secrets = {name: np.isin(np.arange(np.prod(shapes[name])), drawn[name]).reshape(shapes[name]) for name in drawn}
    edges = {name: suspect[name] != 0 for name in shapes}
    gain = edges[first].astype(float) @ secrets[first].T + edges[second].T.astype(float) @ secrets[second]
    channels, places = linear_sum_assignment(gain, maximize=True)
    steering = _reference_of(suspect, shapes, (first, second), channels, places, secrets)
    forged = dataclasses.replace(credential, vault=dataclasses.replace(credential.vault, reference=steering.to_bytes()))
    checkpoint = tg.Checkpoint(suspect)

    def shown(reference: Reference) -> float:
        way = likeliest_way(checkpoint, reference, groups)
        return examine_networks(way, binding, tickets.parameters, threshold_log10_p=level_log10(64)).log10_p

    try:
        tg.verify(checkpoint, forged)
        refused = ""
    except CredentialError as error:
        refused = str(error)
    return Forgery(refused=refused, log10_p=shown(steering), honest_log10_p=shown(committed))


def _widened(reference: Reference, first: str, second: str, padding: int) -> Reference:
    """Return a reference with empty places for more channels."""
    masks = {name: reference.mask[name] for name in reference.mask}
    more = (padding - 1) * masks[first].shape[0]
    masks[first] = np.pad(masks[first], ((0, more), (0, 0)))
    masks[second] = np.pad(masks[second], ((0, 0), (0, more)))
    return Reference(mask=Mask(layers=masks), kept_weights=reference.kept_weights)


def _reference_of(
    suspect: State, shapes: Any, between: tuple[str, str], channels: Any, places: Any, secrets: State
) -> Reference:
    """Return the suspect with its channels in their places, without what it has in the secret edges."""
    moved = {name: np.array(suspect[name]) for name in shapes}
    for axis, name in enumerate(between):
        whole = np.zeros(shapes[name], dtype=np.float32)
        if axis == 0:
            whole[places] = moved[name][channels]
        else:
            whole[:, places] = moved[name][:, channels]
        moved[name] = whole
    masks = {name: (array != 0) & ~secrets[name] for name, array in moved.items()}
    return Reference(mask=Mask(layers=masks), kept_weights={name: moved[name][mask] for name, mask in masks.items()})


def _claimed(reference: Reference, secret: bytes, parameters: PlantedParameters) -> tg.Credential:
    """Return an honest claim to a reference."""
    forger = tg.Owner.generate("forger")
    stated = {"secret_ppm": parameters.secret_ppm, "share_ppm": parameters.share_ppm}
    return claimed(reference, secret, stated, owner=forger)
