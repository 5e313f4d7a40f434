"""Whole-network Fisher problems of MLPNet, selection and joint: see README.md."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from cbs.curvature.fisher import gradient_factor
from cbs.network.evaluate import evaluate
from cbs.network.layers import find_layers
from cbs.network.surgery import clone
from cbs.zoo import Trained, trained
from solvers import Budget, FactorHessian, SubsetProblem, get_solver, solve

SEED = 0
DAMPING = {"selection": 1e-5, "joint": 1e-3}
"""Added to the diagonal: survivors stay, as in CBS-S; they move, as in CBS and CHITA."""


def pruned(variant: str, gradients: int, sparsity: float, solver: str) -> dict[str, Any]:
    """One budget over all weights of MLPNet: value, bound and seconds of a solver, and the test accuracy."""
    found, w = network()
    hessian = FactorHessian(factor(gradients), DAMPING[variant])
    prune = round(sparsity * w.size)
    problem = SubsetProblem(w, hessian, Budget.per_layer(prune), refit=variant == "joint")
    solution = solve(problem, get_solver(solver), seed=SEED)
    after = evaluate(refilled(found.model, solution.weights[0]), found.test, F.cross_entropy)
    return {
        "n": w.size, "kept": w.size - prune, "status": solution.status.value, "value": solution.value,
        "bound": solution.bound, "gap": solution.gap, "seconds": solution.seconds,
        "accuracy": after.accuracy,
    }  # fmt: skip


@lru_cache(maxsize=1)
def network() -> tuple[Trained, np.ndarray]:
    """MLPNet with its data, and all of its weights in a row."""
    found = trained("mlpnet")
    weights = [layer.module.weight for layer in find_layers(found.model, None)]
    return found, np.concatenate([weight.detach().numpy().ravel() for weight in weights])[None, :]


@lru_cache(maxsize=1)
def factor(count: int) -> np.ndarray:
    """Gradients of so many single training samples."""
    found, _ = network()
    samples = found.train.choose(count, SEED)
    X = gradient_factor(found.model, find_layers(found.model, None), samples, F.cross_entropy)
    return X.numpy().astype(np.float32)


def refilled(model: nn.Module, flat: np.ndarray) -> nn.Module:
    """A copy of the network with other weights, layer after layer."""
    copy, at = clone(model), 0
    with torch.no_grad():
        for layer in find_layers(copy, None):
            weight = layer.module.weight
            weight.copy_(torch.as_tensor(flat[at : at + weight.numel()]).reshape(weight.shape))
            at += weight.numel()
    return copy
