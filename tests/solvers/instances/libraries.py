"""A small library for tests: one layer of 3 x 8, and two layers with one budget."""

import numpy as np

from solvers import Budget
from solvers.instances import Library, random_problem
from solvers.instances.identity import digest_together
from solvers.instances.layer_data import LayerData


def small_library(folder):
    """Rows 0 and 2 of a layer under `per_row`, the layer under `per_layer` and `columns`, both together."""
    library = Library.start(folder)
    for name, seed, n in (("a", 0, 8), ("b", 1, 6)):
        problem = random_problem(3, n, Budget.per_row(1), seed=seed)
        data = LayerData.rounded(problem.W, problem.hessian.dense(0), np.arange(3))
        assert library.put_data(name, data, {"network": "net", "layer": name, "seed": seed})
    every = [0, 1, 2]
    for name, data, rows, variant, budget, sparsity in (
        ("a-r0", ["a"], [[0]], "joint", {"kind": "per_row", "prune": 5}, 0.625),
        ("a-r2", ["a"], [[2]], "selection", {"kind": "n_of_m", "keep": 2, "of": 4}, 0.5),
        ("a-layer", ["a"], [every], "joint", {"kind": "per_layer", "prune": 12}, 0.5),
        ("a-columns", ["a"], [every], "selection", {"kind": "columns", "prune": 4}, 0.5),
        (
            "both",
            ["a", "b"],
            [every, every],
            "joint",
            {"kind": "network", "prune": 21, "shares": [12, 9]},
            0.5,
        ),
    ):
        entry = {
            "digest": "0" * 64, "network": "net", "layers": data, "data": data, "rows": rows,
            "m": sum(map(len, rows)), "n": 8, "variant": variant, "budget": budget, "sparsity": sparsity,
        }  # fmt: skip
        library.index["instances"][name] = entry
        entry["digest"] = digest_together(library.problems(name))
        del library.index["instances"][name]
        library.add({name: entry})
    return library
