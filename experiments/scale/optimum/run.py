"""How far from the proven optimum of small rows heuristics end: see README.md."""

import argparse
import os
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import numpy as np

from cbs.curvature import Gram
from solvers import Budget, Solution, SubsetProblem, solve
from solvers.runtime.parallel import workers

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "exact"))

from networks import networks  # noqa: E402

AT_OPTIMUM = 1e-6


def excesses(problem: SubsetProblem, solution: Solution, optima: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Every row's value over its optimum, less 1; zero where rounding hides the difference."""
    over = problem.row_values(solution.mask) - optima
    return np.where(over > 1e-12 * sizes, over / np.maximum(optima, 1e-300), 0.0)


def main() -> None:
    config = tomllib.loads((HERE / "config.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("CBS_DATA"), help="default: CBS_DATA")
    folder = parser.parse_args().data_dir
    names = [*config["solvers"], config["limited"]]
    found, seconds = defaultdict(list), defaultdict(float)
    proving, rows = defaultdict(float), defaultdict(int)
    low, high = config["inputs"]
    compiled = False
    for network, layers in networks(config, folder):
        for objective in layers(Gram()):
            m, n = objective.dense[0].W.shape
            if not low <= n <= high:
                continue
            for sparsity in config["sparsities"]:
                problem = objective.problem(Budget.per_row(round(sparsity * n)))
                if not compiled:
                    for name in names:
                        solve(problem, name)
                    compiled = True
                best = solve(problem, "branch-and-bound", gap=config["gap"], time_limit=config["seconds"])
                proven = best.rows.proven
                optima = problem.row_values(best.mask)
                whole = SubsetProblem(problem.W, problem.hessian, Budget.per_row(n), movable=problem.movable)
                pruned = np.zeros(problem.W.shape, dtype=bool)
                pruned[:, problem.prunable] = True
                sizes = whole.row_values(pruned)
                proving[sparsity] += best.seconds
                rows[sparsity] += m
                limit = None
                for name in names:
                    solution = solve(problem, name, time_limit=limit if name == config["limited"] else None)
                    limit = solution.seconds
                    found[sparsity, name].append(excesses(problem, solution, optima, sizes)[proven])
                    seconds[sparsity, name] += solution.seconds
                print(network, objective.name, sparsity, f"{proven.sum()} of {m} proven", flush=True)
    lines = [
        "| pruned | rows proven | solver | mean excess | median | worst | at the optimum | ms a row |",
        "|---" * 8 + "|",
    ]
    for sparsity in [*config["sparsities"], None]:
        chosen = config["sparsities"] if sparsity is None else [sparsity]
        for name in names:
            excess = np.concatenate([part for s in chosen for part in found[s, name]])
            time = 1e3 * sum(seconds[s, name] for s in chosen) / sum(rows[s] for s in chosen)
            label = "all" if sparsity is None else f"{sparsity:.0%}"
            cells = [
                label, f"{len(excess)}", name, f"{excess.mean():.3%}",
                f"{np.median(excess):.3%}", f"{excess.max():.2%}", f"{np.mean(excess <= AT_OPTIMUM):.1%}",
                f"{time:.2f}",
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    total = f"{sum(proving.values()):.0f} s for the proofs, {workers()} rows at a time."
    text = "\n".join([*lines, "", total]) + "\n"
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
