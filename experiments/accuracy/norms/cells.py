"""Batch norms of ResNet20 after pruning: their statistics as they were, anew, or the dense network's."""

import copy
import time

import torch
from torch.nn import functional as F

import cbs
from cbs.network.evaluate import evaluate
from cbs.network.norms import recompute_norms
from cbs.zoo import trained

METHODS = {
    "none": None,
    "magnitude": {"method": "magnitude"},
    "joint": {"method": "joint"},
    "joint, sequential": {"method": "joint", "pipeline": "sequential"},
}
NORMS = ("as they were", "of the inputs", "to the dense outputs")


def norms(method: str, sparsity: float, images: int, test: int):
    """One pruned network, measured with its norms in each of three ways."""
    found = trained("resnet20")
    model, data, held_out, asked = found.model, found.train.few(images), found.test.few(test), METHODS[method]
    if asked is None:
        pruned = model
    else:
        pruned = cbs.prune(
            model, data, sparsity=sparsity, layers=found.layers, certify=False, norms=False, **asked
        ).model
    ways = []
    for way in NORMS:
        network, began = copy.deepcopy(pruned), time.process_time()
        if way != "as they were":
            recompute_norms(network, data, model if way == "to the dense outputs" else None)
        seconds = time.process_time() - began
        after = evaluate(network, held_out, F.cross_entropy)
        ways.append({
            "norms": way, "divergence": divergence(network, model, data), "accuracy": after.accuracy,
            "loss": after.loss, "seconds": round(seconds, 2),
        })  # fmt: skip
    return {"ways": ways}


@torch.no_grad()
def divergence(network, model, data) -> float:
    """Mean KL divergence of the probabilities from the dense network's, on the calibration images."""
    total = 0.0
    for x, _ in data.batches():
        q, p = F.log_softmax(network.eval()(x), 1), F.log_softmax(model(x), 1)
        total += float(F.kl_div(q, p, log_target=True, reduction="sum"))
    return total / len(data)
