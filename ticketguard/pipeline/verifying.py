"""Verify a suspect by a credential: every mark that can be read is tested, and one rule combines the results."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Sequence
from typing import TypeAlias

from ticketguard.checkpoints.checkpoints import Checkpoint
from ticketguard.credentials.claim import MarkClaim
from ticketguard.credentials.credential import Credential
from ticketguard.errors import (
    ConfigurationError,
    CredentialError,
    TicketguardError,
    UnknownVersionError,
    UnverifiableError,
)
from ticketguard.pipeline.ordinary import ControlsLike, ordinary_inputs
from ticketguard.predictors import Predictor
from ticketguard.predictors.patience import DEFAULT_PATIENCE_S, Note, Patience, say_nothing
from ticketguard.settings import STRICTEST_LEVEL_BITS, checked_level, require_kind
from ticketguard.verification.interface import SOURCES, Asked, Inquiry, Scheme, Source, Test
from ticketguard.verification.memory import Memory
from ticketguard.verification.registry import SCHEMES, journals_of, scheme, scheme_of
from ticketguard.verification.verdict import DEFAULT_LEVEL_BITS, Evidence, Unchecked, Verdict, conclude, level_log10
from ticketguard.verification.ways import FoundWays

# A mark of the claim, with what reads it.
Readable: TypeAlias = tuple[MarkClaim, Scheme]


def verify(
    suspect: Checkpoint | Predictor,
    credential: Credential,
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
    """Say whether *suspect* derives from the ticket that *credential* claims.

    Every mark of the claim that can be read from what is given is tested, and each test has to reach its share of the
    level (Bonferroni). One call is one verdict at the claim's level, however many tests it rests on. Two calls about
    one suspect are two verdicts at that level each: give all at once, or multiply the smaller p by the number of calls.

    Args:
        suspect: A checkpoint (white-box: tensors only, no model code is run) or a predictor (black-box: answers only).
        credential: The owner's claim and vault.
        answers: The same suspect as a predictor, where *suspect* is its checkpoint: weights and answers are both
            tested, and the verdict pays for all tests.
        owner_public_key: The Ed25519 key the claim must be signed by, 32 bytes; by default the claim's own.
        level_bits: The weakest level the verifier accepts: a claim may ask for more than 2^-level_bits, not for less.
        patience_s: Seconds that a predictor's faults may cost in all; what was answered when they end is judged.
        journal: A file for the answers, each written before the next question is put; one of an earlier call is
            resumed, its answers are final. It belongs to one claim and one predictor, known by its `target`. Of several
            marks that are read from answers each has its own, the later ones with the scheme added to the name.
        controls: Ordinary inputs as the model takes them and their labels, or a data set (its test examples), by name,
            path, import path or itself; asked where the triggers prove nothing. A suspect that answers them at the
            level of chance is inconclusive. They do not change p.
        thorough: Look on where the evidence is enough: weights are aligned too, and every trigger is asked. It makes p
            as small as it gets and never weakens a verdict: p is corrected for all readings either way. Of a large
            suspect all layers are compared, even where a few of them show nothing of the reference.
        note: Called with a line about every fault.

    Raises:
        CredentialError: Claim and vault do not belong together, or the claim is another owner's.
        ConfigurationError: What is given does not fit together.
        FileError: *journal* is of another claim or suspect, damaged, in use, or cannot be written.
        UnverifiableError: The claim has no mark for this kind of suspect, or they share no tensors.
        UnknownVersionError: Its marks are of a version that this release does not know.
        TicketguardError: The suspect cannot be read or does not answer, and no other test could be made.
    """
    _require_suspect(suspect)
    require_kind(credential, Credential, what="the credential", hint="tg.load_credential reads claim and vault")
    # 1. Claim and vault belong together.
    credential.check()
    return verdict_on(
        suspect,
        credential,
        answers=answers,
        owner_public_key=owner_public_key,
        level_bits=level_bits,
        patience_s=patience_s,
        journal=journal,
        controls=controls,
        thorough=thorough,
        note=note,
    )


def verdict_on(
    suspect: Checkpoint | Predictor,
    credential: Credential,
    *,
    answers: Predictor | None,
    owner_public_key: bytes | None,
    level_bits: int,
    patience_s: float,
    journal: str | os.PathLike[str] | None,
    controls: ControlsLike | None,
    thorough: bool,
    note: Note,
    memory: Memory | None = None,
) -> Verdict:
    """Do what `verify` does, by a credential whose `check` has passed; a *memory* keeps what is drawn from its secret.

    Raises:
        TicketguardError: As `verify`.
    """
    _require_suspect(suspect)
    predictor = answers if isinstance(suspect, Checkpoint) else suspect
    weights = suspect if isinstance(suspect, Checkpoint) else None
    if answers is not None and predictor is not answers:
        raise ConfigurationError("answers= goes with a checkpoint of weights: give a single predictor as the suspect")
    if predictor is None and (journal is not None or controls is not None):
        raise ConfigurationError(
            "a journal and controls go with a suspect that is asked for answers: give a predictor, or leave them out"
        )
    level_bits = checked_level(level_bits, most=STRICTEST_LEVEL_BITS)
    claim = credential.claim
    if owner_public_key is not None and owner_public_key != claim.owner_public_key:
        raise CredentialError(
            f"the claim is signed by key {claim.owner_public_key.hex()}, expected {owner_public_key.hex()}: it is "
            f"not this owner's claim, ask the owner for theirs"
        )
    # 2. The claim and what is given fix which tests there are, before anything of the suspect is read.
    given: dict[Source, str] = {}
    if weights is not None:
        given["weights"] = weights.label
    if predictor is not None:
        given["answers"] = predictor.target
    readable, unknown = marks_to_test(claim.marks, sources=list(given))
    tests = len(readable) + len(unknown)
    # Of the unknown ones too, or whoever picks the release would pick the level.
    strictest = max(level_bits, *(mark.level_bits for mark, _ in (*readable, *unknown)))
    patience = Patience(patience_s, note=note)
    journals = {} if journal is None else journals_of(claim.marks, journal)
    ways = FoundWays()
    with contextlib.ExitStack() as open_files:
        planned: list[tuple[MarkClaim, Test]] = []
        for mark, reader in readable:
            asked = None
            if predictor is not None:
                asked = Asked(
                    predictor=predictor,
                    patience=patience,
                    journal=journals.get(mark.scheme),
                    controls=None if controls is None else functools.partial(ordinary_inputs, controls),
                )
            inquiry = Inquiry(
                credential=credential,
                mark=mark,
                weights=weights,
                answers=asked,
                open_files=open_files,
                thorough=thorough,
                memory=memory,
                ways=ways,
            )
            planned.append((mark, reader.examine(inquiry)))
        # 3. Each test is made, at its share of the level.
        evidence, unchecked = _make_tests(planned, threshold_log10_p=level_log10(strictest, tests=tests))
    # 4. One of them is enough; "not supported" is only said where all were made and say so.
    unchecked = (*unchecked, *(Unchecked(mark=mark.scheme, reason=reason) for mark, reason in unknown))
    return Verdict(
        status=conclude(evidence, unchecked),
        suspect=" and ".join(given.values()),
        owner_name=claim.owner_name,
        owner_public_key=claim.owner_public_key.hex(),
        evidence=evidence,
        unchecked=unchecked,
    )


def _require_suspect(suspect: object) -> None:
    if not isinstance(suspect, Checkpoint) and not hasattr(suspect, "predict"):
        raise ConfigurationError(
            f"the suspect is of type {type(suspect).__name__}, expected a checkpoint or predictor: give tg.Checkpoint "
            "of a file or of weights, or a predictor such as tg.CallablePredictor"
        )


def marks_to_test(
    marks: Sequence[MarkClaim], *, sources: Sequence[Source]
) -> tuple[list[Readable], list[tuple[MarkClaim, str]]]:
    """Return the marks that are read from *sources*, those of one source after those of another, and the unknown ones.

    With an unknown mark goes the reason why it cannot be checked.

    What an unknown mark is read from is unknown too: it counts as a test, so that no release asks for less.

    Raises:
        UnverifiableError: One source has no mark to be read from it.
        UnknownVersionError: It only has marks of another version.
    """
    known: list[Readable] = []
    unknown: list[tuple[MarkClaim, str]] = []
    newer: dict[Source, UnknownVersionError] = {}
    for mark in marks:
        try:
            reader = scheme_of(mark)
        except UnknownVersionError as error:
            newer.setdefault(scheme(mark.scheme).reads, error)
            unknown.append((mark, str(error)))
            continue
        if reader is not None:
            known.append((mark, reader))
        else:
            reason = f"this release does not know this scheme, only {', '.join(SCHEMES)}: use a release that does"
            unknown.append((mark, reason))
    for source in sources:
        if not any(reader.reads == source for _, reader in known):
            if source in newer:
                raise newer[source]
            raise UnverifiableError(
                f"the claim has no mark that can be read from {source}; it has "
                + ", ".join(sorted(mark.scheme for mark in marks))
            )
    in_order = [source for source in SOURCES if source in sources]
    return [(mark, reader) for source in in_order for mark, reader in known if reader.reads == source], unknown


def _make_tests(
    planned: Sequence[tuple[MarkClaim, Test]], *, threshold_log10_p: float
) -> tuple[tuple[Evidence, ...], tuple[Unchecked, ...]]:
    """Make every test that can be made; a suspect that fails one of several does not take the others with it.

    Raises:
        TicketguardError: No test could be made, or claim and vault are at fault.
    """
    evidence: list[Evidence] = []
    failures: list[tuple[MarkClaim, TicketguardError]] = []
    for mark, test in planned:
        try:
            evidence.append(test(threshold_log10_p))
        except (CredentialError, ConfigurationError):
            raise
        except TicketguardError as error:
            failures.append((mark, error))
    if not evidence:
        if len(failures) == 1:
            raise failures[0][1]
        reasons = "; ".join(str(error) for _, error in failures)
        raise UnverifiableError(f"none of {len(failures)} tests could be made: {reasons}") from failures[0][1]
    return tuple(evidence), tuple(Unchecked(mark=mark.scheme, reason=str(error)) for mark, error in failures)
