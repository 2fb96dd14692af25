"""Judge a suspect by a credential."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ticketguard.credentials.claim import MarkClaim
from ticketguard.credentials.credential import GROUPS_PARAMETER, Credential
from ticketguard.credentials.merkle import merkle_root
from ticketguard.embedding import planted_graph, trigger_set
from ticketguard.embedding.interface import Binding
from ticketguard.errors import (
    ConfigurationError,
    CredentialError,
    TicketguardError,
    UnknownVersionError,
    UnverifiableError,
)
from ticketguard.graph import ChannelGroup, check_fit, groups_from_json
from ticketguard.pipeline.examining import examine_networks
from ticketguard.pipeline.ordinary import ControlsLike, ordinary_inputs
from ticketguard.plan import DEFAULT_LEVEL_BITS
from ticketguard.suspects.checkpoints import Checkpoint
from ticketguard.suspects.predictors import Predictor
from ticketguard.suspects.predictors.patience import DEFAULT_PATIENCE_S, Note, Patience, say_nothing
from ticketguard.ticket import Mask, Reference
from ticketguard.verification.journal import Questioned, open_journal
from ticketguard.verification.trigger_set import Witness, interrogate
from ticketguard.verification.verdict import Evidence, Unchecked, Verdict, conclude, level_log10

# The schemes this release verifies, with the version of each.
KNOWN_VERSIONS = {planted_graph.SCHEME: planted_graph.VERSION, trigger_set.SCHEME: trigger_set.VERSION}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Test:
    """One planned test of a suspect.

    Attributes:
        mark: The mark that it looks for.
        suspect: What is examined, as verdicts name it.
        run: Makes the test, given what it must reach.
    """

    mark: MarkClaim
    suspect: str
    run: Callable[[float], Evidence]


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
    note: Note = say_nothing,
) -> Verdict:
    """Say whether *suspect* derives from the ticket that *credential* claims.

    One call is one verdict at the claim's level, whether it rests on one test or on two. Two calls about one suspect
    are two tests at that level each: give both at once, or multiply the smaller p by the number of calls.

    Args:
        suspect: A checkpoint (white-box: tensors only, no model code is run) or a predictor (black-box: answers only).
        credential: The owner's claim and vault.
        answers: The same suspect as a predictor, where *suspect* is its checkpoint: weights and answers are both
            tested, and the verdict pays for two tests.
        owner_public_key: The Ed25519 key the claim must be signed by, 32 bytes; by default the claim's own.
        level_bits: The weakest level the verifier accepts: a claim may ask for more than 2^-level_bits, not for less.
        patience_s: Seconds that a predictor's faults may cost in all; what was answered when they end is judged.
        journal: A file for the answers, each written before the next question is put; one of an earlier call is
            resumed, its answers are final. It belongs to one claim and one predictor, known by its `target`.
        controls: Ordinary inputs as the model takes them and their labels, or a data set (its test examples), by name,
            path, import path or itself; asked where the triggers prove nothing. A suspect that answers them at the
            level of chance is inconclusive. They do not change p.
        note: Is told of every fault, in a line.

    Raises:
        CredentialError: Claim and vault do not belong together, or the claim is another owner's.
        ConfigurationError: What is given does not fit together.
        FileError: *journal* is of another claim or suspect, damaged, in use, or cannot be written.
        UnverifiableError: The claim has no mark for this kind of suspect, or they share no tensors.
        TicketguardError: The suspect cannot be read or does not answer, and no other test could be made.
    """
    predictor = answers if isinstance(suspect, Checkpoint) else suspect
    if answers is not None and predictor is not answers:
        raise ConfigurationError("answers come beside a checkpoint of weights: give one predictor, as the suspect")
    if predictor is None and (journal is not None or controls is not None):
        raise ConfigurationError("a journal and controls are for a suspect that is asked for answers: give one")
    credential.check()
    claim = credential.claim
    if owner_public_key is not None and owner_public_key != claim.owner_public_key:
        raise CredentialError(
            f"the claim is signed by key {claim.owner_public_key.hex()}, expected {owner_public_key.hex()}: "
            "it is not this owner's claim"
        )
    patience = Patience(patience_s, note=note)
    with contextlib.ExitStack() as open_files:
        # The number of tests is fixed here, before anything of the suspect is read.
        planned: list[_Test] = []
        if isinstance(suspect, Checkpoint):
            planned.append(_plan_weights(suspect, credential))
        if predictor is not None:
            path = None if journal is None else Path(journal)
            planned.append(_plan_answers(predictor, credential, patience, path, controls, open_files))
        strictest = max(level_bits, *(test.mark.level_bits for test in planned))
        evidence, unchecked = _make_tests(planned, threshold_log10_p=level_log10(strictest, tests=len(planned)))
    return Verdict(
        status=conclude(evidence, unchecked),
        suspect=" and ".join(test.suspect for test in planned),
        owner_name=claim.owner_name,
        owner_public_key=claim.owner_public_key.hex(),
        evidence=evidence,
        unchecked=unchecked,
    )


def _mark(credential: Credential, scheme: str) -> MarkClaim:
    """Return the claim's mark of *scheme*.

    Raises:
        UnverifiableError: The claim has none.
        UnknownVersionError: It has one of a version that this release does not verify.
    """
    marks = {mark.scheme: mark for mark in credential.claim.marks}
    if scheme not in marks:
        raise UnverifiableError(
            f"the claim has no {scheme}, which this kind of suspect needs; it has {', '.join(sorted(marks))}"
        )
    mark = marks[scheme]
    if mark.version != KNOWN_VERSIONS[scheme]:
        raise UnknownVersionError(
            what=f"the claim's {scheme}", found=mark.version, known=(str(KNOWN_VERSIONS[scheme]),)
        )
    return mark


def _plan_weights(suspect: Checkpoint, credential: Credential) -> _Test:
    mark = _mark(credential, planted_graph.SCHEME)
    return _Test(mark=mark, suspect=suspect.label, run=functools.partial(_examine_weights, suspect, credential, mark))


def _plan_answers(
    suspect: Predictor,
    credential: Credential,
    patience: Patience,
    path: Path | None,
    given: ControlsLike | None,
    open_files: contextlib.ExitStack,
) -> _Test:
    mark = _mark(credential, trigger_set.SCHEME)
    recipe = trigger_set.TriggerRecipe.from_json(mark.parameters)
    controls = None if given is None else ordinary_inputs(given, recipe)
    questioned = Questioned(
        commitment=mark.commitment.hex(),
        trigger_root="" if mark.merkle_root is None else mark.merkle_root.hex(),
        suspect=suspect.target,
    )
    journal = open_files.enter_context(open_journal(path, questioned, classes=recipe.classes))
    witness = Witness(predictor=suspect, classes=recipe.classes, patience=patience)

    def run(threshold_log10_p: float) -> Evidence:
        triggers = _draw_triggers(credential, mark, recipe)
        return interrogate(witness, triggers, journal, threshold_log10_p=threshold_log10_p, controls=controls)

    return _Test(mark=mark, suspect=suspect.target, run=run)


def _make_tests(
    planned: Sequence[_Test], *, threshold_log10_p: float
) -> tuple[tuple[Evidence, ...], tuple[Unchecked, ...]]:
    """Make every test that can be made; a suspect that fails one of several does not take the others with it.

    Raises:
        TicketguardError: No test could be made, or claim and vault are at fault.
    """
    evidence: list[Evidence] = []
    failures: list[tuple[_Test, TicketguardError]] = []
    for test in planned:
        try:
            evidence.append(test.run(threshold_log10_p))
        except (CredentialError, ConfigurationError):
            raise
        except TicketguardError as error:
            failures.append((test, error))
    if not evidence:
        if len(failures) == 1:
            raise failures[0][1]
        reasons = "; ".join(str(error) for _, error in failures)
        raise UnverifiableError(f"none of {len(failures)} tests could be made: {reasons}") from failures[0][1]
    return tuple(evidence), tuple(Unchecked(mark=test.mark.scheme, reason=str(error)) for test, error in failures)


def _examine_weights(
    suspect: Checkpoint, credential: Credential, mark: MarkClaim, threshold_log10_p: float
) -> Evidence:
    reference = Reference.from_bytes(credential.vault.reference)
    return examine_networks(
        suspect,
        reference,
        Binding(secret=credential.vault.secret, commitment=mark.commitment),
        planted_graph.PlantedParameters.from_json(mark.parameters),
        groups=_bound_groups(credential, mark, reference.mask),
        threshold_log10_p=threshold_log10_p,
    )


def _bound_groups(credential: Credential, mark: MarkClaim, mask: Mask) -> Sequence[ChannelGroup]:
    """Return the vault's channel groups of *mask*'s layers if the commitment binds them.

    Groups that it does not bind could be made to steer an alignment.
    """
    if GROUPS_PARAMETER not in mark.parameters:
        return ()
    try:
        groups = groups_from_json(credential.vault.channel_groups)
        check_fit(groups, {name: mask[name].shape for name in mask})
        return [group for group in groups if any(member.tensor in mask.layers for member in group)]
    except ValueError as error:
        raise CredentialError(f"the vault's channel groups are malformed ({error}): use another copy of it") from error


def _draw_triggers(credential: Credential, mark: MarkClaim, recipe: trigger_set.TriggerRecipe) -> trigger_set.Triggers:
    binding = Binding(secret=credential.vault.secret, commitment=mark.commitment)
    triggers = trigger_set.draw_triggers(binding, recipe)
    if merkle_root(triggers.leaves()) != mark.merkle_root:
        raise CredentialError(
            "the vault's triggers do not have the claim's Merkle root: the claim was not made from it"
        )
    return triggers
