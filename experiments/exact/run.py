"""Our branch and bound beside every peer, on rows of trained networks: see README.md."""

import argparse
import csv
import os
import tomllib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from networks import networks
from table import FIELDS, write_tables

from cbs.curvature import Gram
from solvers import Budget, Solution, Solver, SubsetProblem, available, solve
from solvers.foreign.cplex import Cplex
from solvers.foreign.gurobi import Gurobi
from solvers.instances import random_problem
from solvers.peers.known import L0BnB, OKRidge
from solvers.solve import check_support, get_solver

HERE = Path(__file__).parent
ALL = "all"
CHOSEN: dict[str, Solver] = {
    "gurobi-blind": Gurobi(strengthen=False, informed=False),
    "cplex-blind": Cplex(strengthen=False, informed=False),
    "okridge": OKRidge(trust=True),
    "l0bnb": L0BnB(trust=True),
}
"""Names that stand for solvers with fields of our choice; the last two are taken at their word."""


class Runs:
    """Finished runs, on disk as they finish.

    A run that is there is not run again, unless a cap stopped it and a longer one is asked for.
    """

    def __init__(self, path: Path, again: str | None) -> None:
        """Read the table of runs at `path`, and forget those of solver `again`."""
        self.path = path
        self.known: dict[tuple[str, ...], dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    if row["solver"] != again:
                        self.known[place(row)] = row

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Every run."""
        return list(self.known.values())

    def has(self, key: dict[str, Any]) -> bool:
        """Whether a run is there that a new one could not improve."""
        run = self.known.get(place(key))
        return run is not None and (run["status"] != "time_limit" or float(run["cap"]) >= key["cap"])

    def add(self, key: dict[str, Any], answer: dict[str, Any]) -> None:
        """Keep a run, and say so."""
        row = {name: str((key | answer).get(name, "")) for name in FIELDS}
        self.known[place(row)] = row
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(self.known.values())
        print(", ".join(f"{name} {value}" for name, value in row.items() if value), flush=True)


def place(run: dict[str, Any]) -> tuple[str, ...]:
    """What tells a run from others."""
    return tuple(str(run[name]) for name in ("network", "layer", "variant", "pruned", "row", "solver"))


def facts(solution: Solution) -> dict[str, Any]:
    other = "completed" in solution.stats  # a peer's support had another number of entries
    return {
        "seconds": solution.seconds,
        "status": "other count" if other else solution.status.value,
        "value": repr(float(solution.value)),
        "bound": repr(float(solution.bound)),
        "gap": float(solution.gap),
        "nodes": solution.stats.get("nodes", ""),
    }


def cases(
    config: dict[str, Any], arguments: argparse.Namespace
) -> Iterator[tuple[dict[str, Any], SubsetProblem]]:
    """Every layer and sparsity in both variants, as a problem with a budget by row."""
    for name, network in networks(config, arguments.data_dir):
        for objective in network(Gram()):
            dense = objective.dense[0]
            n = dense.W.shape[1]
            if not config["min_inputs"] <= n <= 100:
                continue
            for sparsity in config["sparsities"]:
                joint = objective.problem(Budget.per_row(round(sparsity * n)))
                still = SubsetProblem(dense.W, joint.hessian.dense(0)[:n, :n], joint.budget, refit=False)
                for variant, problem in (("joint", joint), ("selection", still)):
                    where = {"network": name, "layer": objective.name, "inputs": n}
                    yield where | {"variant": variant, "pruned": sparsity}, problem


def missing(name: str, problem: SubsetProblem) -> str | None:
    """Why a peer of ours can't take a problem, or None."""
    solver = CHOSEN.get(name, name)
    if name not in CHOSEN and name not in available():
        return "not known"
    if not (solver.installed() if isinstance(solver, Solver) else available()[name]["installed"]):
        return "not installed"
    try:
        check_support(get_solver(solver), problem)
    except ValueError as error:
        return f"refused: {error}"
    return None


def warm_up(names: list[str]) -> None:
    """Import and compile what the first solve of every solver would pay for."""
    for name in names:
        for refit in (True, False):
            problem = random_problem(2, 6, Budget.per_row(3), refit=refit, seed=0)
            if missing(name, problem) is None:
                solve(problem, CHOSEN.get(name, name))


def main() -> None:
    config = tomllib.loads((HERE / "config.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small sample of rows")
    parser.add_argument("--rows", type=int, help="rows of every layer and sparsity that peers solve")
    parser.add_argument("--cap", type=float, help="seconds of Gurobi, of CPLEX and of us on a row")
    parser.add_argument("--others-cap", type=float, help="seconds of every other peer on a row")
    parser.add_argument("--only", default="", help="part of a network's name")
    parser.add_argument("--pruned", type=float, nargs="*", help="only these sparsities")
    parser.add_argument("--variant", choices=["joint", "selection"], help="only this one")
    parser.add_argument("--peers", nargs="*", help="only these peers")
    parser.add_argument("--again", metavar="SOLVER", help="forget this solver's runs, and run it again")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the tables")
    parser.add_argument(
        "--tables", action="store_true", help="only write the tables of the runs that are there"
    )
    parser.add_argument(
        "--data-dir", default=os.environ.get("CBS_DATA"), help="MNIST and MLPNet; default: CBS_DATA"
    )
    arguments = parser.parse_args()
    ours, gap = config["ours"], config["gap"]
    sample = config["sample"]["quick" if arguments.quick else "full"]
    count = arguments.rows or sample["rows"]
    cap, others_cap = arguments.cap or sample["cap"], arguments.others_cap or sample["others_cap"]

    def cap_of(name: str) -> float:
        return float(cap if name == ours or name.startswith(("gurobi", "cplex")) else others_cap)

    runs = Runs(arguments.results / "runs.csv", arguments.again)

    if not arguments.tables:
        peers = {
            variant: [name for name in names if name in (arguments.peers or names)]
            for variant, names in config["peers"].items()
        }
        warm_up([ours, *peers["joint"], *peers["selection"]])
        for where, problem in cases(config, arguments):
            if arguments.only not in where["network"] or arguments.variant not in (None, where["variant"]):
                continue
            if arguments.pruned and where["pruned"] not in arguments.pruned:
                continue
            whole = where | {"row": ALL, "rows": problem.m, "solver": ours, "cap": cap}
            if not runs.has(whole):
                runs.add(whole, facts(solve(problem, ours, gap=gap, time_limit=cap * problem.m)))
            seed = [config["seed"], zlib.crc32(f"{where['network']} {where['layer']}".encode())]
            for row in np.random.default_rng(seed).permutation(problem.m)[:count].tolist():
                alone = problem.row(row)
                run_row(runs, where | {"row": row, "rows": 1}, alone, peers[where["variant"]], config, cap_of)
    write_tables(runs.rows, config, arguments.results)


def run_row(
    runs: Runs,
    where: dict[str, Any],
    problem: SubsetProblem,
    peers: list[str],
    config: dict[str, Any],
    cap_of: Callable[[str], float],
) -> None:
    """One row by us and by every peer that has not solved it yet."""
    gap = config["gap"]
    for name in [config["ours"], *peers]:
        cap = cap_of(name)
        key = where | {"solver": name, "cap": cap}
        if runs.has(key):
            continue
        reason = missing(name, problem)
        if reason is not None:
            runs.add(key, {"status": reason})
            continue
        runs.add(key, facts(solve(problem, CHOSEN.get(name, name), gap=gap, time_limit=cap)))


if __name__ == "__main__":
    main()
