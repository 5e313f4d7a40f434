"""A table a network: means over seeds beside published figures and what was to be reached."""

from functools import partial
from statistics import fmean

from cbs.study.frames import records
from cbs.study.markdown import markdown

PUBLISHED = {
    "mlpnet": {
        "CBS": {0.9: 93.14, 0.95: 88.92, 0.98: 55.45},
        "CHITA++, 15 stages": {0.95: 92.71, 0.98: 89.08},
    },
    "resnet20": {
        "CBS": {0.5: 90.58, 0.6: 88.88, 0.7: 81.84, 0.8: 51.28, 0.9: 13.68},
        "CHITA, one stage": {0.5: 90.76, 0.7: 81.75},
    },
    "wide": {},
}
"""Test accuracies in percent, without retraining, by sparsity; CHITA++ as its released code was measured."""
TO_REACH = {
    ("mlpnet", False): {0.9: 93.95, 0.95: 93.8, 0.98: 92.3},
    ("mlpnet", True): {0.95: 94.3, 0.98: 93.0},
    ("resnet20", False): {0.5: 91.2, 0.6: 90.9, 0.7: 90.3, 0.8: 89.0, 0.9: 82.0},
    ("wide", False): {0.9: 98.13, 0.95: 97.93, 0.98: 97.23},
}


def table(network, frame):
    """Means over seeds; the spread is that of the seeds."""
    groups, published = {}, PUBLISHED[network]
    for row in records(frame):
        if row["network"] == network:
            groups.setdefault((row["labels"], row["sparsity"]), []).append(row)
    lines = []
    for (labels, sparsity), rows in sorted(groups.items()):
        got = [100 * row["accuracy"] for row in rows]
        spread = f" ({min(got):.2f} to {max(got):.2f})" if len(got) > 1 else ""
        goal = TO_REACH[network, labels].get(sparsity)
        means = [
            fmean(row[name] for row in rows) for name in ("divergence", "pruned_accuracy", "cpu_seconds")
        ]
        lines.append([
            f"{sparsity:g}{', labels' if labels else ''}", f"{fmean(got):.2f}{spread}", f"{means[0]:.4f}",
            f"{100 * means[1]:.2f}", f"{means[2]:.0f}",
            None if goal is None else f"{goal:.2f} ({fmean(got) - goal:+.2f})",
            *(f"{known[sparsity]:.2f}" if sparsity in known else None for known in published.values()),
            " ".join(sorted(str(row["seed"]) for row in rows)),
        ])  # fmt: skip
    head = ["sparsity", "accuracy %", "divergence", "before refit", "CPU seconds", "asked"]
    dense = sorted({f"{100 * row['dense_accuracy']:.2f}" for rows in groups.values() for row in rows})
    return markdown([*head, *published, "seeds"], lines) + f"\nDense: {', '.join(dense)}%.\n"


mlpnet, resnet20, wide = (partial(table, network) for network in PUBLISHED)
