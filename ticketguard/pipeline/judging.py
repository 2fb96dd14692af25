"""Many credentials and many suspects in one process: opened and checked once, and screened before they are verified."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.credentials.credential import Credential
from ticketguard.errors import ConfigurationError, CredentialError, UnknownVersionError, UnverifiableError, shortened
from ticketguard.pipeline.ordinary import ControlsLike
from ticketguard.pipeline.verifying import marks_to_test, verdict_on
from ticketguard.predictors import Predictor
from ticketguard.predictors.patience import DEFAULT_PATIENCE_S, Note, say_nothing
from ticketguard.settings import plain_number, require_kind
from ticketguard.verification.interface import Glance, Inquiry
from ticketguard.verification.memory import Memory
from ticketguard.verification.verdict import DEFAULT_LEVEL_BITS, Verdict

DEFAULT_MEMORY_BYTES = 2**28
# A first sight stands out where one unrelated credential in a thousand would, or where more of the reference is there
# than networks share that were trained alike on the same data (measured: decision 0081).
STANDS_OUT_LOG10_P, STANDS_OUT_LIKENESS = -3.0, 0.1
BY_NAME = "give them by name, such as {'claim.json': tg.load_credential(...)}"
Standing: TypeAlias = Literal["stands_out", "unclear", "unverifiable"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """One credential at first sight of a suspect. It is no verdict, and says nothing that may be reported as one.

    Attributes:
        credential_id: Which credential.
        standing: "stands_out" if the suspect as it is stored shows something of the mark or the reference; "unclear"
            if it shows nothing: it is unrelated, or a copy whose channels lie elsewhere; "unverifiable" if `verify`
            would raise an error.
        glance: What the mark that shows most shows; None if no mark has a quick look, or none can be read.
        reason: The error, if it is unverifiable.
    """

    credential_id: str
    standing: Standing
    glance: Glance | None
    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Screening:
    """Where to look first among many credentials.

    Choosing credentials by what a suspect shows is a search. Whoever then reports "the suspect derives from one of
    these tickets" has to pay for all that were screened: verify at `level_bits`, or multiply the smallest p by
    `screened`. A verdict for an owner who came with their own claim stands by itself, screened or not.

    Attributes:
        suspect: What was looked at.
        candidates: Every credential, the likeliest first.
    """

    suspect: str
    candidates: tuple[Candidate, ...]

    @property
    def screened(self) -> int:
        """How many credentials were looked at: the factor for whoever reports the best of them (Bonferroni)."""
        return len(self.candidates)

    def level_bits(self, level_bits: int = DEFAULT_LEVEL_BITS) -> int:
        """Return the level for verdicts of which one wrong one at 2^-*level_bits* may come of the whole screening."""
        return level_bits + math.ceil(math.log2(max(1, self.screened)))

    def worth_verifying(self, *, rebuilt: bool = False) -> tuple[str, ...]:
        """Return the credentials to verify the suspect by, the likeliest first.

        Args:
            rebuilt: Also those of which it shows nothing as it is stored. A thief can permute channels for free, and
                then only the alignment of a verification finds them.
        """
        standings = ("stands_out", "unclear") if rebuilt else ("stands_out",)
        return tuple(found.credential_id for found in self.candidates if found.standing in standings)


class Judge:
    """Credentials that are opened and checked once, for many suspects.

    Holds the vaults, so it is as secret as they are. What is drawn from the secrets is kept up to a limit.

    Args:
        credentials: By any name, such as the claim file's.
        memory_bytes: How much of what is drawn from secrets and references is kept; and, while a suspect is screened,
            how much of the suspect.

    Raises:
        ConfigurationError: There are no credentials, or they are not credentials by name.
        CredentialError: A claim and its vault do not belong together; the message names the credential.
        FileError, UnknownVersionError, TensorError: A vault's reference cannot be read.
    """

    def __init__(self, credentials: Mapping[str, Credential], *, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        require_kind(credentials, Mapping, what="the credentials", hint=BY_NAME)
        if not credentials:
            raise ConfigurationError(f"there are no credentials, expected one or more: {BY_NAME}")
        self._memory_bytes = int(plain_number(memory_bytes, what="memory_bytes", whole=True))
        if self._memory_bytes < 0:
            raise ConfigurationError(f"memory_bytes is {memory_bytes}, expected 0 or more")
        for name, credential in credentials.items():
            require_kind(
                credential, Credential, what=f"credential {name!r}", hint="tg.load_credential reads claim and vault"
            )
            try:
                credential.check()
            except CredentialError as error:
                raise CredentialError(f"credential {name!r}: {error}") from error
        self._credentials = MappingProxyType(dict(credentials))
        self._memory = Memory(limit_bytes=self._memory_bytes)

    @property
    def credentials(self) -> Mapping[str, Credential]:
        """The credentials, by name."""
        return self._credentials

    def verify(
        self,
        suspect: Checkpoint | Predictor,
        credential_id: str,
        *,
        answers: Predictor | None = None,
        owner_public_key: bytes | None = None,
        level_bits: int = DEFAULT_LEVEL_BITS,
        patience_s: float = DEFAULT_PATIENCE_S,
        journal: str | os.PathLike[str] | None = None,
        controls: ControlsLike | None = None,
        thorough: bool = False,
        note: Note = say_nothing,
    ) -> Verdict:
        """Return the verdict that `ticketguard.verify` returns for this credential, number for number.

        It is one verdict at the claim's level, whatever other credentials there are; for the best of many see
        `Screening`. All arguments but the credential's name are those of `ticketguard.verify`.

        Raises:
            ConfigurationError: There is no such credential.
            TicketguardError: As `ticketguard.verify`.
        """
        return verdict_on(
            suspect,
            self._credential(credential_id),
            answers=answers,
            owner_public_key=owner_public_key,
            level_bits=level_bits,
            patience_s=patience_s,
            journal=journal,
            controls=controls,
            thorough=thorough,
            note=note,
            memory=self._memory,
        )

    def screen(self, suspect: Checkpoint) -> Screening:
        """Say by which credentials a checkpoint is worth verifying, and in which order. It is no verdict.

        Each is looked at as the suspect is stored, in one reading: a few milliseconds where the alignment of a
        verification takes seconds.

        Raises:
            ConfigurationError: The suspect is not a checkpoint.
            FileError: The file is gone or has changed.
        """
        require_kind(suspect, Checkpoint, what="the suspect", hint="tg.Checkpoint reads a file or weights")
        seen = Memory(limit_bytes=self._memory_bytes)
        found = [self._at_first_sight(suspect, name, seen) for name in self._credentials]
        return Screening(suspect=suspect.label, candidates=tuple(sorted(found, key=_order)))

    def _at_first_sight(self, suspect: Checkpoint, name: str, seen: Memory) -> Candidate:
        credential = self._credentials[name]
        with contextlib.ExitStack() as open_files:
            try:
                readable, _ = marks_to_test(credential.claim.marks, sources=["weights"])
                glances = [
                    reader.glance(
                        Inquiry(
                            credential=credential,
                            mark=mark,
                            weights=suspect,
                            answers=None,
                            open_files=open_files,
                            memory=self._memory,
                        ),
                        seen,
                    )
                    for mark, reader in readable
                ]
            except (CredentialError, UnverifiableError, UnknownVersionError) as error:
                return Candidate(credential_id=name, standing="unverifiable", glance=None, reason=str(error))
        best = min((glance for glance in glances if glance is not None), key=_strength, default=None)
        return Candidate(credential_id=name, standing=_standing(best), glance=best)

    def _credential(self, name: str) -> Credential:
        if name not in self._credentials:
            known = ", ".join(map(repr, list(self._credentials)[:8]))
            raise ConfigurationError(f"there is no credential {shortened(name)}, expected one of {known}")
        return self._credentials[name]


def _standing(glance: Glance | None) -> Standing:
    if glance is None:
        return "unclear"
    stands_out = glance.log10_p <= STANDS_OUT_LOG10_P or glance.likeness >= STANDS_OUT_LIKENESS
    return "stands_out" if stands_out else "unclear"


def _strength(glance: Glance) -> tuple[float, float]:
    return glance.log10_p, -glance.likeness


def _order(candidate: Candidate) -> tuple[int, tuple[float, float]]:
    rank = ("stands_out", "unclear", "unverifiable").index(candidate.standing)
    return rank, (0.0, 0.0) if candidate.glance is None else _strength(candidate.glance)
