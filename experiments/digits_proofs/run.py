"""Prove the optimal pruning of every row of the digits MLP: see README.md."""

import argparse
import tomllib
from pathlib import Path

import numpy as np

import cbs
from cbs.network.network import Network
from solvers import Budget, available, solve

HERE = Path(__file__).parent


def main() -> None:
    config = tomllib.loads((HERE / "config.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scip-rows", type=int, default=config["scip_rows"])
    sample = parser.parse_args().scip_rows
    peers = [name for name in config["peers"] if available()[name]["installed"]]
    model, split = cbs.trained_digits_mlp()
    network = Network(model, split.train, damping=config["damping"])
    lines = [
        "| layer | pruned | rows | proven | nodes a row | seconds a row | "
        + " | ".join(f"{p}: rows proven, difference, times slower" for p in peers)
        + " |",
        "|---" * (6 + len(peers)) + "|",
    ]
    for objective in network(cbs.Gram()):
        for sparsity in config["sparsities"]:
            m, n = objective.dense[0].W.shape
            problem = objective.problem(Budget.per_row(round(sparsity * n)))
            whole = solve(problem, "branch-and-bound", gap=config["gap"])
            rows = whole.rows
            cells = [
                objective.name,
                f"{sparsity:.0%}",
                str(m),
                str(rows.proven.sum()),
                f"{rows.nodes.mean():,.0f}",
                f"{whole.seconds / m:.3f}",
            ]
            for peer in peers:
                proven, worst, ratios = 0, 0.0, []
                for row in range(min(sample, m)):
                    alone = problem.row(row)
                    ours = solve(alone, "branch-and-bound", gap=config["gap"])
                    theirs = solve(alone, peer, gap=config["gap"], time_limit=config["scip_seconds"])
                    proven += theirs.status.value == "optimal"
                    worst = max(worst, abs(theirs.value - ours.value) / abs(ours.value))
                    ratios.append(theirs.seconds / ours.seconds)
                shown = f"{np.exp(np.mean(np.log(ratios))):.0f}x" if ratios else "-"
                cells.append(f"{proven} of {len(ratios)}, {worst:.1e}, {shown}")
            lines.append("| " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "table.md").write_text(text)


if __name__ == "__main__":
    main()
