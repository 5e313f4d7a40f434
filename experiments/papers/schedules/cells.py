"""What is trained from scratch, and what has fewer bits: see README.md."""

import warnings
from functools import cache

import cbs
from cbs.network.evaluate import evaluate
from cbs.network.losses import named_loss
from cbs.quantization.stored import pruned_bytes
from cbs.zoo import trained

OPTIONS = {"solver": "greedy", "samples": 1000, "certify": False}


@cache
def mlpnet():
    """Network, 10,000 training images drawn once, and test images."""
    found = trained("mlpnet")
    return found.model, found.train.choose(10_000, 0), found.test


@cache
def pruned(method: str, sparsity: float, epochs: int | None, seed: int):
    """MLPNet pruned at once, and fine-tuned for some epochs."""
    model, train, test = mlpnet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cbs.prune(
            model, train, sparsity=sparsity, method=method, finetune=epochs, seed=seed, test=test, **OPTIONS
        )


def scratch(method: str, sparsity: float, epochs: int, seed: int):
    """The architecture that a method leaves, trained from random weights."""
    _, train, test = mlpnet()
    fresh = cbs.from_scratch(pruned(method, sparsity, None, seed), seed=seed)
    cbs.train(fresh, train, epochs=epochs, seed=seed)
    return measured(fresh, test)


def bits(sparsity: float, bits: int, rounding: str, epochs: int):
    """The dense network, or one that `joint` pruned and that was tuned, in so many bits; 32 are its own."""
    model, train, test = mlpnet()
    network = pruned("joint", sparsity, epochs, 0).model if sparsity else model
    if bits == 32:
        return measured(network, test)
    result = cbs.quantize(network, train, bits=bits, rounding=rounding, samples=1000, test=test)
    found = result.test_after
    return {
        "accuracy": found.accuracy, "loss": found.loss, "bytes": result.bytes, "seconds": result.seconds
    }  # fmt: skip


def measured(model, test):
    """Accuracy, loss and bytes of a network."""
    found = evaluate(model, test, named_loss("cross_entropy"))
    return {"accuracy": found.accuracy, "loss": found.loss, "bytes": pruned_bytes(model)}
