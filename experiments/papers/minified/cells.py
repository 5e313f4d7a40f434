"""Small networks on MNIST pruned, fine-tuned, trained from scratch and quantized: see README.md."""

import copy
import time
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import nn

import cbs
import solvers
from cbs.network.evaluate import evaluate
from cbs.network.network import Network
from cbs.quantization.stored import pruned_bytes
from cbs.selection.neuron_joint import columns_problem

IMAGES = {"mlp": 10_000, "cnn": 4_000}
"""Training images, of 60,000; the test images are all 10,000."""
CALIBRATE = 2_000
"""Of them, for curvatures and Grams."""
DENSE, TUNE, TUNING_RATE = 10, 5, 1e-3
"""Epochs of the dense network and of fine-tuning; from scratch takes both."""
LIMIT, PROOF = 3, 6.0
"""Seconds of a pruning's searches; of a solver's proof for columns."""
PROVING = ("branch-and-bound", "auto")
WAYS = ("tuned", "pruned", "random", "original")
"""What becomes of a pruning; the last two train its architecture from random weights, or the first ones."""


def untrained(network: str) -> nn.Module:
    """784-64-32-10, or a small convolutional network with batch norms."""
    if network == "mlp":
        layers = [part for a, b in pairwise((784, 64, 32, 10)) for part in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers[:-1])
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(4),
        nn.Flatten(), nn.Linear(144, 10),
    )  # fmt: skip


@lru_cache(maxsize=1)
def mnist():
    """Training and test images."""
    return cbs.mnist()


@lru_cache(maxsize=2)
def trained(network: str, seed: int):
    """First weights, the dense network, its images, those for curvatures, and the seconds of training."""
    train = mnist().train.choose(IMAGES[network], seed)
    torch.manual_seed(seed)
    initial = untrained(network)
    model, began = copy.deepcopy(initial), time.process_time()
    cbs.train(model, train, epochs=DENSE, seed=seed)
    return initial, model, train, train.choose(CALIBRATE, seed), time.process_time() - began


def measured(model: nn.Module, seconds: float, **facts):
    """What a network is and does, on all test images."""
    found = evaluate(model, mnist().test, nn.functional.cross_entropy)
    kept = sum(int((value != 0).sum()) for value in model.state_dict().values() if value.is_floating_point())
    return {
        "accuracy": found.accuracy, "loss": found.loss, "parameters": kept, "cpu_seconds": round(seconds, 2),
        "bytes": pruned_bytes(model) if "bytes" not in facts else facts["bytes"], **facts,
    }  # fmt: skip


def dense(network: str, seed: int):
    """The dense network."""
    _, model, *_, seconds = trained(network, seed)
    return measured(model, seconds)


def prune(network: str, what: str, method: str, amount: float, scratch: bool, seed: int):
    """One pruning, and what becomes of it.

    Args:
        network: `mlp` or `cnn`.
        what: goes: `weights`, by one budget, or `neurons`, the same share of every layer.
        method: that chooses.
        amount: share that goes.
        scratch: whether its architecture is trained from scratch, too.
        seed: of the network, its images, and all draws.
    """
    initial, model, train, few, _ = trained(network, seed)
    began = time.process_time()
    result = cbs.prune(
        model, few, sparsity=amount, method=method, granularity=what, certify=False, seed=seed,
        scope="network" if what == "weights" else "layer", solver="greedy" if method == "joint" else "auto",
        time_limit=LIMIT,
    )  # fmt: skip
    spent, found = time.process_time() - began, []
    pruned = result.model if what == "weights" else result.permanent()
    neurons = list(result.history[0].stats.get("neurons", {}).values())
    facts = {"value": result.value}
    if neurons and all(each["bound"] is not None for each in neurons):
        facts = {name: sum(each[name] for each in neurons) for name in ("value", "bound")}
    for how in WAYS if scratch else WAYS[:2]:
        began, epochs = time.process_time(), DENSE + TUNE
        if how == "pruned":
            found.append({"how": how, **measured(pruned, spent, **facts)})
            continue
        if how == "tuned":
            network_of, more = copy.deepcopy(pruned), {"epochs": TUNE, "learning_rate": TUNING_RATE}
        else:
            first = {"initial": initial} if how == "original" else {}
            network_of, more = cbs.from_scratch(result, how, seed=seed + 100, **first), {"epochs": epochs}
        cbs.train(network_of, train, seed=seed, **more)
        seconds = time.process_time() - began + (spent if how == "tuned" else 0.0)
        found.append({"how": how, **measured(network_of, seconds)})
    return {"ways": found}


def quantize(network: str, rounding: str, bits: int, seed: int):
    """The dense network in so many bits, a grid for every row."""
    _, model, _, few, _ = trained(network, seed)
    began = time.process_time()
    found = cbs.quantize(model, few, bits=bits, per="row", rounding=rounding)
    return measured(found.model, time.process_time() - began, bytes=found.bytes, value=found.value)


@lru_cache(maxsize=1)
def instances(network: str):
    """Problems by name: hidden layers of a network at two counts, and the inputs of the MLP's first layer."""
    if network == "digits":
        model, split = cbs.trained_digits_mlp()
        known = Network(model, split.train)
    else:
        _, model, _, few, _ = trained(network, 0)
        known = Network(model, few)
    models, found = {model.name: model for model in known(cbs.Gram())}, {}
    for group in known.neurons:
        for share in (0.5, 0.75):
            none, count = np.zeros(group.count, dtype=bool), round(share * group.count)
            found[f"{group.name} {share}"] = columns_problem(group, models, count, none, {})
    if network == "mlp":
        found["inputs 0.5"] = known(cbs.Gram())[0].problem(solvers.Budget.columns(392))
    return found


def columns(network: str, group: str, share: float, solver: str):
    """What a solver makes of the columns that neurons feed."""
    problem = instances(network)[f"{group} {share}"]
    width = problem.pools.width
    solvers.get_solver(solver).prepare()
    began = time.process_time()
    found = solvers.solve(problem, solver, time_limit=PROOF if solver in PROVING else None)
    seconds = time.process_time() - began
    return {
        "m": problem.m, "n": problem.n, "budget": problem.budget.kind, "status": found.status.value,
        "units": len(problem.prunable) // width, "width": width,
        "pruned": int(problem.pools.prune[0]) // width, "value": found.value,
        "bound": found.bound if np.isfinite(found.bound) and found.bound > 0 else None,
        "cpu_seconds": round(seconds, 3),
    }  # fmt: skip
