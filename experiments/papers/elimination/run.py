"""Every rule of elimination-compensation before and after retraining, on MNIST and on diffusion-sorption.

Rows that are in `results/` already are not computed again: delete a file to start afresh. Without an argument
both data sets are run, and tables and plots made of the rows; `run.py tables` makes these alone.
"""

import copy
import csv
import os
import sys
import time
import tomllib
from itertools import pairwise
from pathlib import Path

import diffusion
import numpy as np
import tables
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.curvature import Gram, OutputDiagonal
from cbs.network.evaluate import evaluate
from cbs.network.network import Network
from cbs.references import References
from cbs.request import Request
from cbs.selection import Job, Scores
from cbs.watch import Watch

HERE = Path(__file__).parent
RESULTS = HERE / "results"
FIELDS = [
    "network", "noise", "seed", "rule", "sparsity", "kept", "error", "train_loss", "test_loss",
    "test_accuracy", "more_test_loss", "more_test_accuracy", "seconds",
]  # fmt: skip


def network_of(sizes, seed):
    """An untrained network with PReLU between its layers."""
    torch.manual_seed(seed)
    parts = [[nn.Linear(a, b), nn.PReLU()] for a, b in pairwise(sizes)]
    return nn.Sequential(nn.Flatten(), *[part for pair in parts for part in pair][:-1])


def sizes_of(name):
    return [int(size) for size in name.split("-")]


def narrower(name, sparsity):
    """The widths, all hidden ones scaled alike, with no more weights than are left of a network."""
    sizes = sizes_of(name)
    left = (1 - sparsity) * sum(a * b for a, b in pairwise(sizes))
    for scale in np.linspace(1.0, 0.0, 1001):
        tried = [sizes[0], *[max(1, round(scale * size)) for size in sizes[1:-1]], sizes[-1]]
        if sum(a * b for a, b in pairwise(tried)) <= left:
            return tried
    return tried


class Rows:
    """A file of rows, which knows what it has."""

    def __init__(self, path):
        self.path, self.there = path, set()
        if path.exists():
            self.there = {self.key(row) for row in csv.DictReader(path.open())}
        else:
            path.parent.mkdir(exist_ok=True)
            with path.open("w", newline="") as file:
                csv.DictWriter(file, FIELDS).writeheader()

    @staticmethod
    def key(row):
        """What tells rows apart."""
        return row["network"], float(row["noise"]), int(row["seed"]), row["rule"], float(row["sparsity"])

    def add(self, row):
        """Write a row at once."""
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, FIELDS).writerow({k: tables.short(v) for k, v in row.items()})
        self.there.add(self.key(row))


@torch.no_grad()
def output_error(dense, pruned, data):
    """`1/2 E|dy|^2` on data, what the rules estimate."""
    return 0.5 * float((dense(data.inputs) - pruned(data.inputs)).double().square().sum(dim=1).mean())


def measured(prefix, model, test, loss):
    """Loss and accuracy on the test data, as fields of a row."""
    found = evaluate(model, test, loss)
    accuracy = "" if found.accuracy is None else found.accuracy
    return {f"{prefix}test_loss": found.loss, f"{prefix}test_accuracy": accuracy}


def run(config, settings, rows, name, noise, seed, train, test, loss):
    """All rules on one trained network."""
    options = {"batch": settings["batch"], "learning_rate": settings["learning_rate"], "weight_decay": 0.0}
    options |= {"loss": loss.__name__, "seed": seed}
    base = {"network": name, "noise": noise, "seed": seed}
    wanted = [(rule, s) for rule in config["rules"] for s in config["sparsities"]]
    wanted += [("narrower", s) for s in config["retrained"]] + [("dense", 0.0)]
    if ranked(base) and all(
        Rows.key(base | {"rule": rule, "sparsity": s}) in rows.there for rule, s in wanted
    ):
        return
    model = network_of(sizes_of(name), seed)
    began = time.process_time()
    cbs.train(model, train, epochs=settings["epochs"], **options)
    seconds = time.process_time() - began
    calibration = train.choose(settings["calibration"], seed)
    print(f"{name} noise {noise:g} seed {seed}: trained in {seconds:.1f} s", flush=True)

    def tell(rule, sparsity, pruned, kept, seconds, retrain):
        row = base | {"rule": rule, "sparsity": sparsity, "kept": kept, "seconds": seconds}
        row |= {"error": output_error(model, pruned, calibration)}
        row |= {"train_loss": evaluate(pruned, calibration, loss).loss} | measured("", pruned, test, loss)
        if retrain:
            more = copy.deepcopy(pruned)
            cbs.train(more, train, epochs=settings["more"], **options)
            row |= measured("more_", more, test, loss)
        rows.add(row)

    for rule in config["rules"]:
        left = [
            s
            for s in config["sparsities"]
            if Rows.key(base | {"rule": rule, "sparsity": s}) not in rows.there
        ]
        if not left:
            continue
        began = time.process_time()
        results = cbs.compare(
            model, calibration, sparsities=left, methods=[rule], loss=loss.__name__, certify=False, seed=seed
        )
        seconds = (time.process_time() - began) / len(left)
        for s, result in zip(left, results, strict=True):
            tell(rule, s, result.model, sum(x.kept for x in result.layers), seconds, s in config["retrained"])
    for s in config["retrained"]:
        if Rows.key(base | {"rule": "narrower", "sparsity": s}) not in rows.there:
            sizes = narrower(name, s)
            small = network_of(sizes, seed)
            began = time.process_time()
            cbs.train(small, train, epochs=settings["epochs"], **options)
            tell(
                "narrower",
                s,
                small,
                sum(a * b for a, b in pairwise(sizes)),
                time.process_time() - began,
                True,
            )
    if Rows.key(base | {"rule": "dense", "sparsity": 0.0}) not in rows.there:
        tell("dense", 0.0, model, sum(a * b for a, b in pairwise(sizes_of(name))), seconds, True)
    if not ranked(base):
        rank(base, model, calibration, loss)


def ranked(base):
    """Whether `ranks.csv` has a network."""
    path = RESULTS / "ranks.csv"
    known = csv.DictReader(path.open()) if path.exists() else []
    return any(
        (row["network"], float(row["noise"]), int(row["seed"])) == tuple(base.values()) for row in known
    )


def rank(base, model, calibration, loss):
    """Write down how the linear and the measured importances of one network are ranked alike."""
    network = Network(model, calibration, loss=loss)
    found = {}
    for rule, curvature in (("elimination", OutputDiagonal()), ("ablation", Gram().damped(network.damping))):
        request = Request(0.5, method="elimination", certify=False)
        watch = Watch(rule, request, len(network.layers), None)
        job = Job(network, curvature, request, watch, References(network), np.random.default_rng(0))
        found[rule] = np.concatenate([Scores(rule).scores(job, m)[0].ravel() for m in job.quadratics])
    linear, true = found["elimination"], found["ablation"]
    live = true > 1e-12 * true.max()
    path = RESULTS / "ranks.csv"
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["network", "noise", "seed", "weights", "live", "spearman", "spearman_live"])
        both = [f"{spearmanr(linear[at], true[at]).statistic:.4f}" for at in (slice(None), live)]
        writer.writerow([*base.values(), live.size, int(live.sum()), *both])


def asked(settings):
    """Seeds and networks, seed by seed: what is done first is a whole."""
    return sorted((seed, name) for name, seeds in settings["networks"].items() for seed in seeds)


def mnist(config):
    """Classification."""
    settings, rows = config["mnist"], Rows(RESULTS / "mnist.csv")
    split = cbs.mnist(os.environ["CBS_DATA"])
    train = split.train.choose(settings["images"], 0)
    for seed, name in asked(settings):
        run(config, settings, rows, name, 0.0, seed, train, split.test, F.cross_entropy)


def sorption(config):
    """Regression."""
    settings, rows = config["diffusion"], Rows(RESULTS / "diffusion.csv")
    train, test = diffusion.dataset(settings["trajectories"], settings["points"])
    for seed, name in asked(settings):
        for noise in settings["noises"]:
            known = diffusion.noisy(train, noise, seed)
            run(config, settings, rows, name, noise, seed, known, test, F.mse_loss)


def main():
    config = tomllib.loads((HERE / "config.toml").read_text())
    parts = sys.argv[1:] or ["mnist", "diffusion"]
    if "mnist" in parts:
        mnist(config)
    if "diffusion" in parts:
        sorption(config)
    tables.write(RESULTS)


if __name__ == "__main__":
    main()
