"""Whether rows of Grams should be weighted by what the loss sees of them, sample by sample: see README.md."""

import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from cases import Rows, arguments, case, put  # noqa: E402

import cbs  # noqa: E402

SPARSITIES = {"mlpnet": (0.9, 0.95, 0.98), "resnet20": (0.5, 0.7, 0.8, 0.9)}
IMAGES = {"mlpnet": 10_000, "resnet20": 1_000}
TESTED = {"mlpnet": 10_000, "resnet20": 2_000}
CURVATURES = {
    "Gram, scales (dL/da)^2": cbs.Gram(),
    "Gram, scales Gauss-Newton": cbs.RowGram("gauss-newton", share=0.0, groups=1),
    "Gauss-Newton, half": cbs.RowGram("gauss-newton", share=0.5, groups=4),
    "Gauss-Newton": cbs.RowGram("gauss-newton", groups=4),
    "gradient, half": cbs.RowGram("gradient", share=0.5, groups=4),
    "gradient": cbs.RowGram("gradient", groups=4),
    "Gauss-Newton, 1 kind": cbs.RowGram("gauss-newton", groups=1),
    "Gauss-Newton, a matrix a row": cbs.RowGram("gauss-newton"),
}
EVERY = {"mlpnet": tuple(CURVATURES), "resnet20": tuple(CURVATURES)[:5]}
PIPELINES = ("one-shot", "sequential")
KEYS = ("network", "weights", "pipeline", "sparsity", "seed")
VALUES = ("accuracy", "loss", "divergence", "cpu_seconds")


def main() -> None:
    parser = arguments(__doc__, tuple(SPARSITIES))
    parser.add_argument("--weights", nargs="*", choices=tuple(CURVATURES))
    parser.add_argument("--pipeline", nargs="*", choices=PIPELINES, default=PIPELINES)
    parser.add_argument(
        "--table", action="store_true", help="only write the table of the rows that are there"
    )
    asked = parser.parse_args()
    rows = Rows(HERE / "results" / "rows.csv", KEYS, VALUES)
    for name in () if asked.table else asked.network:
        for seed in asked.seed:
            found = case(name, asked.data_dir, seed)
            for weights in asked.weights or EVERY[name]:
                for pipeline in asked.pipeline:
                    prune(rows, found, weights, pipeline, asked.sparsity or SPARSITIES[name], seed)
    put(HERE / "README.md", "table", "\n".join(tables(rows)))


def prune(rows, found, weights, pipeline, sparsities, seed) -> None:
    left = [
        s for s in sparsities
        if not rows.has(network=found.name, weights=weights, pipeline=pipeline, sparsity=s, seed=seed)
    ]  # fmt: skip
    if not left:
        return
    method = cbs.Method(CURVATURES[weights], cbs.Solve(), cbs.Survivors(), name="weighted")
    began = time.process_time()
    results = cbs.compare(
        found.model, found.calibration(IMAGES[found.name]), sparsities=left, methods=[method],
        layers=found.layers, pipeline=pipeline, solver="local-search", certify=False, seed=seed,
    )  # fmt: skip
    seconds = (time.process_time() - began) / len(left)
    for sparsity, result in zip(left, results, strict=True):
        key = {"network": found.name, "weights": weights, "pipeline": pipeline, "sparsity": sparsity}
        some = TESTED[found.name]
        found_here = found.measured(result.model, some)
        rows.add({**key, "seed": seed, **found_here, "cpu_seconds": round(seconds, 1)})


def tables(rows: Rows):
    """Divergence and accuracy of every row, a table a network."""
    for name, sparsities in SPARSITIES.items():
        yield f"{name}: divergence (accuracy %) by sparsity; seconds of processor time a pruning"
        yield ""
        yield f"| weights of the rows | pipeline | {' | '.join(map(str, sparsities))} | seconds |"
        yield f"|---|---|{'---|' * len(sparsities)}---|"
        for weights in EVERY[name]:
            for pipeline in PIPELINES:
                some = [
                    row for row in rows.rows
                    if (row["network"], row["weights"], row["pipeline"]) == (name, weights, pipeline)
                ]  # fmt: skip
                cells = {
                    float(row["sparsity"]): f"{float(row['divergence']):.4f} ({float(row['accuracy']):.2f})"
                    for row in some
                }
                if some:
                    seconds = sum(float(row["cpu_seconds"]) for row in some) / len(some)
                    values = " | ".join(cells.get(s, "-") for s in sparsities)
                    yield f"| {weights} | {pipeline} | {values} | {seconds:.0f} |"
        yield ""


if __name__ == "__main__":
    main()
