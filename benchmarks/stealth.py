"""Stealth: can a classifier that sees an edge's statistics tell planted edges from the others?

Random forest, five shuffled folds, labels known to it: the attacker of this measure is stronger than any real one. An
AUC below ½ tells as much as one above: planted magnitudes that lie too regularly make a forest guess wrong on purpose
(evenly spaced ranks gave 0.18 from magnitude, rank and layer alone). So the bar holds max(AUC, 1 − AUC), with all
features and with those three.
"""

from __future__ import annotations

import statistics

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from benchmarks.shared.results import Bar, write_result
from benchmarks.tickets import SEEDS, SETTING, Pair, pair

FEATURES = ("magnitude", "rank in its layer", "layer", "row degree", "column degree")


def edges_of(tickets: Pair) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return features (edges, 5) and labels (edges,): True for edges that embedding moved in."""
    features, labels = [], []
    for index, name in enumerate(tickets.marked.mask):
        layer = tickets.marked.mask[name]
        magnitudes = np.abs(tickets.marked.weights[name])[layer].astype(np.float64)
        out, into = np.nonzero(layer)[:2]
        by_kernel = layer.reshape(*layer.shape[:2], -1)
        rows, columns = by_kernel.sum(axis=(1, 2)), by_kernel.sum(axis=(0, 2))
        ranks = np.argsort(np.argsort(magnitudes)) / max(len(magnitudes), 1)
        features.append(np.column_stack([magnitudes, ranks, np.full(len(magnitudes), index), rows[out], columns[into]]))
        labels.append(~tickets.unmarked.mask[name][layer])
    return np.concatenate(features), np.concatenate(labels)


def auc(features: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_], seed: int) -> float:
    """Return the cross-validated AUC of a random forest."""
    forest = RandomForestClassifier(n_estimators=300, min_samples_leaf=5, random_state=seed, n_jobs=2)
    folds = StratifiedKFold(n_splits=5, shuffle=True, random_state=seed)
    scores = cross_val_predict(forest, features, labels, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(labels, scores))


def main() -> None:
    """Measure and write results/stealth.json."""
    rows = []
    for seed in SEEDS:
        features, labels = edges_of(pair(seed))
        rows.append(
            {
                "seed": seed,
                "edges": len(labels),
                "planted": int(labels.sum()),
                "all features": auc(features, labels, seed),
                "magnitude, rank and layer": auc(features[:, :3], labels, seed),
            }
        )
    bars = {}
    for name in ("all features", "magnitude, rank and layer"):
        aucs = [float(row[name]) for row in rows]
        bars[f"AUC, mean over seeds, {name}"] = Bar(value=statistics.mean(aucs), bound=0.55, at_most=True)
        either = max(statistics.mean(aucs), 1 - statistics.mean(aucs))
        bars[f"max(AUC, 1 - AUC), mean over seeds, {name}"] = Bar(value=either, bound=0.55, at_most=True)
    write_result("stealth", setting={**SETTING, "features": FEATURES}, seeds=SEEDS, raw=rows, bars=bars)


if __name__ == "__main__":
    main()
