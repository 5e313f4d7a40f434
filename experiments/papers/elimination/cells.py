"""Every rule of elimination-compensation before and after retraining: see README.md."""

import copy
import time
from functools import cache, lru_cache
from itertools import pairwise

import diffusion
import numpy as np
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

RETRAINED = (0.0, 0.5, 0.8, 0.9)
"""Sparsities after which there is some training."""
TASKS = {
    "mnist": {
        "loss": F.cross_entropy, "calibration": 1000, "epochs": 15, "more": 3, "batch": 64,
        "learning_rate": 1e-3,
    },
    "diffusion": {
        "loss": F.mse_loss, "calibration": 2000, "epochs": 60, "more": 15, "batch": 256,
        "learning_rate": 3e-3,
    },
}  # fmt: skip
"""Samples for expectations, epochs of training and after pruning (the paper's are as many for MNIST)."""
IMAGES, TRAJECTORIES, POINTS = 10_000, 200, 60
"""Of MNIST's 60,000; solved, a fifth of them to test with; of a trajectory, at random times and places."""


@cache
def data(task: str):
    """Samples to train on and to test with, without noise."""
    if task == "diffusion":
        return diffusion.dataset(TRAJECTORIES, POINTS)
    found = cbs.mnist()
    return found.train.choose(IMAGES, 0), found.test


def network_of(sizes, seed: int) -> nn.Module:
    """An untrained network with PReLU between its layers."""
    torch.manual_seed(seed)
    parts = [[nn.Linear(a, b), nn.PReLU()] for a, b in pairwise(sizes)]
    return nn.Sequential(nn.Flatten(), *[part for pair in parts for part in pair][:-1])


def weights(sizes) -> int:
    """Weights of a network of these widths."""
    return sum(a * b for a, b in pairwise(sizes))


def narrower(sizes, sparsity: float):
    """The widths, all hidden ones scaled alike, with no more weights than are left of a network."""
    for scale in np.linspace(1.0, 0.0, 1001):
        tried = [sizes[0], *[max(1, round(scale * size)) for size in sizes[1:-1]], sizes[-1]]
        if weights(tried) <= (1 - sparsity) * weights(sizes):
            break
    return tried


def trained_for(model: nn.Module, train, task: str, epochs: str, seed: int) -> float:
    """Train by a task's settings; gives the processor's seconds."""
    own, began = TASKS[task], time.process_time()
    cbs.train(
        model, train, epochs=own[epochs], batch=own["batch"], learning_rate=own["learning_rate"],
        weight_decay=0.0, loss=own["loss"].__name__, seed=seed,
    )  # fmt: skip
    return time.process_time() - began


@lru_cache(maxsize=2)
def dense(task: str, network: str, noise: float, seed: int):
    """The trained network, its seconds, training, calibration and test samples."""
    train, test = data(task)
    if task == "diffusion":
        train = diffusion.noisy(train, noise, seed)
    model = network_of([int(size) for size in network.split("-")], seed)
    seconds = trained_for(model, train, task, "epochs", seed)
    return model, seconds, train, train.choose(TASKS[task]["calibration"], seed), test


def prune(task: str, network: str, noise: float, rule: str, sparsity: float, seed: int):
    """A rule on one trained network; `narrower` is a network of fewer weights, `dense` the network itself."""
    model, seconds, train, calibration, test = dense(task, network, noise, seed)
    sizes, loss = [int(size) for size in network.split("-")], TASKS[task]["loss"]
    if rule == "dense":
        pruned, kept = model, weights(sizes)
    elif rule == "narrower":
        sizes = narrower(sizes, sparsity)
        pruned, kept = network_of(sizes, seed), weights(sizes)
        seconds = trained_for(pruned, train, task, "epochs", seed)
    else:
        began = time.process_time()
        result = cbs.prune(
            model, calibration, sparsity=sparsity, method=rule, loss=loss.__name__, certify=False, seed=seed
        )
        seconds = time.process_time() - began
        pruned, kept = result.model, sum(layer.kept for layer in result.layers)
    after = evaluate(pruned, test, loss)
    found = {
        "kept": kept, "error": output_error(model, pruned, calibration), "loss": after.loss,
        "accuracy": after.accuracy, "train_loss": evaluate(pruned, calibration, loss).loss,
        "cpu_seconds": seconds,
    }  # fmt: skip
    if rule == "narrower" or sparsity in RETRAINED:
        more = copy.deepcopy(pruned)
        trained_for(more, train, task, "more", seed)
        after = evaluate(more, test, loss)
        found |= {"more_loss": after.loss, "more_accuracy": after.accuracy}
    return found


@torch.no_grad()
def output_error(dense, pruned, data) -> float:
    """`1/2 E|dy|^2` on data, what the rules estimate."""
    return 0.5 * float((dense(data.inputs) - pruned(data.inputs)).double().square().sum(dim=1).mean())


def ranks(task: str, network: str, noise: float, seed: int):
    """How the linear and the measured importances of one network are ranked alike."""
    model, _, _, calibration, _ = dense(task, network, noise, seed)
    known, found = Network(model, calibration, loss=TASKS[task]["loss"]), {}
    for rule, curvature in (("elimination", OutputDiagonal()), ("ablation", Gram().damped(known.damping))):
        request = Request(0.5, method="elimination", certify=False)
        watch = Watch(rule, request, len(known.layers), None)
        job = Job(known, curvature, request, watch, References(known), np.random.default_rng(0))
        found[rule] = np.concatenate([Scores(rule).scores(job, m)[0].ravel() for m in job.quadratics])
    linear, true = found["elimination"], found["ablation"]
    live = true > 1e-12 * true.max()
    return {
        "weights": live.size, "live": int(live.sum()), "spearman": spearmanr(linear, true).statistic,
        "spearman_live": spearmanr(linear[live], true[live]).statistic,
    }  # fmt: skip
