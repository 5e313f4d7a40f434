"""One row, or one whole layer, by one solver of one state of the project: see README.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cbs.instances.networks import layer_instances
from solvers import Budget, SubsetProblem
from solvers.instances import save
from solvers.instances.layer_data import LayerData

HERE = Path(__file__).parent
BEFORE = "CBS_BEFORE"
"""Environment variable that names a checkout of the state that `tree = "before"` measures."""
PORTFOLIO = 5.0
"""Seconds for the mask that bounds of wide rows and whole layers are held against."""


def row(
    tree: str, n: int, network: str, layer: str, row: int, sparsity: float, solver: str = "branch-and-bound",
    variant: str = "joint", seed: int = 0, limit: float = 60.0, clock: str = "cpu", certify: bool = True,
    options: dict[str, Any] | None = None, label: str = "",
) -> dict[str, Any]:  # fmt: skip
    """A row of a layer, alone.

    Args:
        tree: `before` or `after`.
        n: its inputs.
        network: of the zoo.
        layer: its name.
        row: its place among those that are alive.
        sparsity: share that is pruned.
        solver: by name.
        variant: joint, or selection.
        seed: of the network.
        limit: seconds for the search.
        clock: `cpu` or `wall`.
        certify: whether what is proven is certified and checked.
        options: of the solver.
        label: of solver and options, for tables.
    """
    data = of_layer(network, layer, seed)
    alive = np.flatnonzero(np.count_nonzero(data.weights, axis=1) > n / 2)
    problem = SubsetProblem(
        data.weights[[alive[row]]],
        data.hessian,
        Budget.per_row(round(sparsity * n)),
        refit=variant == "joint",
    )
    mask = PORTFOLIO if solver == "relaxation" else 0.0
    return asked(problem, n, tree, solver, options or {}, limit, clock, certify, mask)


def layer(
    tree: str, n: int, network: str, layer: str, budget: str, solver: str = "branch-and-bound",
    variant: str = "joint", seed: int = 0, limit: float = 60.0, clock: str = "cpu", certify: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """All rows of a layer in one call; `budget` is a share as `50%`, or `2:4`. See `row`."""
    data = of_layer(network, layer, seed)
    pattern = re.fullmatch(r"(\d+):(\d+)", budget)
    chosen = (
        Budget.n_of_m(int(pattern[1]), int(pattern[2]))
        if pattern
        else Budget.per_row(round(float(budget.removesuffix("%")) / 100 * n))
    )
    problem = SubsetProblem(data.weights, data.hessian, chosen, refit=variant == "joint")
    mask = PORTFOLIO if solver == "relaxation" else 0.0
    return asked(problem, n, tree, solver, {}, limit, clock, certify, mask)


def asked(
    problem: SubsetProblem, n: int, tree: str, solver: str, options: dict[str, Any], limit: float, clock: str,
    certify: bool, mask: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """What the process of a tree answers."""
    if problem.n != n:
        raise ValueError(f"the layer has {problem.n} inputs, not {n}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instance.npz"
        save(path, problem)
        job = {
            "file": str(path), "solver": solver, "options": options, "limit": limit, "clock": clock,
            "certify": certify, "mask": mask,
        }  # fmt: skip
        process = process_of(tree)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    if not line:
        process_of.cache_clear()
        raise RuntimeError(f"the process of {tree!r} died, status {process.wait()}")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return {"m": problem.m, **answer}


@lru_cache(maxsize=2)
def process_of(tree: str) -> subprocess.Popen[str]:
    """The process that measures a state of the project; it ends when this one does."""
    if tree == "after":
        root = str(HERE.parents[1])
    elif tree == "before" and os.environ.get(BEFORE):
        root = os.environ[BEFORE]
    else:
        raise ValueError(f"tree {tree!r}: set {BEFORE} to a checkout of what is to be measured as before")
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, str(HERE / "measure.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip


@lru_cache(maxsize=4)
def of_layer(network: str, layer: str, seed: int) -> LayerData:
    """The rows and curvature that the instances of a network's layer are made of."""
    (found,) = layer_instances(network, layers=[layer], seed=seed)
    return found.data
