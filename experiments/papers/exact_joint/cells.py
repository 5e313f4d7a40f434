"""OR-Tools and CVXPY as exact solvers of the joint problem, beside branch and bound: see README.md."""

from functools import cache
from itertools import pairwise

import numpy as np
import psutil
import torch
from sklearn.datasets import load_breast_cancer, load_wine
from torch import nn

import cbs
from cbs.curvature import Gram
from cbs.data import Samples
from cbs.network.network import Network
from solvers import Budget, SubsetProblem, solve
from solvers.foreign.cvxpy import Cvxpy

OURS = "branch-and-bound"
MADE = {
    "cvxpy": Cvxpy(back_end="SCIP"),
    "cvxpy-plain": Cvxpy(back_end="SCIP", strengthen=False),
    "cvxpy (HIGHS)": Cvxpy(back_end="HIGHS"),
}
"""Solvers that are not one by name alone."""
NETWORKS = {
    "breast cancer 30-24-12-2": (load_breast_cancer, (30, 24, 12, 2)),
    "wine 13-20-16-3": (load_wine, (13, 20, 16, 3)),
}
GAP, SEED = 1e-4, 0


@cache
def objectives(name: str):
    """The layer objectives of a trained network, by the layers' names."""
    if name.startswith("digits"):
        model, split = cbs.trained_digits_mlp()
        samples = split.train
    else:
        load, widths = NETWORKS[name]
        data = load()
        X = torch.tensor(data.data, dtype=torch.float32)
        samples = Samples((X - X.mean(dim=0)) / X.std(dim=0), torch.tensor(data.target))
        torch.manual_seed(SEED)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        model = nn.Sequential(*layers[:-1])
        cbs.train(model, samples, epochs=20, seed=SEED)
    return {objective.name: objective for objective in Network(model, samples, damping=1e-2)(Gram())}


@cache
def warmed(solver: str) -> None:
    """A first problem, so that what a solver imports is not measured."""
    solve(SubsetProblem(np.ones((1, 5)), np.eye(5) + 0.1, Budget.per_row(2)), MADE.get(solver, solver))


def prove(solver: str, cap: float, network: str, layer: str, drawn: int, sparsity: float):
    """One row solved, the `drawn`-th of those that are drawn of its layer, within `cap` seconds."""
    objective = objectives(network)[layer]
    m, n = objective.dense[0].W.shape
    row = int(np.random.default_rng(SEED).permutation(m)[drawn])
    problem = objective.problem(Budget.per_row(round(sparsity * n))).row(row)
    warmed(solver)
    before = cpu()
    found = solve(problem, MADE.get(solver, solver), gap=GAP, time_limit=cap, seed=SEED)
    return {
        "family": network, "m": 1, "n": n, "variant": "joint", "budget": "per_row", "row": row,
        "status": found.status.value, "value": found.value, "bound": found.bound, "gap": found.gap,
        "seconds": found.seconds, "cpu_seconds": max(cpu() - before, 0.0), "nodes": found.stats.get("nodes"),
    }  # fmt: skip


def cpu() -> float:
    """Seconds of processor time of this process and of those it has started."""
    me = psutil.Process()
    times = [me.cpu_times(), *(child.cpu_times() for child in me.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def table(frame):
    """A line a solver: rows solved, whether the values agree, and times beside branch and bound's."""
    from cbs.study.frames import records
    from cbs.study.markdown import markdown

    rows: dict[str, dict[tuple, dict]] = {}
    for row in records(frame):
        place = row["network"], row["layer"], row["drawn"], row["sparsity"]
        row["spent"] = max(row["cpu_seconds"], 1e-3)
        rows.setdefault(row["solver"], {})[place] = row
    best, lines, wrong = rows[OURS], [], 0
    for name, of in rows.items():
        pairs = [(row, best[place]) for place, row in of.items()]
        done = [(row, mine) for row, mine in pairs if row["status"] == "optimal"]
        apart = max(abs(row["value"] / mine["value"] - 1.0) for row, mine in done)
        wrong += sum(row["bound"] > mine["value"] * (1.0 + 1e-9) for row, mine in pairs)
        seconds = [row["spent"] for row in of.values()]
        hard = [row["spent"] for row in of.values() if row["sparsity"] == 0.75]
        ratio = np.exp(np.mean([np.log(row["spent"] / mine["spent"]) for row, mine in pairs]))
        lines.append([
            name, len(of), len(done), f"{apart:.1e}", f"{np.median(seconds):.3f}", f"{np.median(hard):.3f}",
            f"{max(seconds):.2f}", f"{'> ' if len(done) < len(of) else ''}{ratio:.3g}",
        ])  # fmt: skip
    head = [
        "solver", "rows", "solved", "largest difference of values", "median CPU s",
        "CPU s, of that 75% pruned", "largest", "times branch and bound, geometric mean",
    ]  # fmt: skip
    return markdown(head, lines) + f"\nBounds above the value of branch and bound's mask: {wrong}.\n"
