"""Optimal Brain Damage on a small convolutional network: see README.md."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.network.network import Network

EPOCHS, LEARNING_RATE = 80, 5e-3
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
"""Of every order of deletions; magnitude is priced by the exact one."""


def untrained(seed: int, activation: str) -> nn.Sequential:
    """8 and 16 feature maps, 18 hidden units: 2,608 parameters, 2,556 of them weights that may go."""
    kind = getattr(nn, activation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3), kind(), nn.Conv2d(8, 16, 3, stride=2, padding=1), kind(),
            nn.AvgPool2d(2, stride=1), nn.Flatten(), nn.Linear(64, 18), kind(), nn.Linear(18, 10),
        )  # fmt: skip


@cache
def data(loss: str) -> tuple[cbs.Samples, cbs.Samples]:
    """Digits of 8 x 8 to train on and to test with; one-hot targets for the squared error."""
    split = cbs.digits()

    def made(samples: cbs.Samples) -> cbs.Samples:
        one_hot = loss == "mse_loss"
        targets = F.one_hot(samples.targets, 10).float() if one_hot else samples.targets
        return cbs.Samples(samples.inputs.reshape(-1, 1, 8, 8).float(), targets)

    return made(split.train), made(split.test)


@cache
def dense(loss: str, seed: int, activation: str = "Tanh") -> Network:
    """The trained network with its data, the same for every part; it keeps what is computed of it."""
    model = untrained(seed, activation)
    cbs.train(
        model,
        data(loss)[0],
        epochs=EPOCHS,
        learning_rate=LEARNING_RATE,
        weight_decay=0.0,
        loss=loss,
        seed=seed,
    )
    return Network(model, data(loss)[0], loss=getattr(F, loss))


@torch.no_grad()
def measured(model: nn.Module, loss: str, suffix: str = "") -> dict[str, float]:
    """Loss and accuracy on training and test data, the loss in double precision."""
    found = {}
    for prefix, samples in zip(("", "test_"), data(loss), strict=True):
        outputs, squared = model(samples.inputs), loss == "mse_loss"
        value = getattr(F, loss)(outputs.double(), samples.targets.double() if squared else samples.targets)
        labels = samples.targets.argmax(dim=1) if squared else samples.targets
        found[f"{prefix}loss{suffix}"] = float(value)
        found[f"{prefix}accuracy{suffix}"] = float((outputs.argmax(dim=1) == labels).double().mean())
    return found


def weights(network: Network) -> np.ndarray:
    """All weights in a row."""
    return np.concatenate([part.W.ravel() for part in network.dense])


def values(network: Network, name: str) -> np.ndarray:
    """A diagonal, all weights in a row."""
    return np.concatenate([model.diagonal.ravel() for model in network(DIAGONALS[name])])


def diagonals(of: str, activation: str, seed: int) -> dict[str, Any]:
    """Every diagonal beside the exact one: ranks of h and of saliencies, and how much it is off in all."""
    network = dense(of, seed, activation)
    w, exact, found = weights(network), values(network, "exact"), []
    for name in DIAGONALS:
        h = values(network, name)
        found.append({
            "diagonal": name, "rank_h": spearmanr(h, exact).statistic,
            "rank_saliency": spearmanr(h * w**2, exact * w**2).statistic, "ratio": h.sum() / exact.sum(),
            "off": np.abs(h - exact).sum() / np.abs(exact).sum(), "negative": int((h < 0).sum()),
        })  # fmt: skip
    return {"diagonals": found}


def deletions(of: str, order: str, seed: int, step: int) -> dict[str, Any]:
    """Loss predicted and measured while more and more weights go, `step` by `step`, without retraining."""
    network = dense(of, seed)
    w, start = weights(network), measured(network.model, of)["loss"]
    damage = 0.5 * values(network, CURVATURES.get(order, "exact")) * w**2
    ranks = np.argsort(np.abs(w) if order == "magnitude" else damage, kind="stable")
    rows = []
    for count in range(0, len(w), step):
        predicted = float(start + damage[ranks[:count]].sum())
        pruned = without(network, ranks[:count])
        rows.append({"deleted": count, "predicted": predicted, **measured(pruned, of)})
    return {"curve": {name: [row[name] for row in rows] for name in rows[0]}}


def without(network: Network, gone: np.ndarray) -> nn.Module:
    """A copy of the network in which weights are zero, by their places in all of them."""
    pruned = copy.deepcopy(network.model)
    mask = np.zeros(sum(layer.size for layer in network.layers), dtype=bool)
    mask[gone] = True
    ends = np.cumsum([layer.size for layer in network.layers])
    for layer, part in zip(network.layers, np.split(mask, ends[:-1]), strict=True):
        weight = pruned.get_submodule(layer.name).weight
        weight.data[torch.from_numpy(part).reshape(weight.shape)] = 0.0
    return pruned


def retraining(of: str, method: str, seed: int, stages: int, highest: float, epochs: int) -> dict[str, Any]:
    """Train, delete, retrain, repeat, up to the highest sparsity; what was deleted stays so."""
    model, train = dense(of, seed).model, data(of)[0]
    rows = [{"deleted": 0, **measured(model, of, "_before"), **measured(model, of)}]
    for stage in range(1, stages + 1):
        sparsity = highest * stage / stages
        result = cbs.prune(
            model, train, sparsity=sparsity, method=method, scope="network", loss=of, certify=False, seed=seed
        )
        model, size = result.model, sum(mask.numel() for mask in result.masks.values())
        before = measured(model, of, "_before")
        cbs.train(
            model, train, epochs=epochs, loss=of, weight_decay=0.0, learning_rate=LEARNING_RATE, seed=seed
        )
        rows.append({"deleted": round(sparsity * size), **before, **measured(model, of)})
    return {"curve": {name: [row[name] for row in rows] for name in rows[0]}}
