"""Layers with correlated inputs, drawn at random."""

from benchmark_utils.budgets import VARIANTS, budget
from benchopt import BaseDataset

from solvers.instances import random_problem


class Dataset(BaseDataset):
    """`H` of `4 n` samples whose inputs share hidden causes (`solvers.instances.random_problem`)."""

    name = "random"
    requirements = ["pip::combinatorial-brain-surgeon"]
    parameters = {
        "rows": [1], "inputs": [32], "sparsity": [0.75], "budget": ["per_row"],
        "variant": ["joint", "selection"], "correlation": [0.7], "seed": [0],
    }  # fmt: skip
    test_config = {"rows": 1, "inputs": 12}

    def get_data(self):
        """The problem; its optimum is not known."""
        kept = budget(self.budget, self.rows, self.inputs, self.sparsity)
        return {
            "problem": random_problem(
                self.rows, self.inputs, kept, seed=self.seed, refit=VARIANTS[self.variant],
                correlation=self.correlation,
            )
        }  # fmt: skip
