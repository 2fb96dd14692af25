"""Which networks a suspect's file holds, and which of their layers can be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.checkpoints.layouts import Layout
from ticketguard.checkpoints.matching import LayerMatch
from ticketguard.checkpoints.packed import describe
from ticketguard.errors import UnverifiableError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """One network of a suspect.

    Attributes:
        match: Which tensor stands for which reference layer.
        names: The tensors that can be read as layers of the reference's shape, by layer.
        layouts: How they are read, by layer: the likeliest of the match's conventions.
        unreadable: What is wrong with those that cannot be read at all, by layer.
    """

    match: LayerMatch
    names: Mapping[str, str]
    layouts: Mapping[str, Layout]
    unreadable: Mapping[str, str]


def readable_networks(suspect: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> list[Network]:
    """Return the suspect's networks that have a layer to read.

    Raises:
        UnverifiableError: There are none.
    """
    networks: list[Network] = []
    packed = suspect.packed()
    for match in suspect.matches(shapes):
        wrong = suspect.unreadable(dict.fromkeys(match.pairs.values()))
        unknown = {layer: packed.get(match.network + layer) for layer in shapes if layer not in match.pairs}
        networks.append(
            Network(
                match=match,
                names={
                    layer: name
                    for layer, name in match.pairs.items()
                    if name not in wrong and layer not in match.resized
                },
                layouts=match.conventions[0],
                unreadable={
                    **{layer: wrong[name] for layer, name in match.pairs.items() if name in wrong},
                    **{layer: f"is stored packed ({form})" for layer, form in unknown.items() if form is not None},
                },
            )
        )
    readable = [network for network in networks if network.names]
    if not readable:
        raise UnverifiableError(_nothing_to_read(suspect, networks[0], shapes))
    return readable


def _nothing_to_read(suspect: Checkpoint, network: Network, shapes: Mapping[str, tuple[int, ...]]) -> str:
    if not network.unreadable:
        other = next(iter(network.match.resized))
        return (
            f"'{suspect.label}' has the reference's layers with other numbers of channels: expected '{other}' "
            f"{shapes[other]}, got {suspect.shape(network.match.pairs[other])}: verify from its answers instead"
        )
    layer, reason = next(iter(network.unreadable.items()))
    packed = suspect.packed()
    return (
        f"'{suspect.label}' has no layer that can be read: '{layer}' {reason}"
        + (f"; it holds {describe(packed)}" if packed else "")
        + ": ask for the weights that are in use, as floating-point numbers"
    )
