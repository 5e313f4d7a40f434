"""What the solvers make of the columns that neurons feed: value, bound and CPU seconds, instance by instance.

CBS_DATA=/path/to/folder python experiments/papers/minified/columns.py
"""

import argparse
import csv
import time
import tomllib

import numpy as np
import torch
from run import HERE, Run, Table, cnn, mlp

import cbs
import solvers
from cbs.network.network import Network
from cbs.selection.neuron_joint import columns_problem

OUT = HERE / "results"
SOLVERS = ("greedy", "local-search", "osscar", "tabu", "relaxation", "branch-and-bound", "auto")
PROVING = ("branch-and-bound", "auto")
LIMIT = 6.0
"""Seconds that a solver may take to prove."""
FIELDS = ("instance", "units", "width", "rows", "pruned", "solver", "value", "bound", "status", "seconds")


def instances(config, split):
    """Name and problem: hidden layers of three networks at two counts, and the inputs of a first layer."""
    model, digits = cbs.trained_digits_mlp()
    networks = {"digits": Network(model, digits.train)}
    for name, make in (("mlp", mlp), ("cnn", cnn)):
        run = Run(name, make, 0, config, split, Table())
        networks[name] = Network(run.dense, run.few)
    for name, network in networks.items():
        models = {model.name: model for model in network(cbs.Gram())}
        for group in network.neurons:
            for share in (0.5, 0.75):
                none = np.zeros(group.count, dtype=bool)
                count = round(share * group.count)
                yield f"{name} {group.name}", columns_problem(group, models, count, none, {})
    first = networks["mlp"](cbs.Gram())[0]
    yield "mlp inputs", first.problem(solvers.Budget.columns(392))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", help="folder with MNIST; by default that of CBS_DATA")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    config = tomllib.loads((HERE / "config.toml").read_text())
    rows = []
    for solver in SOLVERS:
        solvers.get_solver(solver).prepare()
    for name, problem in instances(config, cbs.mnist(asked.data_dir)):
        width = problem.pools.width
        units, pruned = len(problem.prunable) // width, int(problem.pools.prune[0]) // width
        for solver in SOLVERS:
            wide = len(problem.prunable) > 160
            if width > 1 and problem.budget.kind not in solvers.available()[solver]["budgets"]:
                continue
            if wide and width == 1 and solver not in ("greedy", "local-search", "osscar", "relaxation"):
                continue
            start = time.process_time()
            found = solvers.solve(problem, solver, time_limit=LIMIT if solver in PROVING else None)
            seconds = time.process_time() - start
            bound = found.bound if np.isfinite(found.bound) and found.bound > 0 else ""
            facts = name, units, width, problem.m, pruned, solver
            rows.append((*facts, found.value, bound, found.status.value, round(seconds, 3)))
            print(*rows[-1], flush=True)
    OUT.mkdir(exist_ok=True)
    with (OUT / "columns.csv").open("w", newline="") as file:
        csv.writer(file).writerows([FIELDS, *rows])


if __name__ == "__main__":
    main()
