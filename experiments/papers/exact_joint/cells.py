"""Rows of small trained networks, as problems that every exact solver can prove: see README.md."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_wine
from torch import nn

import cbs
from cbs.curvature import Gram
from cbs.data import Samples
from cbs.network.network import Network
from cbs.study.frames import records
from cbs.study.markdown import markdown
from solvers import Budget, SubsetProblem

OURS = "branch-and-bound"
SEED = 0


def networks() -> Iterator[tuple[str, Network]]:
    """Trained networks with layers of 10 to 30 inputs."""
    model, split = cbs.trained_digits_mlp()
    yield "digits 64-32-16-10", Network(model, split.train, damping=1e-2)
    for name, load, widths in (
        ("breast cancer 30-24-12-2", load_breast_cancer, (30, 24, 12, 2)),
        ("wine 13-20-16-3", load_wine, (13, 20, 16, 3)),
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


def problems(rows: int) -> Iterator[tuple[str, SubsetProblem]]:
    """Up to so many rows of every layer, drawn with seed 0, at three sparsities."""
    for name, network in networks():
        for objective in network(Gram()):
            m, n = objective.dense[0].W.shape
            if not 10 <= n <= 30:
                continue
            for row in np.random.default_rng(SEED).permutation(m)[:rows].tolist():
                for share in (0.5, 0.75, 0.9):
                    problem = objective.problem(Budget.per_row(round(share * n))).row(row)
                    yield f"{name}/layer {objective.name}, row {row}, {share:.0%} pruned", problem


def table(frame):
    """A line a solver: rows solved, whether the values agree, and times beside branch and bound's."""
    rows: dict[str, dict[str, dict]] = {}
    for row in records(frame):
        rows.setdefault(row["solver"], {})[row["instance"]] = row | {"spent": max(row["cpu_seconds"], 1e-3)}
    best, lines, wrong = rows[OURS], [], 0
    for name, of in rows.items():
        pairs = [(row, best[instance]) for instance, row in of.items()]
        done = [(row, mine) for row, mine in pairs if row["status"] == "optimal"]
        apart = max(abs(row["value"] / mine["value"] - 1.0) for row, mine in done)
        wrong += sum(row["bound"] > mine["value"] * (1.0 + 1e-9) for row, mine in pairs)
        seconds = [row["spent"] for row in of.values()]
        hard = [row["spent"] for instance, row in of.items() if "75%" in instance]
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
