"""Black-box verification: does the suspect answer the owner's triggers with the owner's labels?

1. Draw triggers and labels from (secret, C); check them against the claim's Merkle root.
2. Ask one trigger at a time and feed each match or miss to the e-process; an answer that is not a prediction is a miss.
3. Stop as soon as it reaches the claim's level (unless the strongest evidence is wanted), when the triggers are used
   up, or when no more answers come.
4. Before saying "not supported", look for reasons why an intact copy might have gone undetected: a questioning that was
cut
   short, unusable answers, one answer to everything, ordinary inputs answered at chance.

Each label is independent and uniform, so whatever an unrelated suspect does, a constant answer included, it matches
with probability 1/classes, and the e-process holds at any stopping time: no matter who ends the questioning, and why.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ticketguard.credentials.claim import MarkClaim
from ticketguard.credentials.merkle import merkle_root
from ticketguard.embedding import trigger_set
from ticketguard.embedding.interface import Binding, Positions
from ticketguard.embedding.trigger_set import PARTS, TriggerRecipe, Triggers, TriggerSet, draw_triggers
from ticketguard.errors import ConfigurationError, CredentialError, FileError, PredictorError, UnusableAnswerError
from ticketguard.predictors import Predictor
from ticketguard.predictors.patience import Patience
from ticketguard.ticket import AnyReference, FloatArray, Mask, TicketInfo
from ticketguard.verification.controls import Controls, Task
from ticketguard.verification.interface import Inquiry, Source, Test, own_parameters
from ticketguard.verification.journal import Answer, Journal, Questioned, open_journal
from ticketguard.verification.memory import Memory
from ticketguard.verification.statistics import EProcess
from ticketguard.verification.verdict import Evidence, decide, level_log10

ASSUMPTIONS = (
    "the owner's key was drawn at random and the claim's commitment binds it to the reference",
    "the suspect was not made with knowledge of this key, unless it derives from the marked ticket",
    "the answers came from the accused model: who controls the endpoint is for the auditor to establish",
    "a claimant who tries 2^k keys buys a factor of 2^k, which the level allows for",
)
# After so many unusable answers and no usable one, the suspect is being asked in the wrong way.
MOST_UNUSABLE_AT_FIRST = 5


def attainable_log10_p(*, triggers: int, classes: int) -> float:
    """Return log10 p of a suspect that answers all *triggers* with their labels."""
    return -EProcess(chance=1.0 / classes, queries=triggers, matches=triggers).log10_e


@dataclasses.dataclass(frozen=True, kw_only=True)
class Witness:
    """A suspect under questioning.

    Attributes:
        predictor: What is asked.
        classes: Number of classes that an answer must have.
        patience: What faults may cost.
    """

    predictor: Predictor
    classes: int
    patience: Patience

    def answer(self, inputs: FloatArray) -> int:
        """Ask one input of shape input_shape.

        Raises:
            UnusableAnswerError: The answer is not a prediction.
            PredictorError: There is no answer.
        """
        return self.patience.ask(self.predictor, inputs[None], classes=self.classes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Course:
    """How the questioning went.

    Attributes:
        process: The e-process after the last answer.
        log10_p: log10 of 1 / its largest value so far.
        stopped: Why the triggers were not used up though the level was not reached; None if they were.
    """

    process: EProcess
    log10_p: float
    stopped: str | None


def interrogate(
    witness: Witness,
    triggers: Triggers,
    journal: Journal,
    *,
    threshold_log10_p: float,
    controls: Controls | None,
    thorough: bool = False,
) -> Evidence:
    """Question *witness* until the evidence is enough, the triggers are used up, or no more answers come.

    Args:
        witness: The suspect.
        triggers: The owner's triggers, asked in their order.
        journal: The answers so far, which are final; every new one is added.
        threshold_log10_p: What a supported claim needs 1/e to be.
        controls: Ordinary inputs to ask where the triggers prove nothing.
        thorough: Ask on where the evidence is enough.

    Raises:
        PredictorError: The suspect never gave an answer that could be used.
    """
    enough_log10_p = -math.inf if thorough else threshold_log10_p
    course = _ask_triggers(witness, triggers, journal, enough_log10_p=enough_log10_p)
    answers = journal.triggers[: course.process.queries]
    attainable = attainable_log10_p(triggers=len(triggers.labels), classes=witness.classes)
    status = decide(course.log10_p, threshold_log10_p=threshold_log10_p, attainable_log10_p=attainable)
    doubts = [] if status == "supported" else _doubts(answers, course.stopped)
    ordinary, stopped = _Ordinary(), course.stopped
    if status == "not_supported" and not doubts and controls is not None:
        ordinary = _ask_controls(witness, controls, journal)
        doubts, stopped = ordinary.doubts, ordinary.stopped
    return Evidence(
        mark=trigger_set.SCHEME,
        # "Not supported" is said only where an intact copy would have been detected.
        status="inconclusive" if doubts else status,
        statistic="answers that match the owner's trigger labels",
        observed=course.process.matches,
        expected=course.process.queries / witness.classes,
        log10_p=course.log10_p,
        threshold_log10_p=threshold_log10_p,
        details={
            "queries": course.process.queries,
            "triggers": len(triggers.labels),
            "read_to_the_end": course.process.queries == len(triggers.labels),
            "classes": witness.classes,
            "log10_e": course.process.log10_e,
            "attainable_log10_p": attainable,
            "distinct_answers": len({answer for answer in answers if answer is not None}),
            "unusable_answers": answers.count(None),
            "answers_from_journal": min(journal.resumed, len(answers)),
            "stopped": stopped,
            "ordinary_inputs": ordinary.outcome,
            "doubts": doubts,
        },
        assumptions=ASSUMPTIONS,
    )


def _ask_triggers(witness: Witness, triggers: Triggers, journal: Journal, *, enough_log10_p: float) -> _Course:
    process = EProcess(chance=1.0 / witness.classes)
    strongest = 0.0
    stopped: str | None = None
    for index, (inputs, label) in enumerate(zip(triggers.each_input(), triggers.labels, strict=True)):
        try:
            if index == len(journal.triggers):
                _ask_next(witness, inputs, journal)
        except (PredictorError, FileError) as error:
            if not journal.has_usable:
                raise
            stopped = f"after {len(journal.triggers)} of {len(triggers.labels)} triggers, because {error}"
        if index == len(journal.triggers):
            break
        process = process.observe(journal.triggers[index] == int(label))
        strongest = max(strongest, process.log10_e)
        if -strongest <= enough_log10_p:
            return _Course(process=process, log10_p=-strongest, stopped=None)
        if stopped is not None:
            break
    return _Course(process=process, log10_p=-strongest, stopped=stopped)


def _ask_next(witness: Witness, inputs: FloatArray, journal: Journal) -> None:
    try:
        answer: Answer = witness.answer(inputs)
    except UnusableAnswerError:
        # Never a match: garbage cannot help a claimant, and asking again for something better would be choosing.
        answer = None
        if len(journal.triggers) + 1 >= MOST_UNUSABLE_AT_FIRST and not journal.has_usable:
            raise
    journal.add_trigger(answer)


def _doubts(answers: Sequence[Answer], stopped: str | None) -> list[str]:
    """Return the reasons why an intact copy might have gone undetected."""
    doubts = []
    if stopped is not None:
        doubts.append("the questioning was cut short")
    if unusable := sum(answer is None for answer in answers):
        doubts.append(f"{unusable} of {len(answers)} answers were not predictions")
    if len({answer for answer in answers if answer is not None}) == 1:
        doubts.append("every answer was the same class: it did not depend on the input")
    return doubts


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ordinary:
    """What came of the ordinary inputs.

    Attributes:
        outcome: As evidence reports it.
        doubts: What they raise.
        stopped: Why they were not all asked; None if they were, or were not to be.
    """

    outcome: dict[str, Any] | str = "not asked"
    doubts: list[str] = dataclasses.field(default_factory=list)
    stopped: str | None = None


def _ask_controls(witness: Witness, controls: Controls, journal: Journal) -> _Ordinary:
    answers: list[Answer] = []
    for inputs in controls.inputs:
        digest = hashlib.sha256(inputs.tobytes()).hexdigest()
        try:
            if digest not in journal.controls:
                journal.add_control(digest, _answer_or_none(witness, inputs))
        except (PredictorError, FileError) as error:
            stopped = f"after {len(answers)} of {len(controls.labels)} ordinary inputs, because {error}"
            return _Ordinary(outcome="cut short", doubts=["the questioning was cut short"], stopped=stopped)
        answers.append(journal.controls[digest])
    found = controls.describe(answers)
    if found["above_chance"]:
        return _Ordinary(outcome=found)
    doubt = (
        f"{found['right']} of {found['asked']} ordinary inputs were answered correctly, no more than chance "
        f"explains: this may be another task, other preprocessing, another order of classes, or a server that evades"
    )
    return _Ordinary(outcome=found, doubts=[doubt])


def _answer_or_none(witness: Witness, inputs: FloatArray) -> Answer:
    try:
        return witness.answer(inputs)
    except UnusableAnswerError:
        return None


class _TriggerSetScheme:
    """The trigger set, as `ticketguard.verification.interface.Scheme` has it."""

    name = trigger_set.SCHEME
    version = trigger_set.VERSION
    reads: Source = "answers"
    settings = TriggerSet
    options: ClassVar[Mapping[str, str]] = {"triggers": "count"}

    def fits(self, info: TicketInfo) -> bool:
        return info.classes >= 2 and len(info.input_shape) in (1, 3)

    def require_room(
        self,
        claim: MarkClaim,
        binding: Binding,
        *,
        marked: Mask,
        reference: AnyReference,
        decided: Mapping[str, Positions],
    ) -> None:
        """Refuse fewer triggers than it takes to prove ownership if every one is answered.

        Raises:
            ConfigurationError: They are too few for the level.
        """
        recipe = TriggerRecipe.from_json(own_parameters(claim))
        threshold = level_log10(claim.level_bits)
        needed = next(
            count
            for count in itertools.count(recipe.count)
            if attainable_log10_p(triggers=count, classes=recipe.classes) <= threshold
        )
        if recipe.count < needed:
            raise ConfigurationError(
                f"trigger set: {recipe.count} triggers of {recipe.classes} classes cannot reach "
                f"2^-{claim.level_bits} even if all are answered: use {needed} or more, three times as many to allow "
                f"for fine-tuned copies"
            )

    def secret_positions(self, claim: MarkClaim, binding: Binding, mask: Mask) -> Mapping[str, Positions]:
        return {}

    def examine(self, inquiry: Inquiry) -> Test:
        assert inquiry.answers is not None
        asked, mark = inquiry.answers, inquiry.mark
        recipe = TriggerRecipe.from_json(own_parameters(mark))
        controls = None if asked.controls is None else asked.controls(_task(recipe))
        questioned = Questioned(
            commitment=mark.commitment.hex(),
            trigger_root="" if mark.merkle_root is None else mark.merkle_root.hex(),
            suspect=asked.predictor.target,
        )
        journal = inquiry.open_files.enter_context(open_journal(asked.journal, questioned, classes=recipe.classes))
        witness = Witness(predictor=asked.predictor, classes=recipe.classes, patience=asked.patience)

        def test(threshold_log10_p: float) -> Evidence:
            triggers = draw_triggers(inquiry.binding, recipe)
            if merkle_root(triggers.leaves()) != mark.merkle_root:
                raise CredentialError(
                    "the vault's triggers do not have the claim's Merkle root: the claim was not made from this vault"
                )
            return interrogate(
                witness,
                triggers,
                journal,
                threshold_log10_p=threshold_log10_p,
                controls=controls,
                thorough=inquiry.thorough,
            )

        return test

    def glance(self, inquiry: Inquiry, seen: Memory) -> None:
        return None  # every answer that is asked for is evidence, and may cost


def _task(recipe: TriggerRecipe) -> Task:
    mean, std = (tuple(part / PARTS for part in parts) for parts in (recipe.mean_ppm, recipe.std_ppm))
    return Task(input_shape=recipe.input_shape, classes=recipe.classes, mean=mean, std=std)


SCHEME = _TriggerSetScheme()
