"""White-box verification: is the owner's planted graph in the suspect's weights?

1. Draw the secret edges S from (secret, C); C binds the unmarked reference, so S is fixed by it.
2. Read the suspect's mask in a few ways: as stored, and its largest weights at a few densities.
3. Count the mask's edges inside S where the reference has none and no other mark decides; the tail of the
   hypergeometric sum is the p-value. Where edges were planted with signs, count those that agree, and take both tails
   together as well.
4. If that is not enough, or the strongest evidence is wanted, align the suspect to the reference, which never sees S,
   and read again.
5. Multiply by the number of readings (Bonferroni); show decoy keys through the same steps.

Nothing here runs a model or needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping

from ticketguard.embedding.interface import Binding, Positions
from ticketguard.embedding.planted_graph import PlantedParameters
from ticketguard.ticket import AnyReference
from ticketguard.verification.memory import Memory
from ticketguard.verification.outcome import Outcome
from ticketguard.verification.passes import Passes
from ticketguard.verification.planted_graph.counting import looks_at_one
from ticketguard.verification.planted_graph.evidence import evidence_of
from ticketguard.verification.planted_graph.passages import Sighting
from ticketguard.verification.readings import Layers
from ticketguard.verification.verdict import Evidence
from ticketguard.verification.ways import Way


def examine_networks(
    way: Way,
    binding: Binding,
    parameters: PlantedParameters,
    *,
    threshold_log10_p: float,
    decided: Mapping[str, Positions] | None = None,
    memory: Memory | None = None,
) -> Evidence:
    """Read every network as stored and, if that is not enough, aligned; the strongest one pays for all.

    Args:
        way: The suspect, and the reference beside which it is read.
        binding: The owner's key.
        parameters: Of the claim's planted graph.
        threshold_log10_p: What the verdict asks for.
        decided: Per layer the flat positions that other marks of the claim decide.
        memory: Keeps the owner's secret edges for the next suspect.

    Raises:
        FileError: The file is gone or has changed.
    """
    return Examination(way, parameters, decided).evidence(binding, threshold_log10_p=threshold_log10_p, memory=memory)


class Examination:
    """Every network of a suspect beside a reference: which layers are read, and how, before any key.

    All of it follows from the suspect and the reference alone, so one examination serves any number of keys.

    Args:
        way: The suspect, and the reference beside which it is read.
        parameters: Of the claim's planted graph.
        decided: Per layer the flat positions that other marks of the claim decide.
    """

    def __init__(self, way: Way, parameters: PlantedParameters, decided: Mapping[str, Positions] | None = None) -> None:
        self._way, self._parameters = way, parameters

        def see(layers: Layers, present: AnyReference) -> Sighting:
            return Sighting.of(layers, present, parameters, decided)

        self._passes = Passes(way, see=see)

    @property
    def looks(self) -> int:
        """Readings in all passes that the rule allows, made or not."""
        return looks_at_one(is_signed=self._parameters.is_signed) * len(self._passes.found.readable)

    @property
    def seen(self) -> tuple[Sighting, ...]:
        """What the networks show as stored, and then aligned, where that is something else."""
        return tuple(sighting for sighting, *_ in (*self._passes.stored, *self._passes.aligned))

    def evidence(self, binding: Binding, *, threshold_log10_p: float, memory: Memory | None = None) -> Evidence:
        """Count for one key: as stored and, if that is not enough, aligned.

        Args:
            binding: The owner's key.
            threshold_log10_p: What the verdict asks for.
            memory: Keeps the owner's secret edges for the next suspect.
        """
        outcome = Outcome.of(
            self._passes,
            lambda sighting: sighting.counted(binding, self._parameters, memory),
            looks=self.looks,
            threshold_log10_p=threshold_log10_p,
        )
        was_read = self._passes.what_was_read(outcome.network, outcome.best.read.reference.layers)
        details = {**was_read, "channel_groups": len(self._way.groups)}
        return evidence_of(outcome, binding, self._parameters, details=details)
