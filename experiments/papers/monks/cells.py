"""How many weights of MONK's networks can go at unchanged accuracy: see README.md."""

import time
import warnings
from typing import Any

from monks_networks import accuracy, network

import cbs
from cbs.data import Samples
from cbs.network.losses import named_loss
from cbs.network.network import Network

LARGEST = 20
"""Weights left from which on exact selection of the whole is run."""
SECONDS = 1.0
"""Of an exact search for one number of weights."""
EXACT = cbs.Method(cbs.GaussNewton(), cbs.Solve(), cbs.Survivors(), name="exact")
METHODS: dict[str, tuple[Any, int | None]] = {
    "magnitude": ("magnitude", None), "obd": ("obd", None), "obs": ("obs", None), "exact": (EXACT, None),
    "obd anew": ("obd", 1), "obs anew": ("obs", 1), "exact anew, 2 at a time": (EXACT, 2),
    "exact anew, 5 at a time": (EXACT, 5),
}  # fmt: skip
"""A method, and after how many deletions its curvature is computed anew; None for once."""


def weights_left(problem: int, decay: float, place: int, damping: str, method: str) -> dict[str, Any]:
    """What is left of a network's accuracy and loss at every number of weights.

    Args:
        problem: 1 to 3.
        decay: of the weights in training.
        place: see `network`.
        damping: relative to the mean diagonal; `decay` for the weight decay itself.
        method: of `METHODS`.
    """
    seed, model, train, test = network(problem, decay, place)
    how, step = METHODS[method]
    total, present, dense = sum(values.numel() for values in model.parameters()), model, None
    first = min(total - 1, LARGEST) if step is None and how is EXACT else total - (step or 1)
    asked, rows = options(model, train, damping, decay), []
    for kept in range(first, 0, -(step or 1)):
        began = time.process_time()
        try:
            if step:
                asked = options(present, train, damping, decay)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = cbs.prune(present, train, sparsity=1 - kept / total, method=how, **asked)
        except ValueError as error:
            if step and "no derivative by any weight" in str(error):  # the network's output is constant
                break
            raise
        dense = result.measured.before.loss if dense is None else dense
        rows.append({
            "kept": sum(layer.kept for layer in result.layers), "train": accuracy(result.model, train),
            "test": accuracy(result.model, test), "increase": result.measured.after.loss - dense,
            "predicted": result.measured.prediction, "status": result.layers[0].status,
            "seconds": time.process_time() - began,
        })  # fmt: skip
        present = result.model if step else model
    return {"trained_with": seed, "curve": {name: [row[name] for row in rows] for name in rows[0]}}


def options(model: Any, train: Samples, damping: str, decay: float) -> dict[str, Any]:
    """What every pruning is asked; an absolute damping relative to the mean diagonal on this network."""
    if damping == "decay":
        (curvature,) = Network(model, train, loss=named_loss("mse_loss"))(cbs.GaussNewton(damping=0.0))
    relative = decay / float(curvature.diagonal.mean()) if damping == "decay" else float(damping)
    return {
        "loss": "mse_loss",
        "certify": False,
        "damping": relative,
        "time_limit": SECONDS,
        "scope": "network",
    }
