"""Masks chosen anew by the curvature of the whole network: what each of its moves is worth.

See README.md.
"""

import sys
import time
from pathlib import Path
from unittest.mock import patch

import cbs

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from cases import Case, Rows, arguments, case, put  # noqa: E402

SPARSITIES = (0.98, 0.95, 0.9)
IMAGES = 30_000
SETTING = {"refit": "network", "solver": "greedy", "certify": False}
VARIANTS = {
    "the method's own masks": None,
    "down": {"cbs.schedule.reselecting.ROUNDS": 0},
    "down, returns": {"cbs.reselection.rounds.SWING": 0.0},
    "down, returns, swings": {},
}
"""What is switched off of a re-selection; None for all of it."""
KEYS = ("network", "variant", "sparsity", "images", "seed")
VALUES = ("accuracy", "loss", "divergence", "dense_accuracy", "rounds", "cpu_seconds", "seconds")


def main() -> None:
    parser = arguments(__doc__, ("mlpnet", "wide"))
    parser.add_argument("--variant", nargs="*", choices=tuple(VARIANTS), default=tuple(VARIANTS))
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--table", action="store_true", help="only write the table of the rows there are")
    asked = parser.parse_args()
    rows = Rows(HERE / "results" / "rows.csv", KEYS, VALUES)
    for name in () if asked.table else asked.network:
        for seed in asked.seed:
            found = case(name, asked.data_dir, seed)
            for sparsity in asked.sparsity or SPARSITIES:
                for variant in asked.variant:
                    key = {
                        "network": name, "variant": variant, "sparsity": sparsity, "images": asked.images,
                        "seed": seed,
                    }  # fmt: skip
                    if not rows.has(**key):
                        rows.add(key | run(found, variant, sparsity, asked.images, seed))
    put(HERE / "README.md", "table", "\n".join(table(rows)))


def run(found: Case, variant: str, sparsity: float, images: int, seed: int) -> dict[str, object]:
    changed = VARIANTS[variant]
    patches = [patch(name, value) for name, value in (changed or {}).items()]
    cpu, clock = time.process_time(), time.perf_counter()
    for each in patches:
        each.start()
    result = cbs.prune(
        found.model, found.calibration(images), sparsity=sparsity, seed=seed, reselect=changed is not None,
        **SETTING,
    )  # fmt: skip
    for each in patches:
        each.stop()
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    stage = result.history[-1].reselection or {}
    dense = found.measured(found.model)
    return found.measured(result.model) | {
        "dense_accuracy": dense["accuracy"], "rounds": len(stage.get("rounds", ())),
        "cpu_seconds": round(cpu, 1), "seconds": round(clock, 1),
    }  # fmt: skip


def table(rows: Rows) -> list[str]:
    lines = [
        "| network | sparsity | images | seed | variant | accuracy % | dense % | divergence | rounds | CPU |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    order = list(VARIANTS)
    ordered = sorted(
        rows.rows,
        key=lambda r: (r["network"], -float(r["sparsity"]), int(r["seed"]), order.index(r["variant"])),
    )
    return [
        *lines,
        *(
            f"| {row['network']} | {row['sparsity']} | {row['images']} | {row['seed']} | {row['variant']} "
            f"| {float(row['accuracy']):.2f} | {float(row['dense_accuracy']):.2f} | {row['divergence']} "
            f"| {row['rounds']} | {row['cpu_seconds']} |"
            for row in ordered
        ),
    ]


if __name__ == "__main__":
    main()
