"""Which networks a suspect's file holds, and which of their layers can be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.checkpoints.matching import LayerMatch
from ticketguard.checkpoints.packed import describe
from ticketguard.errors import UnverifiableError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """One network of a suspect.

    Attributes:
        match: Which tensor stands for which reference layer.
        names: The tensors that can be read, by layer.
        unreadable: What is wrong with the others, by layer.
    """

    match: LayerMatch
    names: Mapping[str, str]
    unreadable: Mapping[str, str]


def readable_networks(suspect: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> list[Network]:
    """Return the suspect's networks that have a layer to read.

    Raises:
        UnverifiableError: There are none.
    """
    networks: list[Network] = []
    packed = suspect.packed()
    for match in suspect.matches(shapes):
        wrong = suspect.unreadable(match.pairs.values())
        unknown = {layer: packed.get(match.network + layer) for layer in shapes if layer not in match.pairs}
        networks.append(
            Network(
                match=match,
                names={layer: name for layer, name in match.pairs.items() if name not in wrong},
                unreadable={
                    **{layer: wrong[name] for layer, name in match.pairs.items() if name in wrong},
                    **{layer: f"is stored packed ({form})" for layer, form in unknown.items() if form is not None},
                },
            )
        )
    readable = [network for network in networks if network.names]
    if not readable:
        layer, reason = next(iter(networks[0].unreadable.items()))
        raise UnverifiableError(
            f"'{suspect.label}' has no layer that can be read: '{layer}' {reason}"
            + (f"; it holds {describe(packed)}" if packed else "")
            + ": ask for the weights that are in use, as floating-point numbers"
        )
    return readable
