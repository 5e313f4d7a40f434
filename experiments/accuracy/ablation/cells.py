"""One setting of a pruning of MLPNet, and every part of it switched off, or on, by itself: see README.md."""

import sys
import time
from pathlib import Path

import cbs

sys.path.insert(0, str(Path(__file__).parents[1]))

from cases import case

BASE = {
    "method": "joint", "scope": "network", "pipeline": "sequential", "solver": "local-search",
    "refit": "network", "reselect": False, "stages": 1, "certify": False,
}  # fmt: skip
MAGNITUDE = cbs.Method(cbs.Identity(), cbs.Scores("magnitude"), cbs.Nothing(), name="magnitude")
NOTHING = cbs.Method(cbs.Gram(), cbs.Solve(), cbs.Nothing(), name="nothing moves")
ONE_SHOT = {"pipeline": "one-shot", "refit": None}
INSTEAD = {
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
    "3 stages, deleted weights may return": ("stages", {"stages": "3:return"}),
    "on the labels": ("labels", {"labels": True}),
    "1,000 images": ("images", {"images": 1_000}),
    "30,000 images": ("images", {"images": 30_000}),
}  # fmt: skip
"""Which part of the pruning is another, and how."""


def prune(instead: str, sparsity: float, seed: int):
    """One pruning by the setting but for what is done instead."""
    part, changed = INSTEAD[instead]
    options = {**BASE, **changed}
    found = case("mlpnet", seed)
    data = found.calibration(options.pop("images", 10_000))
    began = time.process_time()
    result = cbs.prune(found.model, data, sparsity=sparsity, seed=seed, **options)
    return {"part": part, "cpu_seconds": time.process_time() - began, **found.measured(result.model)}


def table(frame):
    """Accuracy and divergence by sparsity, in the order above; seconds are means over sparsities."""
    from statistics import fmean

    from cbs.study.frames import records
    from cbs.study.markdown import markdown

    rows, sparsities = records(frame), (0.9, 0.95, 0.98)
    lines = []
    for instead, (part, _) in INSTEAD.items():
        some = [row for row in rows if row["instead"] == instead]
        if not some:
            continue
        cells = []
        for sparsity in sparsities:
            here = [row for row in some if row["sparsity"] == sparsity]
            means = (
                [fmean(row[name] for row in here) for name in ("accuracy", "divergence")] if here else None
            )
            cells.append(means and f"{100 * means[0]:.2f} / {means[1]:.4f}")
        seeds = sorted({row["seed"] for row in some})
        spread = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else seeds[0]
        lines.append([part, instead, *cells, f"{fmean(row['cpu_seconds'] for row in some):.0f}", spread])
    return markdown(["part", "instead", *sparsities, "seconds", "seeds"], lines)
