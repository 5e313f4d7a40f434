"""The two engines of our branch and bound on whole layers of the digits MLP: see README.md."""

import argparse
import tomllib
from pathlib import Path

import torch
from networks import networks

from cbs.curvature import Gram
from solvers import Budget, SubsetProblem, solve
from solvers.exact.branch_and_bound import BranchAndBound

HERE = Path(__file__).parent
COLUMNS = "{:>7} {:>10} {:>7} {:>10} {:>9} {:>8} {:>9} {:>10} {:>12}"


def problems(config: dict, rows: int, inputs: int):
    """A sparsity and the first rows of the layer with so many inputs, in turn."""
    _, network = next(networks(config, None))
    objective = next(o for o in network(Gram()) if o.dense[0].W.shape[1] == inputs)
    for sparsity in config["sparsities"]:
        whole = objective.problem(Budget.per_row(round(sparsity * inputs)))
        yield (
            sparsity,
            SubsetProblem(
                whole.W[:rows], whole.hessian, Budget.per_row(round(sparsity * inputs)), movable=whole.movable
            ),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=32, help="rows of the layer")
    parser.add_argument("--inputs", type=int, default=64, help="inputs of the layer")
    parser.add_argument("--cap", type=float, default=300, help="seconds of a solve")
    arguments = parser.parse_args()
    config = tomllib.loads((HERE / "config.toml").read_text())
    runs = [("compiled", "cpu"), ("batched", "cpu")]
    if torch.cuda.is_available():
        runs.append(("batched", "cuda"))
    print(
        COLUMNS.format("pruned", "engine", "device", "status", "seconds", "nodes", "nodes/s", "gap", "value")
    )
    for sparsity, problem in problems(config, arguments.rows, arguments.inputs):
        for engine, device in runs:
            solver = BranchAndBound(engine=engine)
            warm_up = SubsetProblem(problem.W[:2, :6], problem.hessian.dense(0)[:6, :6], Budget.per_row(3))
            solve(warm_up, solver, device=device)
            found = solve(problem, solver, gap=config["gap"], time_limit=arguments.cap, device=device)
            nodes = found.stats["nodes"]
            print(
                COLUMNS.format(
                    f"{sparsity:.0%}", engine, device, found.status.value, f"{found.seconds:.2f}", nodes,
                    f"{nodes / found.seconds:.0f}", f"{found.gap:.1e}", f"{found.value:.8g}",
                ),
                flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
