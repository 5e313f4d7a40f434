"""Prune trained PyTorch networks by combinatorial optimization, with a bound on what was lost.

Masks are True where pruned, the reverse of `torch.nn.utils.prune`.
"""

from typing import TYPE_CHECKING

from solvers.runtime.lazy import export as _export

if TYPE_CHECKING:
    from cbs.data import Samples, Split, digits, mnist
    from cbs.method import methods
    from cbs.network.eligible import LeftOut
    from cbs.prune import ScopeIgnored, compare, prune
    from cbs.result import LayerResult, PruneResult, RowResult
    from cbs.watch import Step
    from cbs.zoo import digits_mlp, mlpnet, train, trained_digits_mlp

__all__ = [
    "LayerResult", "LeftOut", "PruneResult", "RowResult", "Samples", "ScopeIgnored", "Split", "Step",
    "compare", "digits", "digits_mlp", "methods", "mlpnet", "mnist", "prune", "train", "trained_digits_mlp",
]  # fmt: skip

_export(
    __name__,
    {
        "data": ["Samples", "Split", "digits", "mnist"],
        "method": ["methods"],
        "network.eligible": ["LeftOut"],
        "prune": ["ScopeIgnored", "compare", "prune"],
        "result": ["LayerResult", "PruneResult", "RowResult"],
        "watch": ["Step"],
        "zoo": ["digits_mlp", "mlpnet", "train", "trained_digits_mlp"],
    },
)
