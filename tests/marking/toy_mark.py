"""A scheme in one file: the signs of a tensor's values are keyed, and a suspect's are counted."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from scipy.stats import binom

from ticketguard.credentials.claim import MarkClaim
from ticketguard.embedding.interface import Answers, Binding, Json, Positions, Start
from ticketguard.errors import CredentialError, UnverifiableError
from ticketguard.ticket import AnyReference, Array, Mask, Ticket, TicketInfo
from ticketguard.verification.interface import Inquiry, Source, Test, own_parameters
from ticketguard.verification.memory import Memory
from ticketguard.verification.verdict import Evidence, decide

if TYPE_CHECKING:
    import torch


def signs_of(binding: Binding, count: int) -> Array:
    return (2 * binding.stream("toy-signs").integers(2, count) - 1).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToySigns:
    scheme: ClassVar[str] = "toy-signs"
    version: ClassVar[int] = 1

    tensor: str = "1.bias"
    count: int = 100

    def parameters(self, ticket: Ticket) -> dict[str, Json]:
        return {"tensor": self.tensor, "count": self.count}

    def plan(self, ticket: Ticket, start: Start, binding: Binding, parameters: Mapping[str, Json]) -> PlannedSigns:
        return PlannedSigns(tensor=self.tensor, signs=signs_of(binding, self.count), start=start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedSigns:
    tensor: str
    signs: Array
    start: Start

    def extra_batch(self, step: int, device: torch.device) -> None:
        return None

    def after_step(self, step: int, parameters: Mapping[str, torch.Tensor]) -> None:
        values = parameters[self.tensor][: len(self.signs)]
        values.copy_((values.abs() + 1e-3) * values.new_tensor(self.signs))

    def learned(self, answers: Answers) -> float:
        return 1.0

    def leaves(self) -> tuple[bytes, ...]:
        return ()


class ToyScheme:
    name = "toy-signs"
    version = 1
    reads: Source = "weights"
    settings = ToySigns
    options: ClassVar[Mapping[str, str]] = {}

    def fits(self, info: TicketInfo) -> bool:
        return True

    def require_room(
        self,
        claim: MarkClaim,
        binding: Binding,
        *,
        marked: Mask,
        reference: AnyReference,
        decided: Mapping[str, Positions],
    ) -> None:
        pass

    def secret_positions(self, claim: MarkClaim, binding: Binding, mask: Mask) -> Mapping[str, Positions]:
        return {}

    def examine(self, inquiry: Inquiry) -> Test:
        assert inquiry.weights is not None
        suspect, parameters = inquiry.weights, own_parameters(inquiry.mark)
        match parameters:
            case {"tensor": str(tensor), "count": int(count)} if len(parameters) == 2:
                signs = signs_of(inquiry.binding, count)
            case _:
                raise CredentialError("the claim's toy-signs has parameters that cannot be used")

        def test(threshold_log10_p: float) -> Evidence:
            if tensor not in suspect.names():
                raise UnverifiableError(f"the suspect has no tensor '{tensor}'")
            matches = int((np.sign(suspect.read(tensor)[:count]) == signs).sum())
            log10_p = float(binom.logsf(matches - 1, count, 0.5)) / math.log(10)
            return Evidence(
                mark=self.name,
                status=decide(log10_p, threshold_log10_p=threshold_log10_p, attainable_log10_p=-count * math.log10(2)),
                statistic="signs that are the owner's",
                observed=matches,
                expected=count / 2,
                log10_p=log10_p,
                threshold_log10_p=threshold_log10_p,
                details={"signs": count},
                assumptions=("the owner's key was drawn at random",),
            )

        return test

    def glance(self, inquiry: Inquiry, seen: Memory) -> None:
        return None


SCHEME = ToyScheme()
