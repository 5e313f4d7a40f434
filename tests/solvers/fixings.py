"""Blocks of every kind, fixings of their entries, and the masks that have them."""

import itertools

import numpy as np

from solvers import Budget
from solvers.form.blocks import blocks
from tests.solvers.oracles import make_problem

CASES = {
    "joint": (Budget.per_row(5), {"n": 9}),
    "selection": (Budget.per_row(5), {"n": 9, "refit": False}),
    "selection with gradient": (Budget.per_row(4), {"n": 9, "refit": False, "gradient": True}),
    "pools": (Budget.n_of_m(2, 3), {"n": 9}),
    "pools of a selection": (Budget.n_of_m(1, 3), {"n": 9, "refit": False}),
    "columns": (Budget.columns(4), {"m": 3, "n": 8}),
    "columns, own curvatures": (Budget.columns(4), {"m": 3, "n": 8, "kind": "stacked"}),
    "columns of a selection": (Budget.columns(4), {"m": 3, "n": 8, "refit": False}),
}
LONE = [case for case in CASES if case != "columns, own curvatures"]


def block_of(case, rng):
    budget, options = CASES[case]
    return blocks(make_problem(rng, budget, **{"m": 1, **options}))[0]


def random_fixings(block, rng):
    """Some entries fixed as one mask of the budget has them; no pool is left without a choice."""
    fix = np.zeros(block.n, np.int8)
    for p, count in enumerate(block.prune):
        pool = rng.permutation(np.flatnonzero(block.labels == p))
        gone, kept = pool[:count], pool[count:]
        fix[rng.choice(gone, rng.integers(0, count), replace=False)] = -1
        fix[rng.choice(kept, rng.integers(0, len(kept)), replace=False)] = 1
    return fix


def completions(block, fix):
    """Every decision vector of the budget that has the fixings, True where pruned."""
    parts = []
    for p, count in enumerate(block.prune):
        free = np.flatnonzero((block.labels == p) & (fix == 0))
        left = count - int(((block.labels == p) & (fix < 0)).sum())
        parts.append(itertools.combinations(free.tolist(), left))
    for choice in itertools.product(*parts):
        pruned = fix < 0
        pruned[[i for part in choice for i in part]] = True
        yield pruned
