"""OR-Tools and CVXPY as exact solvers of the joint problem, beside branch and bound: see README.md."""

import argparse
import csv
import math
import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_wine
from torch import nn

import cbs
from cbs.curvature import Gram
from cbs.data import Samples
from cbs.network.network import Network
from solvers import Budget, Solver, SubsetProblem, solve
from solvers.foreign.cvxpy import Cvxpy
from solvers.solve import check_support, get_solver

HERE = Path(__file__).parent
OURS = "branch-and-bound"
SOLVERS: dict[str, str | Solver] = {
    OURS: OURS,
    "outer-approximation": "outer-approximation",
    "cvxpy": Cvxpy(back_end="SCIP"),
    "cvxpy-plain": Cvxpy(back_end="SCIP", strengthen=False),
    "cvxpy (HIGHS)": Cvxpy(back_end="HIGHS"),
    "scip": "scip",
    "scip-plain": "scip-plain",
    "gurobi": "gurobi",
    "gurobi-plain": "gurobi-plain",
}
SPARSITIES = (0.5, 0.75, 0.9)
GAP = 1e-4
SEED = 0
PLACE = ("network", "layer", "inputs", "row", "pruned", "solver")
FIELDS = (*PLACE, "cap", "status", "value", "bound", "gap", "seconds", "cpu_seconds", "nodes")
BEGIN, END = "<!-- table: begin (written by run.py) -->", "<!-- table: end -->"


def networks() -> Iterator[tuple[str, Network]]:
    """Trained networks with layers of 10 to 30 inputs."""
    model, split = cbs.trained_digits_mlp()
    yield "digits 64-32-16-10", Network(model, split.train, damping=1e-2)
    for name, load, widths in (
        ("breast cancer 30-24-12-2", load_breast_cancer, [30, 24, 12, 2]),
        ("wine 13-20-16-3", load_wine, [13, 20, 16, 3]),
    ):
        data = load()
        X = torch.tensor(data.data, dtype=torch.float32)
        samples = Samples((X - X.mean(dim=0)) / X.std(dim=0), torch.tensor(data.target))
        torch.manual_seed(SEED)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        model = nn.Sequential(*layers[:-1])
        cbs.train(model, samples, epochs=20, seed=SEED)
        yield name, Network(model, samples, damping=1e-2)


def rows(most: int) -> Iterator[tuple[dict[str, Any], SubsetProblem]]:
    """The rows to solve, at every sparsity, each as a problem of its own."""
    for name, network in networks():
        for objective in network(Gram()):
            n = objective.dense[0].W.shape[1]
            if not 10 <= n <= 30:
                continue
            m = len(objective.dense[0].W)
            for row in np.random.default_rng(SEED).permutation(m)[:most].tolist():
                for pruned in SPARSITIES:
                    problem = objective.problem(Budget.per_row(round(pruned * n))).row(row)
                    where = {"network": name, "layer": objective.name, "inputs": n, "row": row}
                    yield where | {"pruned": pruned}, problem


def cpu() -> float:
    """Seconds of processor time of this process and of those it has started."""
    ticks, me = 0, os.getpid()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            facts = path.read_text().rsplit(") ", 1)[1].split()
        except (OSError, IndexError):
            continue
        if int(facts[1]) == me:
            ticks += int(facts[11]) + int(facts[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def run(path: Path, names: list[str], most: int, cap: float) -> None:
    """Solve what is not in the table yet, and write it down at once."""
    known = {tuple(run[name] for name in PLACE) for run in read(path)}
    tiny = SubsetProblem(np.ones((1, 5)), np.eye(5) + 0.1, Budget.per_row(2))
    for name in names:
        solve(tiny, SOLVERS[name])
    path.parent.mkdir(exist_ok=True)
    posed = list(rows(most))
    np.random.default_rng(SEED).shuffle(posed)
    for where, problem in posed:
        for name in names:
            solver = SOLVERS[name]
            key = where | {"solver": name}
            if tuple(str(key[field]) for field in PLACE) in known:
                continue
            try:
                check_support(get_solver(solver), problem)
            except ValueError:
                continue
            start = cpu()
            found = solve(problem, solver, gap=GAP, time_limit=cap, seed=SEED)
            facts = {
                "cap": cap, "status": found.status.value, "value": repr(float(found.value)),
                "bound": repr(float(found.bound)), "gap": found.gap, "seconds": round(found.seconds, 4),
                "cpu_seconds": round(max(cpu() - start, 0.0), 4), "nodes": found.stats.get("nodes", ""),
            }  # fmt: skip
            new = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, FIELDS)
                if new:
                    writer.writeheader()
                writer.writerow(key | facts)
            print(*key.values(), *facts.values(), flush=True)


def read(path: Path) -> list[dict[str, str]]:
    """The runs so far."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(runs: list[dict[str, str]]) -> list[str]:
    """A line a solver: rows solved, whether the values agree, and times beside branch and bound's."""
    best = {tuple(r[f] for f in PLACE[:-1]): r for r in runs if r["solver"] == OURS}
    lines = [
        "| solver | rows | solved | largest difference of values | median CPU s | CPU s, of that 75% pruned "
        "| largest | times branch and bound, geometric mean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in SOLVERS:
        of = [r for r in runs if r["solver"] == name and tuple(r[f] for f in PLACE[:-1]) in best]
        if not of:
            continue
        pairs = [(r, best[tuple(r[f] for f in PLACE[:-1])]) for r in of]
        done = [pair for pair in pairs if pair[0]["status"] == "optimal"]
        apart = max(
            (abs(float(r["value"]) / float(mine["value"]) - 1.0) for r, mine in done), default=math.nan
        )
        seconds = [time_of(r) for r in of]
        hard = [time_of(r) for r in of if r["pruned"] == "0.75"]
        ratio = math.exp(np.mean([math.log(time_of(r) / time_of(mine)) for r, mine in pairs]))
        capped = "> " if len(done) < len(of) else ""
        lines.append(
            f"| {name} | {len(of)} | {len(done)} | {apart:.1e} | {np.median(seconds):.3f} "
            f"| {np.median(hard):.3f} | {max(seconds):.2f} | {capped}{ratio:.3g} |"
        )
    wrong = sum(
        float(r["bound"]) > float(best[tuple(r[f] for f in PLACE[:-1])]["value"]) * (1.0 + 1e-9)
        for r in runs
        if tuple(r[f] for f in PLACE[:-1]) in best
    )
    return [*lines, "", f"Bounds above the value of branch and bound's mask: {wrong}."]


def time_of(run: dict[str, str]) -> float:
    """Processor seconds of a run; of one whose process was killed, at least what this process saw."""
    return max(float(run["cpu_seconds"]), 1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3, help="rows of every layer")
    parser.add_argument("--solvers", nargs="*", default=[*SOLVERS], help="only these")
    parser.add_argument("--cap", type=float, default=60.0, help="seconds of a solver on a row")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the tables")
    parser.add_argument("--tables", action="store_true", help="only write the table")
    arguments = parser.parse_args()
    path = arguments.results / "runs.csv"
    if not arguments.tables:
        run(path, arguments.solvers, arguments.rows, arguments.cap)
    text = "\n".join(table(read(path)))
    print(text)
    readme = HERE / "README.md"
    if arguments.results.resolve() == (HERE / "results").resolve() and readme.exists():
        before, rest = readme.read_text().split(BEGIN)
        readme.write_text(before + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
