"""Bounds of MLPNet's 784-input rows by diagonal splits and by splits in blocks: see README.md."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cbs.zoo import trained
from solvers import Budget, SubsetProblem
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.groups.central_path import group_split
from solvers.bounds.shared import relaxation
from solvers.bounds.shared.rows import SharedRows
from solvers.bounds.split import Split
from solvers.form.blocks import Block, blocks
from solvers.heuristics.greedy import greedy_mask
from solvers.heuristics.local_search import LocalSearch
from solvers.relaxations.split import LoneRow

LAYER, IMAGES = "fc1", 10_000
DAMPING = 1e-2
"""Of the mean diagonal of the inputs' Gram matrix."""


def bound(sparsity: float, row: int, split: str, limit: float = 0.0) -> dict[str, Any]:
    """A bound of a row by `shared`, `own`, `blocks of K`, or `rounds`, which `limit` seconds stop."""
    found, splits, share = shared(sparsity)
    W, H = layer()
    block, theirs = found[row], splits[row]
    alone = SubsetProblem(W[[row]], H, Budget.per_row(round(sparsity * W.shape[1])))
    mask, _, _ = LocalSearch().improve(alone, greedy_mask(alone))
    value = block.value(mask[0])
    start = time.perf_counter()
    if split == "shared":
        return {"m": 1, "n": W.shape[1], "bound": diagonal(block, theirs), "value": value, "seconds": share}
    if split == "rounds":
        low, value = rounds(block, theirs, mask[0], limit)
    else:
        size = 1 if split == "own" else int(split.removeprefix("blocks of "))
        low = group_split(block, theirs.d[0], theirs.z, value, size=size)[1]
    seconds = time.perf_counter() - start
    return {"m": 1, "n": W.shape[1], "bound": low, "value": value, "seconds": seconds}


def rounds(block: Block, split: Split, pruned: NDArray[np.bool_], limit: float) -> tuple[float, float]:
    """Blocks of 4, then of 8, and again once entries are fixed; masks polished on the way."""
    end = time.perf_counter() + limit
    row = LoneRow(block, split, pruned, diagonal(block, split))
    for size in (4, 8, 8):
        row.lift(size, lambda: time.perf_counter() >= end)
        row.polish(lambda: time.perf_counter() >= end)
    return row.bound, row.value


def diagonal(block: Block, split: Split) -> float:
    """The bound of a diagonal split."""
    return lower_bound(block, split.d, relaxed_point(block, split.d, split.z))


@lru_cache(maxsize=1)
def layer() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights `[40, 784]`, and the damped Gram matrix of the layer's inputs."""
    found = trained("mlpnet")
    W = dict(found.model.named_parameters())[f"{LAYER}.weight"].detach().double().numpy()
    X = found.train.inputs[:IMAGES].reshape(IMAGES, -1).double().numpy()
    H = X.T @ X / len(X)
    return W, H + DAMPING * np.diagonal(H).mean() * np.eye(len(H))


@lru_cache(maxsize=1)
def shared(sparsity: float) -> tuple[list[Block], list[Split], float]:
    """Every row as a block, the split that all rows share with their points, and its seconds a row."""
    W, H = layer()
    problem = SubsetProblem(W, H, Budget.per_row(round(sparsity * W.shape[1])))
    start = time.perf_counter()
    found, rows = blocks(problem), SharedRows.of(problem)
    chosen = relaxation.choose(rows)
    _, z = relaxation.relax(rows, chosen)
    splits = [Split(chosen.d.numpy()[None], share, chosen.steps) for share in z.numpy()]
    return found, splits, (time.perf_counter() - start) / len(W)
