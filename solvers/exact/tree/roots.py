"""What a split says before there is a tree."""

from __future__ import annotations

import math

import numpy as np

from solvers.bounds.node.oracle import best_sum, evaluate, formation, model_of
from solvers.bounds.split import Split
from solvers.form.blocks import Block


def at_root(block: Block, split: Split) -> tuple[float, float]:
    """The bound where the split's own relaxation ends, and the rounding in it."""
    n, pools = block.n, len(block.keep)
    model = model_of(block, split.d)
    L, q, s = np.empty_like(model.R), np.empty_like(model.B), np.empty(n)
    _, base, rounding = evaluate(model, split.z, L, q, s)
    best = best_sum(s, np.zeros(n, np.int8), block.labels, block.keep, np.empty(pools), np.empty(pools))
    bound = float(base - best - rounding)
    return -math.inf if math.isnan(bound) else bound, float(rounding)


def root_bound(block: Block, split: Split) -> float:
    """A bound from the split alone, without a tree."""
    return max(block.floor, at_root(block, split)[0] - formation(block, split.d))
