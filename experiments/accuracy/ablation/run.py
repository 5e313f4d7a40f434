"""What each part of a pruning is worth on MLPNet: every one switched off, or on, against one setting.

See README.md.
"""

import statistics
import sys
import time
from pathlib import Path

import cbs

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from cases import Case, Rows, arguments, case, put  # noqa: E402

SPARSITIES = (0.9, 0.95, 0.98)
IMAGES = 10_000
BASE = {
    "method": "joint", "scope": "network", "pipeline": "sequential", "solver": "local-search",
    "refit": "network", "reselect": False, "stages": 1, "certify": False,
}  # fmt: skip
MAGNITUDE = cbs.Method(cbs.Identity(), cbs.Scores("magnitude"), cbs.Nothing(), name="magnitude")
NOTHING = cbs.Method(cbs.Gram(), cbs.Solve(), cbs.Nothing(), name="nothing moves")
ONE_SHOT = {"pipeline": "one-shot", "refit": None}
VARIANTS = {
    "the setting": ("-", {}),
    "magnitude": ("selection", {"method": MAGNITUDE, "pipeline": "one-shot"}),
    "greedy": ("selection", {"solver": "greedy"}),
    "on the dense network's inputs": ("selection", {"pipeline": "one-shot"}),
    "rows weighted by the loss, half": ("selection", {"method": "joint-loss"}),
    "chosen anew by the network's curvature": ("selection", {"reselect": True}),
    "an equal share for every layer": ("allocation", {"scope": "layer"}),
    "an equal share for every row": ("allocation", {"scope": "row"}),
    "none": ("refit", {**ONE_SHOT, "method": NOTHING}),
    "survivors, by the dense network's inputs": ("refit", ONE_SHOT),
    "survivors, by layers in turn": ("refit", {**ONE_SHOT, "refit": "layer"}),
    "selected and refitted by layers in turn": ("refit", {"refit": None}),
    "3 stages": ("stages", {"stages": 3}),
    "5 stages": ("stages", {"stages": 5}),
    "3 stages, deleted weights may return": ("stages", {"stages": cbs.Schedule(3, deleted="return")}),
    "on the labels": ("labels", {"labels": True}),
    "1,000 images": ("images", {"images": 1_000}),
    "30,000 images": ("images", {"images": 30_000}),
}  # fmt: skip
KEYS = ("variant", "sparsity", "seed")
VALUES = ("part", "accuracy", "loss", "divergence", "cpu_seconds")


def main() -> None:
    parser = arguments(__doc__, ("mlpnet",))
    parser.add_argument("--variant", nargs="*", choices=tuple(VARIANTS), default=tuple(VARIANTS))
    parser.add_argument(
        "--table", action="store_true", help="only write the table of the rows that are there"
    )
    asked = parser.parse_args()
    rows = Rows(HERE / "results" / "rows.csv", KEYS, VALUES)
    for seed in () if asked.table else asked.seed:
        found = case("mlpnet", asked.data_dir, seed)
        for sparsity in asked.sparsity or SPARSITIES:
            for variant in asked.variant:
                if not rows.has(variant=variant, sparsity=sparsity, seed=seed):
                    run(rows, found, variant, sparsity, seed)
    put(HERE / "README.md", "table", "\n".join(table(rows)))


def run(rows: Rows, found: Case, variant: str, sparsity: float, seed: int) -> None:
    part, changed = VARIANTS[variant]
    options = {**BASE, **changed}
    data = found.calibration(options.pop("images", IMAGES))
    began = time.process_time()
    result = cbs.prune(found.model, data, sparsity=sparsity, seed=seed, **options)
    seconds = round(time.process_time() - began, 1)
    key = {"variant": variant, "sparsity": sparsity, "seed": seed}
    rows.add({**key, "part": part, **found.measured(result.model), "cpu_seconds": seconds})


def table(rows: Rows):
    yield f"| part | instead | {' | '.join(f'{s}' for s in SPARSITIES)} | seconds | seeds |"
    yield f"|---|---|{'---|' * len(SPARSITIES)}---|---|"
    for variant, (part, _) in VARIANTS.items():
        some = [row for row in rows.rows if row["variant"] == variant]
        if not some:
            continue
        cells = []
        for sparsity in SPARSITIES:
            here = [row for row in some if float(row["sparsity"]) == sparsity]
            cells.append(f"{mean(here, 'accuracy'):.2f} / {mean(here, 'divergence'):.4f}" if here else "-")
        seeds = sorted({int(row["seed"]) for row in some})
        spread = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
        yield f"| {part} | {variant} | {' | '.join(cells)} | {mean(some, 'cpu_seconds'):.0f} | {spread} |"


def mean(rows: list[dict[str, str]], name: str) -> float:
    return statistics.fmean(float(row[name]) for row in rows)


if __name__ == "__main__":
    main()
