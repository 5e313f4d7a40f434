"""What layers are drawn to, and which labels scale rows, on MLPNet by greedy elimination: see README.md."""

import time
from dataclasses import replace
from functools import cache

import torch

import cbs
from cbs.network.evaluate import evaluate
from cbs.network.network import Network, Reference
from cbs.network.surgery import revive
from cbs.prune import _run
from cbs.references import References
from cbs.refit.network import matching
from cbs.zoo import trained

COMMON = {"solver": "greedy", "samples": 10_000, "certify": False}


@cache
def mlpnet():
    """Model, training and test data."""
    found = trained("mlpnet")
    return found.model, found.train, found.test


def scales(labels: str, sparsity: float, seed: int):
    """One pruning, its rows' scales from true labels or from ones drawn from the dense network's outputs."""
    model, train, test = mlpnet()
    if labels == "drawn":
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            p = torch.cat([model(x) for x, _ in train.batches()]).softmax(dim=1)
        train = replace(train, targets=torch.multinomial(p, 1, generator=generator)[:, 0])
    began = time.process_time()
    result = cbs.prune(model, train, sparsity=sparsity, reselect=False, test=test, seed=seed, **COMMON)
    return {
        "accuracy": result.test_after.accuracy, "pruned_accuracy": result.history[-1].test_pruned.accuracy,
        "seconds": result.seconds, "refit_seconds": 0.0, "cpu_seconds": time.process_time() - began,
    }  # fmt: skip


@cache
def middle(sparsity: float, refit: bool, seed: int):
    """A network on its way, and the dense one that it is held against."""
    model, train, test = mlpnet()
    way = "network" if refit else None
    start = cbs.prune(model, train, sparsity=sparsity, refit=way, reselect=False, seed=seed, **COMMON)
    dense = Network(model, train, samples=COMMON["samples"], seed=seed)
    dense.hold_out(test)
    return start, dense, matching(dense.model, dense.samples, dense.loss)


def against(drawn_to: str, refitted: bool, start: float, sparsity: float, seed: int):
    """One more stage from one network, its layers drawn to its own outputs or to the dense ones.

    Args:
        drawn_to: `itself`, `dense`, or `dense, return` where pruned weights may return.
        refitted: whether the network that the stage begins with was.
        start: sparsity of that.
        sparsity: of the end.
        seed: of the draw of images.
    """
    (model, _, test), (begun, dense, divergence) = mlpnet(), middle(start, refitted, seed)
    began = time.process_time()
    given = begun.permanent() if drawn_to.endswith("return") else revive(model, begun.state, begun.masks)
    network = Network(
        given, dense.samples, seed=seed,
        reference=None if drawn_to == "itself" else Reference(dense, divergence),
    )  # fmt: skip
    network.hold_out(test)
    result = _run(network, cbs.Request(sparsity, seed=seed, **COMMON), References(network), None).result
    found = cbs.refit_network(result.model, dense.model, dense.samples, seed=seed)
    return {
        "divergence": found.after, "pruned_accuracy": result.test_after.accuracy,
        "accuracy": evaluate(result.model, test, dense.loss).accuracy,
        "cpu_seconds": time.process_time() - began,
    }  # fmt: skip
