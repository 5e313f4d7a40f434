"""Rows of thousands of inputs: greedy, and best 1-swaps with a look at all swaps, or at few: `make bench`."""

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.greedy.curves import greedy_in_pools, row_curves
from solvers.heuristics.rows.search import row_data, state
from solvers.heuristics.rows.swaps import descend

N, ROWS = 2048, 4


@pytest.fixture(scope="module")
def layer():
    """Gaussian weights over rectified activations of a decaying spectrum."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2 * N, N)) @ (rng.standard_normal((N, N)) * np.arange(1, N + 1)[:, None] ** -0.6)
    X = np.maximum(X - 0.3 * X.std(axis=0), 0.0)
    H = X.T @ X / len(X)
    H[np.diag_indices(N)] *= 1.01
    return rng.standard_normal((ROWS, N)) / np.sqrt(N), H


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_curves(benchmark, layer, refit):
    benchmark.pedantic(row_curves, args=layer, kwargs={"refit": refit}, rounds=2, warmup_rounds=1)


@pytest.mark.parametrize("looks", ["all", "few"])
def test_swaps(benchmark, layer, looks):
    problem = SubsetProblem(*layer, Budget.per_row(N // 2), refit=False)
    start = greedy_in_pools(
        problem.W, problem.hessian, problem.pools.labels, problem.pools.prune, refit=False
    )
    data = row_data(problem, 0)
    if looks == "all":
        data = data._replace(limits=np.zeros((3, 0)))

    def search():
        return descend(state(data, start[0].copy()), 1e-9, 10_000)

    benchmark.extra_info["swaps"] = benchmark.pedantic(search, rounds=3, warmup_rounds=1)
