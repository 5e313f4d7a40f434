"""Prune trained PyTorch networks by combinatorial optimization, with a bound on what was lost."""

from cbs.data import Samples, Split, digits, mnist
from cbs.methods import methods
from cbs.prune import LeftOut, compare, prune
from cbs.result import LayerResult, PruneResult, RowResult
from cbs.watch import Step
from cbs.zoo import digits_mlp, mlpnet, train, trained_digits_mlp

__all__ = [
    "LayerResult", "LeftOut", "PruneResult", "RowResult", "Samples", "Split", "Step", "compare", "digits",
    "digits_mlp", "methods", "mlpnet", "mnist", "prune", "train", "trained_digits_mlp",
]  # fmt: skip
