"""Accuracy, divergence and seconds of one setting for all networks, beside published figures.

See ../README.md.
"""

import os
import statistics
import sys
import time
from pathlib import Path

import cbs

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from cases import PUBLISHED, Case, Rows, arguments, case, put  # noqa: E402

SPARSITIES = {
    "mlpnet": (0.9, 0.95, 0.98),
    "resnet20": (0.5, 0.6, 0.7, 0.8, 0.9),
    "wide": (0.9, 0.95, 0.98),
}
IMAGES = {"mlpnet": 55_000, "resnet20": 2_000, "wide": 30_000}
LIMIT = {"mlpnet": 120.0, "resnet20": 600.0, "wide": 600.0}
"""Seconds that a pruning may take, by the clock."""
LABELLED = {"mlpnet": (0.95, 0.98)}
"""Sparsities that are also done with the labels."""
TO_REACH = {
    ("mlpnet", False): {0.9: 93.95, 0.95: 93.8, 0.98: 92.3},
    ("mlpnet", True): {0.95: 94.3, 0.98: 93.0},
    ("resnet20", False): {0.5: 91.2, 0.6: 90.9, 0.7: 90.3, 0.8: 89.0, 0.9: 82.0},
}
BELOW_DENSE = {0.9: 0.1, 0.95: 0.3, 0.98: 1.0}
"""Points of accuracy that `wide` may lose."""
SETTING = {"refit": "network", "pipeline": "sequential", "certify": False}
"""The same for every network; all else is the defaults, but for the time limit."""
KEYS = ("network", "labels", "sparsity", "seed")
VALUES = (
    "images", "accuracy", "loss", "divergence", "dense_accuracy", "pruned_accuracy", "cpu_seconds", "seconds",
    "status", "cores_busy",
)  # fmt: skip


def main() -> None:
    parser = arguments(__doc__, tuple(SPARSITIES))
    parser.add_argument("--time-limit", type=float, help="seconds a pruning; by network if absent")
    parser.add_argument("--images", type=int, help="calibration images; by network if absent")
    parser.add_argument("--stages", type=int, default=1)
    parser.add_argument(
        "--rows", type=Path, default=HERE / "results" / "rows.csv", help="the file of raw rows"
    )
    parser.add_argument(
        "--table", action="store_true", help="only write the tables of the rows that are there"
    )
    asked = parser.parse_args()
    rows = Rows(asked.rows, KEYS, VALUES)
    for name in () if asked.table else asked.network:
        for seed in asked.seed:
            wanted = [
                (labels, sparsity)
                for labels in (False, True)
                for sparsity in (LABELLED.get(name, ()) if labels else SPARSITIES[name])
                if (not asked.sparsity or sparsity in asked.sparsity)
                and not rows.has(network=name, labels=labels, sparsity=sparsity, seed=seed)
            ]
            found = case(name, asked.data_dir, seed) if wanted else None
            for labels, sparsity in wanted:
                run(rows, found, labels, sparsity, seed, asked)
    if asked.rows == HERE / "results" / "rows.csv":
        for name in SPARSITIES:
            put(HERE.parent / "README.md", name, "\n".join(table(rows, name)))


def run(rows: Rows, found: Case, labels: bool, sparsity: float, seed: int, asked) -> None:
    images = asked.images or IMAGES[found.name]
    data = found.calibration(images)
    limit = asked.time_limit or LIMIT[found.name]
    began, cpu = time.perf_counter(), time.process_time()
    result = cbs.prune(
        found.model, data, sparsity=sparsity, layers=found.layers, seed=seed, labels=labels, time_limit=limit,
        stages=asked.stages, test=found.test, **SETTING,
    )  # fmt: skip
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    pruned = result.history[-1].test_pruned
    rows.add({
        "network": found.name, "labels": labels, "sparsity": sparsity, "seed": seed,
        "images": len(data[0]), **found.measured(result.model),
        "dense_accuracy": round(100 * result.test_before.accuracy, 2),
        "pruned_accuracy": round(100 * pruned.accuracy, 2),
        "cpu_seconds": round(cpu, 1), "seconds": round(seconds, 1), "status": result.status,
        "cores_busy": round(os.getloadavg()[0], 1),
    })  # fmt: skip


def table(rows: Rows, name: str):
    """Means over seeds; the spread is that of the seeds."""
    known = PUBLISHED[name]
    head = ["sparsity", "accuracy %", "divergence", "before refit", "CPU seconds", "asked", *known, "seeds"]
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    dense = set()
    for labels in (False, True):
        for sparsity in LABELLED.get(name, ()) if labels else SPARSITIES[name]:
            some = [
                row for row in rows.rows
                if (row["network"], row["labels"], float(row["sparsity"])) == (name, str(labels), sparsity)
            ]  # fmt: skip
            if not some:
                continue
            dense |= {row["dense_accuracy"] for row in some}
            got = [float(row["accuracy"]) for row in some]
            spread = f" ({min(got):.2f} to {max(got):.2f})" if len(got) > 1 else ""
            goal = TO_REACH.get((name, labels), {}).get(sparsity)
            if name == "wide":
                goal = float(some[0]["dense_accuracy"]) - BELOW_DENSE[sparsity]
            cells = [
                f"{sparsity}{', labels' if labels else ''}", f"{statistics.fmean(got):.2f}{spread}",
                f"{mean(some, 'divergence'):.4f}", f"{mean(some, 'pruned_accuracy'):.2f}",
                f"{mean(some, 'cpu_seconds'):.0f}",
                "-" if goal is None else f"{goal:.2f} ({statistics.fmean(got) - goal:+.2f})",
                *(f"{figures[sparsity]:.2f}" if sparsity in figures else "-" for figures in known.values()),
                " ".join(sorted(row["seed"] for row in some)),
            ]  # fmt: skip
            yield f"| {' | '.join(cells)} |"
    yield ""
    if dense:
        yield f"Dense: {', '.join(sorted(dense))}%."


def mean(rows: list[dict[str, str]], name: str) -> float:
    return statistics.fmean(float(row[name]) for row in rows)


if __name__ == "__main__":
    main()
