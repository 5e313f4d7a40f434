"""The fewest weights at unchanged accuracy: for every problem and method median, least and most."""

from functools import partial

import numpy as np
from monks_networks import PUBLISHED, SLACK

from cbs.study.frames import records
from cbs.study.markdown import markdown, steps


def table(problem, frame):
    """A line a method and damping, over networks."""
    groups = {}
    for row in records(frame):
        if row["problem"] == problem:
            groups.setdefault((row["method"], row["damping"]), []).append(row)
    lines = []
    for (method, damping), rows in groups.items():
        fewest, unbroken, status = [], [], []
        for row in rows:
            curve = sorted(steps(row["curve"]), key=lambda step: -step["kept"])
            good = [
                all(
                    step[part] >= least - SLACK
                    for part, least in zip(("train", "test"), PUBLISHED[problem][:2], strict=True)
                )
                for step in curve
            ]
            kept = [step["kept"] for step in curve]
            fewest.append(min((k for k, fine in zip(kept, good, strict=True) if fine), default=np.inf))
            first = good.index(False) if False in good else len(good)
            unbroken.append(kept[first - 1] if first else np.inf)
            status += row["curve"]["status"]
        # a proof of the curvature's own problem is no proof of the layer objective: `feasible`
        proven = sum(each in ("optimal", "feasible") for each in status)
        share = f"{proven} of {len(status)}" if method.startswith("exact") else None
        seconds = np.mean([sum(row["curve"]["seconds"]) for row in rows])
        lines.append([method, damping, len(rows), spread(fewest), spread(unbroken), share, f"{seconds:.1f}"])
    head = [
        "method", "damping", "networks", "fewest weights: median (least to most)", "without a break",
        "exact: proven", "CPU s a network",
    ]  # fmt: skip
    return markdown(head, lines)


def spread(values):
    """Median, least and most; infinite where no number that was run is good."""
    return f"{np.median(values):g} ({min(values):g} to {max(values):g})".replace("inf", "none")


first, second, third = (partial(table, problem) for problem in PUBLISHED)
