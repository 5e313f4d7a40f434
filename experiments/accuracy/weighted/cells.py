"""Whether rows of Grams should be weighted by what the loss sees of them, sample by sample: see README.md."""

import sys
import time
from pathlib import Path

import cbs

sys.path.insert(0, str(Path(__file__).parents[1]))

from cases import case

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


def prune(network: str, weights: str, pipeline: str, sparsity: float, images: int, tested: int, seed: int):
    """One pruning by `joint` with rows weighted so, measured on the first test images."""
    found = case(network, seed)
    method = cbs.Method(CURVATURES[weights], cbs.Solve(), cbs.Survivors(), name="weighted")
    began = time.process_time()
    result = cbs.prune(
        found.model, found.calibration(images), sparsity=sparsity, method=method, layers=found.layers,
        pipeline=pipeline, solver="local-search", certify=False, seed=seed,
    )  # fmt: skip
    return {"cpu_seconds": time.process_time() - began, **found.measured(result.model, tested)}


def table(frame):
    """Divergence and accuracy of every row, a table a network."""
    from statistics import fmean

    from cbs.study.frames import records
    from cbs.study.markdown import markdown

    parts, rows = [], records(frame)
    for network in dict.fromkeys(row["network"] for row in rows):
        here = [row for row in rows if row["network"] == network]
        sparsities = sorted({row["sparsity"] for row in here})
        parts.append(f"{network}: divergence (accuracy %) by sparsity; seconds of processor time a pruning\n")
        lines = []
        for weights in CURVATURES:
            for pipeline in ("one-shot", "sequential"):
                some = {
                    row["sparsity"]: row
                    for row in here
                    if (row["weights"], row["pipeline"]) == (weights, pipeline)
                }
                cells = [
                    f"{some[s]['divergence']:.4f} ({100 * some[s]['accuracy']:.2f})" if s in some else None
                    for s in sparsities
                ]
                if some:
                    seconds = fmean(row["cpu_seconds"] for row in some.values())
                    lines.append([weights, pipeline, *cells, f"{seconds:.0f}"])
        parts.append(markdown(["weights of the rows", "pipeline", *sparsities, "seconds"], lines))
    return "\n".join(parts)
