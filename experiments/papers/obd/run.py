"""Optimal Brain Damage on a small convolutional network: see README.md."""

from __future__ import annotations

import argparse
import copy
import csv
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.network.network import Network

HERE = Path(__file__).parent
RESULTS, README = HERE / "results", HERE / "README.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
CONFIG = tomllib.loads((HERE / "config.toml").read_text())
DIAGONALS = {
    "exact": cbs.HessianDiagonal(),
    "recursion": cbs.RecursionDiagonal(),
    "recursion without f''": cbs.RecursionDiagonal(second=False),
    "Gauss-Newton": cbs.GaussNewtonDiagonal(),
    "Hutchinson, 30 probes": cbs.Hutchinson(30),
    "Hutchinson, 100 probes": cbs.Hutchinson(100),
    "Fisher (OBD-SD)": cbs.FisherDiagonal(),
    "spread (OBD-SD)": cbs.GaussNewtonSpread(),
}
CURVATURES = {"obd-exact": "exact", "obd-recursion": "recursion", "obd": "Gauss-Newton"}
HOLDS = 1.25
"""The prediction holds while predicted and measured loss are this near, as a ratio."""
ALIKE = 0.01
"""Test accuracy lost that counts as unchanged: 3 to 4 of the 360 digits."""


def untrained(seed: int, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """8 and 16 feature maps, 18 hidden units: 2,608 parameters, 2,556 of them weights that may go."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3), activation(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), activation(), nn.AvgPool2d(2, stride=1),
            nn.Flatten(), nn.Linear(64, 18), activation(), nn.Linear(18, 10),
        )  # fmt: skip


@cache
def data(loss: str) -> tuple[cbs.Samples, cbs.Samples]:
    """Digits of 8 x 8 to train on and to test with; one-hot targets for the squared error."""
    split = cbs.digits()

    def made(samples: cbs.Samples) -> cbs.Samples:
        targets = samples.targets
        if loss == "mse_loss":
            targets = F.one_hot(targets, 10).float()
        return cbs.Samples(samples.inputs.reshape(-1, 1, 8, 8).float(), targets)

    return made(split.train), made(split.test)


@cache
def trained(seed: int, loss: str, activation: type[nn.Module] = nn.Tanh) -> nn.Module:
    """The network after training; the same for every part of the experiment."""
    model = untrained(seed, activation)
    cbs.train(
        model, data(loss)[0], epochs=CONFIG["epochs"], learning_rate=CONFIG["learning_rate"],
        weight_decay=CONFIG["weight_decay"], loss=loss, seed=seed,
    )  # fmt: skip
    return model


@torch.no_grad()
def measured(model: nn.Module, samples: cbs.Samples, loss: str) -> tuple[float, float]:
    """Loss and accuracy, the loss in double precision."""
    outputs = model(samples.inputs)
    targets = samples.targets.double() if loss == "mse_loss" else samples.targets
    value = getattr(F, loss)(outputs.double(), targets)
    labels = samples.targets.argmax(dim=1) if loss == "mse_loss" else samples.targets
    return float(value), float((outputs.argmax(dim=1) == labels).double().mean())


class Rows:
    """Raw rows of a file, kept as they come; a key of its first columns is computed once."""

    def __init__(self, name: str, fields: tuple[str, ...], keys: int) -> None:
        self.path, self.fields, self.keys = RESULTS / f"{name}.csv", fields, keys
        self.rows: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                self.rows = list(csv.DictReader(file))

    def has(self, *key: Any) -> bool:
        """Whether there are rows of a key."""
        return any(tuple(row.values())[: self.keys] == tuple(map(str, key)) for row in self.rows)

    def add(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Keep all rows of a key, at once."""
        self.rows += [dict(zip(self.fields, map(str, row), strict=True)) for row in rows]
        RESULTS.mkdir(exist_ok=True)
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.fields)
            writer.writeheader()
            writer.writerows(self.rows)

    def of(self, *key: Any) -> list[dict[str, str]]:
        """The rows whose first columns are these."""
        wanted = tuple(map(str, key))
        return [row for row in self.rows if tuple(row.values())[: len(wanted)] == wanted]

    def runs(self, loss: str, what: str, seeds: list[int]) -> list[list[dict[str, str]]]:
        """The rows of every seed that is there."""
        return [rows for seed in seeds if (rows := self.of(loss, what, seed))]


@cache
def dense(loss: str, seed: int, activation: type[nn.Module] = nn.Tanh) -> Network:
    """The trained network with its data, which keeps what is computed of it."""
    return Network(trained(seed, loss, activation), data(loss)[0], loss=getattr(F, loss))


def weights(network: Network) -> np.ndarray:
    """All weights in a row."""
    return np.concatenate([part.W.ravel() for part in network.dense])


def values(network: Network, name: str) -> np.ndarray:
    """A diagonal, all weights in a row."""
    return np.concatenate([model.diagonal.ravel() for model in network(DIAGONALS[name])])


def diagonals(rows: Rows) -> None:
    """Every diagonal beside the exact one: ranks of h and of saliencies, and how much it is off in all."""
    for loss in CONFIG["losses"]:
        for kind in (getattr(nn, name) for name in CONFIG["activations"]):
            for seed in CONFIG["diagonal_seeds"]:
                if rows.has(loss, kind.__name__, seed):
                    continue
                network = dense(loss, seed, kind)
                w, exact = weights(network), values(network, "exact")
                found = []
                for name in DIAGONALS:
                    h = values(network, name)
                    ranks = (spearmanr(h, exact).statistic, spearmanr(h * w**2, exact * w**2).statistic)
                    off = np.abs(h - exact).sum() / np.abs(exact).sum()
                    sums = h.sum() / exact.sum(), off, (h < 0).sum()
                    found.append((loss, kind.__name__, seed, name, *ranks, *sums))
                rows.add(found)
                print(f"diagonals: {loss} {kind.__name__} seed {seed}", flush=True)


def deletions(rows: Rows) -> None:
    """Loss predicted and measured while more and more weights go, without retraining."""
    for loss in CONFIG["losses"]:
        for seed in CONFIG["seeds"]:
            model, (train, test) = trained(seed, loss), data(loss)
            network = dense(loss, seed)
            w, start = weights(network), measured(model, train, loss)[0]
            for order in CONFIG["orders"]:
                if rows.has(loss, order, seed):
                    continue
                h = values(network, CURVATURES.get(order, "exact"))
                damage = 0.5 * h * w**2
                ranks = np.argsort(np.abs(w) if order == "magnitude" else damage, kind="stable")
                found = []
                for count in range(0, len(w), CONFIG["step"]):
                    pruned = without(model, network, ranks[:count])
                    after, accuracy = measured(pruned, train, loss)
                    tested = measured(pruned, test, loss)
                    predicted = start + damage[ranks[:count]].sum()
                    found.append((loss, order, seed, count, predicted, after, accuracy, *tested))
                rows.add(found)
                print(f"deletions: {loss} {order} seed {seed}", flush=True)


def without(model: nn.Module, network: Network, gone: np.ndarray) -> nn.Module:
    """A copy of the network in which weights are zero, by their places in all of them."""
    pruned = copy.deepcopy(model)
    mask = np.zeros(sum(layer.size for layer in network.layers), dtype=bool)
    mask[gone] = True
    ends = np.cumsum([layer.size for layer in network.layers])
    for layer, part in zip(network.layers, np.split(mask, ends[:-1]), strict=True):
        weight = pruned.get_submodule(layer.name).weight
        weight.data[torch.from_numpy(part).reshape(weight.shape)] = 0.0
    return pruned


def retraining(rows: Rows) -> None:
    """Train, delete, retrain, repeat; what was deleted stays so."""
    for loss in CONFIG["retrain_losses"]:
        for seed in CONFIG["retrain_seeds"]:
            for method in CONFIG["retrain_methods"]:
                if rows.has(loss, method, seed):
                    continue
                model, (train, test) = trained(seed, loss), data(loss)
                start = measured(model, train, loss), measured(model, test, loss)
                found = [(loss, method, seed, 0, *start[0], *start[1], *start[0], *start[1])]
                for stage in range(1, CONFIG["stages"] + 1):
                    fraction = CONFIG["highest"] * stage / CONFIG["stages"]
                    result = cbs.prune(
                        model, train, sparsity=fraction, method=method, scope="network", loss=loss,
                        certify=False, seed=seed,
                    )  # fmt: skip
                    model, size = result.model, sum(mask.numel() for mask in result.masks.values())
                    before = measured(model, train, loss), measured(model, test, loss)
                    cbs.train(
                        model, train, epochs=CONFIG["retrain_epochs"], loss=loss, weight_decay=0.0,
                        learning_rate=CONFIG["learning_rate"], seed=seed,
                    )  # fmt: skip
                    after = measured(model, train, loss), measured(model, test, loss)
                    count = round(fraction * size)
                    found.append((loss, method, seed, count, *before[0], *before[1], *after[0], *after[1]))
                rows.add(found)
                print(f"retraining: {loss} {method} seed {seed}", flush=True)


def holds(rows: list[dict[str, str]]) -> int:
    """Deletions up to which the predicted loss is within `HOLDS` of the measured one."""
    last = 0
    for row in rows:
        predicted, loss = float(row["predicted"]), float(row["loss"])
        if not loss / HOLDS <= predicted <= loss * HOLDS:
            break
        last = int(row["deleted"])
    return last


def increase(rows: list[dict[str, str]], count: int) -> float:
    """Predicted over measured increase of the loss, at about so many deletions."""
    row, start = min(rows, key=lambda row: abs(int(row["deleted"]) - count)), float(rows[0]["loss"])
    return (float(row["predicted"]) - start) / (float(row["loss"]) - start)


def unchanged(rows: list[dict[str, str]], column: str) -> int:
    """Most deletions up to which test accuracy is that of the dense network but for `ALIKE`."""
    last, dense = 0, float(rows[0][column])
    for row in rows:
        if float(row[column]) < dense - ALIKE:
            break
        last = int(row["deleted"])
    return last


def spread(found: list[float], form: str = "{:.3f}") -> str:
    """Mean, and the standard deviation over seeds."""
    if len(found) == 1:
        return form.format(found[0])
    return f"{form} +- {form}".format(np.mean(found), np.std(found, ddof=1))


def tables(found: dict[str, Rows]) -> str:
    """All tables, in Markdown."""
    lines = [
        "### Diagonals beside the exact one", "",
        "| loss | activation | diagonal | rank correlation of h | of h w^2 | sum / exact sum | negative |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for loss in CONFIG["losses"]:
        for kind in CONFIG["activations"]:
            for name in DIAGONALS:
                own = [row for row in found["diagonals"].of(loss, kind) if row["diagonal"] == name]
                if not own:
                    continue
                cells = [spread([float(row[c]) for row in own]) for c in ("rank_h", "rank_saliency", "ratio")]
                negative = np.mean([float(row["negative"]) for row in own])
                lines.append(f"| {loss} | {kind} | {name} | {' | '.join(cells)} | {negative:.0f} |")
    size = sum(p.numel() for p in untrained(0).parameters() if p.ndim > 1)
    lines += [
        "", f"### Deletions of {size} weights without retraining", "",
        "| loss | order | loss as predicted up to | increase predicted / measured at 300 | at 800 "
        "| at 1,500 | test accuracy unchanged up to |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for loss in CONFIG["losses"]:
        for order in CONFIG["orders"]:
            runs = found["deletions"].runs(loss, order, CONFIG["seeds"])
            if not runs:
                continue
            cells = [
                spread([holds(rows) for rows in runs], "{:.0f}"),
                *(f"{np.median([increase(rows, k) for rows in runs]):.2f}" for k in (300, 800, 1500)),
                spread([unchanged(rows, "test_accuracy") for rows in runs], "{:.0f}"),
            ]
            lines.append(f"| {loss} | {order} | {' | '.join(cells)} |")
    lines += [
        "", "### Train, delete, retrain, repeat", "",
        "| loss | method | test accuracy unchanged up to | share | dense | at 60% deleted | at 90% |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for loss in CONFIG["retrain_losses"]:
        for method in CONFIG["retrain_methods"]:
            runs = found["retraining"].runs(loss, method, CONFIG["retrain_seeds"])
            if not runs:
                continue
            ends = [unchanged(rows, "test_accuracy") for rows in runs]
            cells = [spread(ends, "{:.0f}"), f"{np.mean(ends) / size:.0%}"]
            for k in (0, 0.6, 0.9):
                near = [min(rows, key=lambda r: abs(int(r["deleted"]) - k * size)) for rows in runs]
                cells.append(spread([100 * float(row["test_accuracy"]) for row in near], "{:.2f}"))
            lines.append(f"| {loss} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plots(found: dict[str, Rows]) -> None:
    """Predicted and measured loss over deletions; test accuracy with retraining."""
    first, more = len(CONFIG["losses"]), len(CONFIG["retrain_losses"])
    fig, axes = plt.subplots(1, first + more, figsize=(5 * (first + more), 4), layout="constrained")
    for axis, loss in zip(axes[:first], CONFIG["losses"], strict=True):
        for color, order in enumerate(CONFIG["orders"]):
            runs = found["deletions"].runs(loss, order, CONFIG["seeds"])
            counts = [int(row["deleted"]) for row in runs[0]]
            for column, style in (("loss", "-"), ("predicted", ":")):
                logs = [[np.log(max(float(row[column]), 1e-9)) for row in rows] for rows in runs]
                mean = np.exp(np.mean(logs, axis=0))
                label = f"{order}, {'measured' if column == 'loss' else 'predicted'}"
                axis.plot(counts, mean, style, color=f"C{color}", label=label)
        axis.set(yscale="log", title=f"without retraining, {loss}", xlabel="weights deleted", ylabel="loss")
        axis.axvline(800, color="grey", lw=0.5)
        axis.legend(fontsize=6)
    for axis, loss in zip(axes[first:], CONFIG["retrain_losses"], strict=True):
        for color, method in enumerate(CONFIG["retrain_methods"]):
            runs = found["retraining"].runs(loss, method, CONFIG["retrain_seeds"])
            if not runs:
                continue
            counts = [int(row["deleted"]) for row in runs[0]]
            for column, style in (("test_accuracy", "-"), ("test_accuracy_before", ":")):
                mean = np.mean([[100 * float(row[column]) for row in rows] for rows in runs], axis=0)
                label = f"{method}{'' if column == 'test_accuracy' else ', before retraining'}"
                axis.plot(counts, mean, style, color=f"C{color}", label=label)
        axis.set(title=f"with retraining, {loss}", xlabel="weights deleted", ylabel="test accuracy %")
        axis.set_ylim(40, 100)
        axis.axvline(1500, color="grey", lw=0.5)
        axis.legend(fontsize=6)
    fig.savefig(RESULTS / "plot.png", dpi=110)


def main() -> None:
    """Compute what is missing, then write the tables into README.md and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("diagonals", "deletions", "retraining"), help="one part")
    parser.add_argument("--seeds", type=int, nargs="+", help="of those in config.toml, the ones to run now")
    parser.add_argument("--losses", nargs="+", help="likewise")
    parser.add_argument("--draw", action="store_true", help="tables and plot of the rows that are there")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tail = ("loss", "accuracy", "test_loss", "test_accuracy")
    found = {
        "diagonals": Rows(
            "diagonals",
            ("of", "activation", "seed", "diagonal", "rank_h", "rank_saliency", "ratio", "off", "negative"),
            3,
        ),
        "deletions": Rows("deletions", ("of", "order", "seed", "deleted", "predicted", *tail), 3),
        "retraining": Rows(
            "retraining", ("of", "method", "seed", "deleted", *(f"{name}_before" for name in tail), *tail), 3
        ),
    }  # fmt: skip
    whole = {name: list(CONFIG[name]) for name in CONFIG if name.endswith(("seeds", "losses"))}
    for name in whole:
        given = asked.seeds if name.endswith("seeds") else asked.losses
        CONFIG[name] = [value for value in whole[name] if given is None or value in given]
    for name, part in (("deletions", deletions), ("diagonals", diagonals), ("retraining", retraining)):
        if not asked.draw and asked.only in (None, name):
            part(found[name])
    CONFIG.update(whole)
    if asked.draw or (asked.only, asked.seeds, asked.losses) == (None, None, None):
        text = tables(found)
        (RESULTS / "table.md").write_text(text)
        before, rest = README.read_text().split(BEGIN)
        README.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}")
        plots(found)
        print(text)


if __name__ == "__main__":
    main()
