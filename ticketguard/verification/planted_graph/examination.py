"""White-box verification: is the owner's planted graph in the suspect's weights?

1. Draw the secret edges S from (secret, C); C binds the unmarked reference, so S is fixed by it.
2. Read the suspect's mask in a few ways: as stored, and its largest weights at a few densities.
3. Count the mask's edges inside S where the reference has none; the tail of the hypergeometric sum is the p-value.
   Where edges were planted with signs, count those that agree, and take both tails together as well.
4. If that is not enough, or the strongest evidence is wanted, align the suspect to the reference, which never sees S,
   and read again.
5. Multiply by the number of readings (Bonferroni); show decoy keys through the same steps.

Nothing here runs a model or needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.embedding.interface import Binding
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.graph import ChannelGroup
from ticketguard.graph.alignment import Alignment
from ticketguard.ticket import AnyReference
from ticketguard.verification.memory import Memory
from ticketguard.verification.networks import Network
from ticketguard.verification.passes import Passes
from ticketguard.verification.planted_graph.counting import looks_at_one
from ticketguard.verification.planted_graph.evidence import evidence_of
from ticketguard.verification.planted_graph.passages import Sighting
from ticketguard.verification.readings import Layers
from ticketguard.verification.verdict import Evidence

# What was seen of a network.
Seen: TypeAlias = tuple[Sighting, Network]


def examine_networks(
    suspect: Checkpoint,
    reference: AnyReference,
    binding: Binding,
    parameters: PlantedParameters,
    *,
    groups: Sequence[ChannelGroup],
    threshold_log10_p: float,
    thorough: bool = False,
    memory: Memory | None = None,
) -> Evidence:
    """Read every network as stored and, if that is not enough, aligned; the strongest one pays for all.

    Args:
        suspect: The checkpoint.
        reference: The unmarked ticket.
        binding: The owner's key.
        parameters: Of the claim's planted graph.
        groups: Channel groups of the reference's layers that the commitment binds; without any, every axis is aligned
            for itself.
        threshold_log10_p: What the verdict asks for.
        thorough: Read aligned even where what is stored is enough, and look for an order of channels in all layers even
            where a few of them show nothing of the reference.
        memory: Keeps the owner's secret edges for the next suspect.

    Raises:
        UnverifiableError: They share no layer that can be read, or too many networks fit.
        FileError: The file is gone or has changed.
    """
    examination = Examination(suspect, reference, parameters, groups=groups, thorough=thorough)
    return examination.evidence(binding, threshold_log10_p=threshold_log10_p, memory=memory)


class Examination:
    """Every network of a suspect beside a reference: which layers are read, and how, before any key.

    All of it follows from the suspect and the reference alone, so one examination serves any number of keys.

    Args:
        suspect: The checkpoint.
        reference: The unmarked ticket.
        parameters: Of the claim's planted graph.
        groups: Channel groups of the reference's layers that the commitment binds.
        thorough: Read aligned even where what is stored is enough, and look for an order of channels in all layers even
            where a few of them show nothing of the reference.

    Raises:
        UnverifiableError: They share no layer that can be read, or too many networks fit.
        FileError: The file is gone or has changed.
    """

    def __init__(
        self,
        suspect: Checkpoint,
        reference: AnyReference,
        parameters: PlantedParameters,
        *,
        groups: Sequence[ChannelGroup],
        thorough: bool = False,
    ) -> None:
        self._parameters = parameters
        self._groups = groups
        self._thorough = thorough

        def see(layers: Layers, present: AnyReference) -> Sighting:
            return Sighting.of(layers, present, parameters, layout=layers.layout)

        self._passes = Passes(suspect, reference, groups, see=see, thorough=thorough)

    @property
    def looks(self) -> int:
        """Readings in all passes that the rule allows, made or not."""
        return looks_at_one(is_signed=self._parameters.is_signed) * len(self._passes.found.readable)

    @property
    def stored(self) -> tuple[Seen, ...]:
        """What the networks show as stored: those that have layers of the reference's shape."""
        return tuple((seen, network) for seen, network, _ in self._passes.stored)

    @property
    def aligned(self) -> tuple[Seen, ...]:
        """What the networks show aligned: those for which that is not what they show as stored."""
        return tuple((seen, network) for seen, network, _ in self._passes.aligned)

    def evidence(self, binding: Binding, *, threshold_log10_p: float, memory: Memory | None = None) -> Evidence:
        """Count for one key: as stored and, if that is not enough, aligned.

        Both are paid for, so whether the second is made changes p, and never what a verdict says: more readings only
        make the smallest p smaller.

        Args:
            binding: The owner's key.
            threshold_log10_p: What the verdict asks for.
            memory: Keeps the owner's secret edges for the next suspect.
        """
        passages = [(seen.counted(binding, self._parameters, memory), network) for seen, network in self.stored]
        smallest = min((passage.log10_p for passage, _ in passages), default=0.0)
        alignments: list[Alignment] = []
        # Where nothing is of the reference's shapes, nothing is enough.
        if self._thorough or smallest + math.log10(self.looks) > threshold_log10_p:
            alignments = self._passes.alignments
            passages += [(seen.counted(binding, self._parameters, memory), network) for seen, network in self.aligned]
        best, network = min(passages, key=lambda passage: passage[0].log10_p)
        return evidence_of(
            [passage for passage, _ in passages],
            alignments,
            binding,
            self._parameters,
            threshold_log10_p=threshold_log10_p,
            looks=self.looks,
            details={
                **self._passes.what_was_read(network, best.read.reference.layers),
                "channel_groups": len(self._groups),
            },
        )
