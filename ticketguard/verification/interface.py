"""What the verifier asks of a scheme: settings, room, and a test of a suspect."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.credentials.claim import MarkClaim
from ticketguard.credentials.credential import GROUPS_PARAMETER, Credential
from ticketguard.embedding.interface import Binding, Json, Mark, Positions
from ticketguard.errors import CredentialError
from ticketguard.graph import ChannelGroup, check_fit, groups_from_json
from ticketguard.predictors import Predictor
from ticketguard.predictors.patience import Patience
from ticketguard.ticket import AnyReference, Mask, TicketInfo
from ticketguard.verification.controls import Controls, Task
from ticketguard.verification.memory import Memory
from ticketguard.verification.verdict import Evidence
from ticketguard.verification.ways import FoundWays, Way

# What of a suspect a mark is read from.
Source: TypeAlias = Literal["weights", "answers"]
SOURCES: tuple[Source, ...] = ("weights", "answers")
# One test of a suspect, ready to be made: takes the log10 p that it must reach.
Test: TypeAlias = Callable[[float], Evidence]


def own_parameters(mark: MarkClaim) -> dict[str, Json]:
    """Return what a claim says for the scheme of *mark* to read; the rest is for all schemes alike."""
    return {name: value for name, value in mark.parameters.items() if name != GROUPS_PARAMETER}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A suspect that is asked for answers, and on what terms.

    Attributes:
        predictor: What is asked.
        patience: What its faults may cost, all tests together.
        journal: File for the answers; None to keep none.
        controls: Makes ordinary inputs of the task that a claim names; None to ask none.
    """

    predictor: Predictor
    patience: Patience
    journal: Path | None = None
    controls: Callable[[Task], Controls] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inquiry:
    """A suspect, and the mark to be looked for in it.

    Attributes:
        credential: The owner's, whose commitments were checked.
        mark: What its claim says about the mark.
        weights: The suspect's checkpoint, if it is given.
        answers: The suspect as a predictor, if it is given.
        open_files: Closes what a test opened, after the verdict.
        thorough: Whether to look on where the evidence is enough, for the strongest there is.
        memory: Keeps what is drawn from the owner's secret for the next suspect; None to draw it each time.
        ways: Keeps how the weights are read, for other marks of the same verdict; by default for this one alone.
    """

    credential: Credential
    mark: MarkClaim
    weights: Checkpoint | None
    answers: Asked | None
    open_files: contextlib.ExitStack
    thorough: bool = False
    memory: Memory | None = None
    ways: FoundWays = dataclasses.field(default_factory=FoundWays)

    @property
    def binding(self) -> Binding:
        """What every draw of the mark is a function of."""
        return Binding(secret=self.credential.vault.secret, commitment=self.mark.commitment)

    def bound_groups(self, mask: Mask) -> Sequence[ChannelGroup]:
        """Return the vault's channel groups of *mask*'s layers if the commitment binds them, else none.

        Groups that it does not bind could be made to steer an alignment.

        Raises:
            CredentialError: They are malformed.
        """
        if GROUPS_PARAMETER not in self.mark.parameters:
            return ()
        try:
            groups = groups_from_json(self.credential.vault.channel_groups)
            check_fit(groups, {name: mask[name].shape for name in mask})
        except ValueError as error:
            raise CredentialError(
                f"the vault's channel groups are malformed ({error}): use another copy of it"
            ) from error
        return [group for group in groups if any(member.tensor in mask.layers for member in group)]

    def way_to_read(self) -> Way:
        """Return the way to read the suspect's weights in which they resemble what the commitment binds most.

        Raises:
            UnverifiableError: They share no layer that can be read, or too many networks fit.
            CredentialError: The vault's channel groups are malformed.
            FileError: The file is gone or has changed.
        """
        assert self.weights is not None
        reference = self.credential.reference
        return self.ways.likeliest(
            self.weights,
            reference,
            self.bound_groups(reference.mask),
            reference_digest=self.credential.reference_digest,
            thorough=self.thorough,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Glance:
    """What a mark shows at first sight, as the suspect is stored. It decides nothing: a thief can hide a copy from it.

    Attributes:
        log10_p: Of one count that is fixed beforehand, an upper bound; 0 where nothing could be counted.
        likeness: Share of what the suspect could have of the reference that it has, beyond chance; at most 1, and about
            0 for an unrelated suspect.
    """

    log10_p: float
    likeness: float


class Scheme(Protocol):
    """A kind of mark: how it is set up, what it needs, and how it is found again."""

    @property
    def name(self) -> str:
        """Its name in claims."""
        ...

    @property
    def version(self) -> int:
        """The version that this release writes and reads."""
        ...

    @property
    def reads(self) -> Source:
        """What of a suspect it is read from."""
        ...

    @property
    def settings(self) -> type[Mark]:
        """The frozen dataclass of a mark's settings, each with a default; an instance is the mark."""
        ...

    @property
    def options(self) -> Mapping[str, str]:
        """Settings that have an option of their own on the command line: name of the option → name of the field."""
        ...

    def fits(self, info: TicketInfo) -> bool:
        """Say whether a ticket states everything that this mark needs."""
        ...

    def require_room(
        self,
        claim: MarkClaim,
        binding: Binding,
        *,
        marked: Mask,
        reference: AnyReference,
        decided: Mapping[str, Positions],
    ) -> None:
        """Refuse a mark that an untouched copy could not prove at the claim's level.

        Args:
            claim: What the claim will say about the mark.
            binding: What it is drawn from.
            marked: The mask that it is in.
            reference: What the commitment binds: the unmarked ticket, or start weights.
            decided: Per layer the flat positions that other marks decide, as `DecidingScheme` has them.

        Raises:
            CapacityError, ConfigurationError: It could not.
        """
        ...

    def secret_positions(self, claim: MarkClaim, binding: Binding, mask: Mask) -> Mapping[str, Positions]:
        """Return, per layer of the reference's *mask*, the secret positions that a picture may show to the owner.

        None for a mark that is not in the mask.

        Raises:
            CredentialError: The claim's parameters cannot be used.
        """
        ...

    def examine(self, inquiry: Inquiry) -> Test:
        """Check what is given, and return the test; nothing of the suspect is read before the test is made.

        Raises:
            CredentialError: The claim's parameters cannot be used.
            ConfigurationError, FileError: Something that was given beside the suspect cannot be.
        """
        ...

    def glance(self, inquiry: Inquiry, seen: Memory) -> Glance | None:
        """Take a quick look at the suspect, without any search; None for a mark that has no quick look.

        Args:
            inquiry: The suspect, and the mark to be looked for.
            seen: Keeps what is read of this suspect for the next credential.

        Raises:
            UnverifiableError: The test could not be made either.
            CredentialError: The claim's parameters cannot be used.
            FileError: The file is gone or has changed.
        """
        ...


@runtime_checkable
class DecidingScheme(Scheme, Protocol):
    """A scheme whose marks need given positions: other marks leave these as they are, and out of what they count."""

    def decided_positions(self, claim: MarkClaim, binding: Binding, mask: Mask) -> Mapping[str, Positions]:
        """Return, per layer of the reference's *mask*, the flat positions that its mark decides, ascending.

        They must be drawn from the mark's own secret and commitment, and so be independent of all other marks.

        Raises:
            CredentialError: The claim's parameters cannot be used.
        """
        ...
