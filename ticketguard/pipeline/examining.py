"""Examine a checkpoint's weights: every network in it that fits the reference equally well, each of which is a look."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.errors import UnverifiableError
from ticketguard.graph import ChannelGroup, align
from ticketguard.suspects.checkpoints import Checkpoint
from ticketguard.suspects.matching import LayerMatch
from ticketguard.suspects.packed import describe
from ticketguard.ticket import Mask, Reference
from ticketguard.verification import planted_graph
from ticketguard.verification.readings import READINGS, Layers
from ticketguard.verification.verdict import Evidence


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Network:
    """One network of a suspect.

    Attributes:
        match: Which tensor stands for which reference layer.
        names: The tensors that can be read, by layer.
        unreadable: What is wrong with the others, by layer.
    """

    match: LayerMatch
    names: Mapping[str, str]
    unreadable: Mapping[str, str]


def examine_networks(
    suspect: Checkpoint,
    reference: Reference,
    binding: Binding,
    parameters: PlantedParameters,
    *,
    groups: Sequence[ChannelGroup],
    threshold_log10_p: float,
) -> Evidence:
    """Read every network as stored and, if that is not enough, aligned; the strongest one pays for all.

    Which networks and layers are read follows from the suspect and the reference alone, never from the secret.

    Args:
        suspect: The checkpoint.
        reference: The unmarked ticket.
        binding: The owner's key.
        parameters: Of the claim's planted graph.
        groups: Channel groups of the reference's layers that the commitment binds; none to take channels as stored.
        threshold_log10_p: What the verdict asks for.

    Raises:
        UnverifiableError: They share no layer that can be read, or too many networks fit.
        FileError: The file is gone or has changed.
    """
    networks = _readable_networks(suspect, {name: reference.mask[name].shape for name in reference.mask})
    looks = len(READINGS) * (2 if groups else 1) * len(networks)
    passages: list[tuple[planted_graph.Passage, _Network]] = []
    for aligned in (False, True) if groups else (False,):
        if passages and min(seen.log10_p for seen, _ in passages) + math.log10(looks) <= threshold_log10_p:
            break
        for network in networks:
            layers = Layers(read=suspect.read, names=network.names)
            if aligned:
                alignment = align(layers, reference, groups)
                layers = Layers(read=suspect.read, names=network.names, alignment=alignment)
            present = Mask(layers={name: reference.mask[name] for name in network.names})
            passages.append((planted_graph.examine(layers, present, binding, parameters), network))
    best = min(passages, key=lambda passage: passage[0].log10_p)[1]
    evidence = planted_graph.to_evidence(
        [seen for seen, _ in passages],
        threshold_log10_p=threshold_log10_p,
        looks=looks,
        missing=[name for name in reference.mask if name not in best.names and name not in best.unreadable],
        paired_by_order=best.match.by_order,
    )
    what_was_read = {
        "network": (suspect.network or "") + best.match.network,
        "networks": len(networks),
        "unreadable_layers": [{"layer": layer, "reason": reason} for layer, reason in best.unreadable.items()],
    }
    return dataclasses.replace(evidence, details={**evidence.details, **what_was_read})


def _readable_networks(suspect: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> list[_Network]:
    """Return the suspect's networks that have a layer to read.

    Raises:
        UnverifiableError: There are none.
    """
    networks: list[_Network] = []
    packed = suspect.packed()
    for match in suspect.matches(shapes):
        wrong = suspect.unreadable(match.pairs.values())
        unknown = {layer: packed.get(match.network + layer) for layer in shapes if layer not in match.pairs}
        networks.append(
            _Network(
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
