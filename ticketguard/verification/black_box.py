"""Black-box verification: does the suspect answer the owner's triggers with the owner's labels?

1. Draw triggers and labels from (secret, C); check them against the claim's Merkle root.
2. Ask one trigger at a time and feed each match or miss to the e-process.
3. Stop as soon as it reaches the claim's level, or when the triggers are used up.

Each label is independent and uniform, so whatever an unrelated suspect does, a constant answer included, it matches
with probability 1/classes, and the e-process holds at any stopping time.
"""

from __future__ import annotations

from ticketguard.embedding.trigger_set import SCHEME, Triggers
from ticketguard.suspects.predictors import Predictor
from ticketguard.verification.statistics import EProcess
from ticketguard.verification.verdict import Evidence, decide

ASSUMPTIONS = (
    "the owner's key was drawn at random and the claim's commitment binds it to the reference",
    "the suspect was not made with knowledge of this key, unless it derives from the marked ticket",
    "the answers came from the suspect that is accused: who controls the endpoint is for the auditor to establish",
    "a claimant who tries 2^k keys buys a factor of 2^k, which the level allows for",
)


def attainable_log10_p(*, triggers: int, classes: int) -> float:
    """Return log10 p of a suspect that answers all *triggers* with their labels."""
    return -EProcess(chance=1.0 / classes, queries=triggers, matches=triggers).log10_e


def interrogate(predictor: Predictor, triggers: Triggers, *, threshold_log10_p: float) -> Evidence:
    """Query *predictor* until the evidence is enough or the triggers are used up.

    Args:
        predictor: The suspect.
        triggers: The owner's triggers.
        threshold_log10_p: What a supported claim needs 1/e to be.

    Raises:
        PredictorError: The suspect does not answer, or answers something that is no prediction.
    """
    classes = triggers.recipe.classes
    process = EProcess(chance=1.0 / classes)
    strongest = 0.0
    answers: list[int] = []
    for inputs, label in zip(triggers.inputs(), triggers.labels, strict=True):
        answers.append(predictor.predict(inputs[None], classes=classes))
        process = process.observe(answers[-1] == int(label))
        strongest = max(strongest, process.log10_e)
        if -strongest <= threshold_log10_p:
            break
    attainable = attainable_log10_p(triggers=len(triggers.labels), classes=classes)
    return Evidence(
        mark=SCHEME,
        status=decide(-strongest, threshold_log10_p=threshold_log10_p, attainable_log10_p=attainable),
        statistic="answers that match the owner's trigger labels",
        observed=process.matches,
        expected=process.queries / classes,
        log10_p=-strongest,
        threshold_log10_p=threshold_log10_p,
        details={
            "queries": process.queries,
            "triggers": len(triggers.labels),
            "classes": classes,
            "log10_e": process.log10_e,
            "attainable_log10_p": attainable,
            "distinct_answers": len(set(answers)),
        },
        assumptions=ASSUMPTIONS,
    )
