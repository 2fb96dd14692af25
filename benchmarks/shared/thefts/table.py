"""What a table of thefts says: per row all seeds' evidence, what the copy is worth, and whether the theft succeeded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from benchmarks.shared.thefts.reading import AS_MADE, DISGUISED
from benchmarks.shared.thefts.storing import Shelf

# A thief may lose so much of the stolen model's accuracy, in [0, 1].
TOLERATED = 0.05
CONFIDENCE = 0.95
# By row, what training from scratch is given: the same steps on the same images. What takes none costs none.
BUDGETS = (
    (r"10 000 images$", "1 epochs of 10000 images"),
    (r"80 epochs$", "80 epochs"),
    (r"overwritten [48] times$", "80 epochs"),
    (r"overwritten|new weights$", "a ticket's budget"),
    (r"2 epochs$|LoRA merged$", "2 epochs"),
)

Record = dict[str, Any]


def budget_of(row: str) -> str | None:
    """Return the budget at which a scratch line is compared with a row; None if the row costs no training.

    Of a budget that no scratch line has, such as eight embeddings', the next smaller one, which a thief beats sooner.
    """
    return next((budget for pattern, budget in BUDGETS if re.search(pattern, row)), None)


def scratch_accuracy(shelf: Shelf, row: str, *, ticket_epochs: float) -> float | None:
    """Return the better accuracy of a dense and a random sparse network trained from scratch at a row's budget."""
    budget = budget_of(row)
    if budget is None:
        return None
    if budget == "a ticket's budget":
        names = [f"scratch, dense, {ticket_epochs:g} epochs", f"scratch, random mask, {ticket_epochs:g} epochs",
                 "scratch, random mask, a ticket's budget"]  # fmt: skip
    else:
        names = [f"scratch, {kind}, {budget}" for kind in ("dense", "random mask")]
    return max((shelf.told(name)["accuracy"] for name in names if shelf.has(name)), default=None)


def judged_row(record: Record, *, stolen: float, scratch: float | None) -> Record:
    """Say whether a seed's theft succeeded: no verdict, little accuracy lost, and better than from scratch.

    Args:
        record: With "accuracy" and, by manner, what `reading.read` found.
        stolen: Accuracy of the stolen model.
        scratch: Of `scratch_accuracy`; where there is none, the copy counts as better.
    """
    kept = record["accuracy"] >= stolen - TOLERATED
    better = scratch is None or record["accuracy"] > scratch
    unread = any(record[manner]["status"] != "supported" for manner in (AS_MADE, DISGUISED) if manner in record)
    return {**record, "scratch": scratch, "is_useful": kept, "beats_scratch": better,
            "removed": unread and kept and better}  # fmt: skip


def summary(values: Sequence[float]) -> Record:
    """Return the mean over seeds, its 95% interval (Student's t), and the weakest."""
    mean, count = sum(values) / len(values), len(values)
    half = None
    if count > 1:
        spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)
        half = round(float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * spread, 2)
    return {"mean": round(mean, 2), "half_width": half, "weakest": round(max(values), 2), "seeds": count}


def told_row(by_seed: Mapping[int, Record]) -> Record:
    """Return a row of the table: what its seeds have in common, and each one's own."""
    records = list(by_seed.values())
    row: Record = {}
    for manner in (AS_MADE, DISGUISED):
        read = [record[manner] for record in records if manner in record]
        if read:
            row[manner] = {
                "log10_p": summary([one["log10_p"] for one in read]),
                "verdicts": {status: [one["status"] for one in read].count(status) for status in
                             sorted({one["status"] for one in read})},
            }  # fmt: skip
    accuracies = [record["accuracy"] for record in records if "accuracy" in record]
    if accuracies:
        row["accuracy"] = round(100 * sum(accuracies) / len(accuracies), 2)
        scratch = [record["scratch"] for record in records if record.get("scratch") is not None]
        row["scratch"] = round(100 * sum(scratch) / len(scratch), 2) if scratch else None
        row["removed"] = sum(record["removed"] for record in records)
    return {**row, "by_seed": {str(seed): record for seed, record in by_seed.items()}}


def weakest(row: Record) -> float:
    """Return the largest log10 p of any seed in any manner."""
    return max(float(row[manner]["log10_p"]["weakest"]) for manner in (AS_MADE, DISGUISED) if manner in row)
