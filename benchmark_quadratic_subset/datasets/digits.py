"""Rows of a network trained on scikit-learn's digits."""

from benchmark_utils.budgets import VARIANTS
from benchopt import BaseDataset

from solvers import Budget, SubsetProblem


class Dataset(BaseDataset):
    """One row of a layer of the MLP 64-32-16-10, with the Gram of its inputs (damping 1e-2).

    The bias may move in the joint variant, as it does where the network is pruned.
    """

    name = "digits"
    requirements = ["pip::combinatorial-brain-surgeon"]
    parameters = {
        "layer": [0],
        "row": [0, 1],
        "sparsity": [0.75],
        "variant": ["joint"],
        "network": ["digits"],
    }
    test_config = {"layer": 2, "row": 0, "sparsity": 0.5}

    def get_data(self):
        """The problem of the row."""
        from cbs.curvature import Gram
        from cbs.network.network import Network
        from cbs.zoo import trained

        found = trained(self.network)
        layers = {
            int(objective.name): objective
            for objective in Network(found.model, found.train, damping=1e-2)(Gram())
        }
        if self.layer not in layers:
            return {"problem": None, "reason": f"layer must be one of {', '.join(map(str, layers))}"}
        W = layers[self.layer].dense[0].W
        if not 0 <= self.row < len(W):
            return {"problem": None, "reason": f"row must be from 0 to {len(W) - 1}"}
        whole = layers[self.layer].problem(Budget.per_row(round(self.sparsity * W.shape[1])))
        row = whole.row(self.row)
        if not VARIANTS[self.variant]:
            n = W.shape[1]
            row = SubsetProblem(row.W[:, :n], row.hessian.dense(0)[:n, :n], row.budget, refit=False)
        return {"problem": row}
