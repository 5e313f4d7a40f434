"""Dense instances of any size whose optimum is known."""

from benchmark_utils.budgets import VARIANTS, budget
from benchopt import BaseDataset

from solvers.instances import planted


class Dataset(BaseDataset):
    """The optimum is put where a bound is tight (`solvers.instances.planted`)."""

    name = "planted"
    requirements = ["pip::combinatorial-brain-surgeon"]
    parameters = {
        "rows": [1], "inputs": [64], "sparsity": [0.75], "budget": ["per_row"], "variant": ["joint"],
        "margin": [0.9], "seed": [0],
    }  # fmt: skip
    test_config = {"rows": 1, "inputs": 12}

    def get_data(self):
        """The problem and its optimum."""
        kept = budget(self.budget, self.rows, self.inputs, self.sparsity)
        found = planted(
            self.rows, self.inputs, kept, seed=self.seed, refit=VARIANTS[self.variant], margin=self.margin
        )
        return {"problem": found.problem, "optimum": found.value}
