"""Fidelity: what the marks cost in accuracy, both tickets retrained alike from the same rewind weights."""

from __future__ import annotations

import statistics

from benchmarks.shared.results import Bar, write_result
from benchmarks.tickets import SEEDS, SETTING, pair


def main() -> None:
    """Measure and write results/fidelity.json."""
    rows = []
    for seed in SEEDS:
        tickets = pair(seed)
        unmarked, marked = tickets.unmarked.info.accuracy, tickets.marked.info.accuracy
        assert unmarked is not None
        assert marked is not None
        rows.append(
            {
                "seed": seed,
                "unmarked": unmarked,
                "marked": marked,
                "points_lost": 100 * (unmarked - marked),
            }
        )
    lost = [float(row["points_lost"] or 0.0) for row in rows]
    raw = {"rows": rows, "mean_points_lost": statistics.mean(lost), "sd_points_lost": statistics.stdev(lost)}
    bars = {"points lost by embedding, mean over seeds": Bar(value=statistics.mean(lost), bound=0.3, at_most=True)}
    write_result("fidelity", setting=SETTING, seeds=SEEDS, raw=raw, bars=bars)


if __name__ == "__main__":
    main()
