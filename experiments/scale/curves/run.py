"""Row curves of MLPNet, and layer objectives after swaps: see README.md."""

import argparse
import os
import time
import tomllib
from pathlib import Path

from cbs.curvature import Gram
from cbs.data import mnist
from cbs.network.network import Network
from cbs.zoo import mlpnet
from solvers import Budget, solve
from solvers.form.reduction import reduce
from solvers.greedy.curves import row_curves
from solvers.heuristics.tabu import Tabu
from solvers.runtime.parallel import workers

HERE = Path(__file__).parent


def main() -> None:
    config = tomllib.loads((HERE / "config.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("CBS_DATA"), help="default: CBS_DATA")
    folder = parser.parse_args().data_dir
    if folder is None:
        parser.error("name the data folder with --data-dir or CBS_DATA")
    images = mnist(folder).train.choose(config["images"])
    network = Network(mlpnet(Path(folder) / config["weights"]), images, damping=config["damping"])
    solvers = {"local-search": "local-search", "tabu": Tabu(**config["tabu"])}
    head = " | ".join(f"{name}: below greedy, s" for name in config["solvers"])
    lines = [f"| layer | pruned | greedy | s | {head} |", "|---" * (4 + len(solvers)) + "|"]
    smallest = network(Gram())[-1].problem(Budget.per_layer(1))
    for solver in solvers.values():
        solve(smallest, solver)
    points, seconds = 0, 0.0
    for objective in network(Gram()):
        problem = reduce(objective.problem(Budget.per_layer(1))).problem
        start = time.perf_counter()
        curves = row_curves(problem.W, problem.hessian)
        seconds += time.perf_counter() - start
        points += curves.values.size
        for sparsity in config["sparsities"]:
            layer = objective.problem(Budget.per_layer(round(sparsity * problem.W.size)))
            greedy = solve(layer, "greedy")
            cells = [objective.name, f"{sparsity:.0%}", f"{greedy.value:.4g}", f"{greedy.seconds:.1f}"]
            for name in config["solvers"]:
                found = solve(layer, solvers[name])
                cells.append(f"{1 - found.value / greedy.value:.1%}, {found.seconds:.1f}")
            lines.append("| " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    total = f"Row curves of all layers, {points:,} points: {seconds:.1f} s, {workers()} rows at a time."
    text = total + "\n\n" + "\n".join(lines) + "\n"
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
