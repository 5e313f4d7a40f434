"""Whole-network Fisher problems of MLPNet, selection and joint: see README.md."""

import argparse
import csv
import os
import tomllib
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from cbs.curvature.fisher import gradient_factor
from cbs.data import mnist
from cbs.network.evaluate import evaluate
from cbs.network.layers import find_layers
from cbs.network.surgery import clone
from cbs.zoo import mlpnet
from solvers import Budget, FactorHessian, SubsetProblem, get_solver, solve

HERE = Path(__file__).parent
FIELDS = (
    "variant", "gradients", "damping", "sparsity", "kept", "solver", "value", "bound", "gap_percent",
    "seconds", "test_accuracy",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("CBS_DATA"), help="default: CBS_DATA")
    parser.add_argument("--gradients", type=int, nargs="*", help="default: those of config.toml")
    parser.add_argument("--variant", choices=["selection", "joint"], help="default: both")
    parser.add_argument("--sparsities", type=float, nargs="*", help="default: those of config.toml")
    parser.add_argument("--solvers", nargs="*", help="default: those of config.toml")
    options = parser.parse_args()
    if options.data_dir is None:
        parser.error("name the data folder with --data-dir or CBS_DATA")
    config = tomllib.loads((HERE / "config.toml").read_text())
    split = mnist(options.data_dir)
    model = mlpnet(Path(options.data_dir) / config["weights"])
    layers = find_layers(model, None)
    w = np.concatenate([layer.module.weight.detach().numpy().ravel() for layer in layers])[None, :]
    for count in options.gradients or config["gradients"]:
        samples = split.train.choose(count, config["seed"])
        X = gradient_factor(model, layers, samples, F.cross_entropy).numpy().astype(np.float32)
        for variant in [options.variant] if options.variant else ["selection", "joint"]:
            hessian = FactorHessian(X, config[variant]["damping"])
            for sparsity in options.sparsities or config["sparsities"]:
                prune = round(sparsity * w.size)
                problem = SubsetProblem(w, hessian, Budget.per_layer(prune), refit=variant == "joint")
                for name in options.solvers or config[variant]["solvers"]:
                    found = solve(problem, get_solver(name), seed=config["seed"])
                    accuracy = (
                        100
                        * evaluate(refilled(model, found.weights[0]), split.test, F.cross_entropy).accuracy
                    )
                    add(
                        variant, count, hessian.damping, sparsity, w.size - prune, name, found.value,
                        found.bound, 100 * found.gap, found.seconds, accuracy,
                    )  # fmt: skip


def refilled(model: nn.Module, flat: np.ndarray) -> nn.Module:
    """A copy of the network with other weights, layer after layer."""
    copy, at = clone(model), 0
    with torch.no_grad():
        for layer in find_layers(copy, None):
            weight = layer.module.weight
            weight.copy_(torch.as_tensor(flat[at : at + weight.numel()]).reshape(weight.shape))
            at += weight.numel()
    return copy


def add(*row: object) -> None:
    """One line more in results/runs.csv, in place of an older one of the same case; and on the screen."""
    path = HERE / "results" / "runs.csv"
    path.parent.mkdir(exist_ok=True)
    shown = [f"{x:.6g}" if isinstance(x, float) else str(x) for x in row]
    lines = [] if not path.exists() else list(csv.reader(path.open()))[1:]
    lines = [line for line in lines if line[:6] != shown[:6]] + [shown]
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([FIELDS, *lines])
    print(" ".join(shown), flush=True)


if __name__ == "__main__":
    main()
