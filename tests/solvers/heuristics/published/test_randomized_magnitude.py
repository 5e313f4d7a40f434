import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget, SubsetProblem, solve
from solvers.budget import Pools
from solvers.heuristics.published.randomized_magnitude import RandomizedMagnitude, bucketed, values
from tests.solvers.oracles import make_problem

BUDGETS = [
    Budget.per_row(7),
    Budget.per_row([0, 20, 3, 9]),
    Budget.per_layer(31),
    Budget.n_of_m(2, 4),
    Budget.columns(6),
]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(1, 90), st.data(), st.integers(1, 12), st.integers(0, 99))
def test_buckets_prune_as_many_as_their_pool(size, data, limit, seed):
    k = data.draw(st.integers(0, size))
    labels = np.zeros((1, size), np.int64)
    buckets = bucketed(
        Pools(labels, np.array([k]), np.array([size]), False), limit, np.random.default_rng(seed)
    )
    assert buckets.prune.sum() == k
    assert len(buckets.sizes) == min(int(np.sqrt(size)), limit)
    assert (buckets.prune <= buckets.sizes).all()
    assert (np.bincount(buckets.labels.ravel(), minlength=len(buckets.sizes)) == buckets.sizes).all()
    assert buckets.sizes.max() - buckets.sizes.min() <= 1
    assert np.abs(buckets.prune - buckets.sizes * k / size).max() < 1 + 1e-9


@pytest.mark.parametrize("budget", BUDGETS)
def test_buckets_stay_within_pools(rng, budget):
    pools = budget.laid_over(4, 20)
    buckets = bucketed(pools, 1000, rng)
    for b in range(len(buckets.sizes)):
        assert len(np.unique(pools.labels[buckets.labels == b])) == 1
    mask = buckets.smallest(rng.random(pools.labels.shape))
    assert pools.violation(pools.expand(mask, 4)) is None


def test_magnitude_itself_is_tried_first(rng):
    W = rng.standard_normal((1, 40))
    problem = SubsetProblem(W, np.eye(40), Budget.per_layer(25), refit=False)
    seen = []
    solve(problem, RandomizedMagnitude(repeats=12, score=lambda mask: seen.append(mask.copy()) or 0.0))
    plain = np.abs(W) <= np.sort(np.abs(W), axis=None)[24]
    assert (seen[0] == plain).all()
    assert sum((mask == plain).all() for mask in seen) == 1


def test_one_bucket_is_magnitude(rng):
    W = rng.standard_normal((3, 8))
    problem = SubsetProblem(W, np.eye(8), Budget.per_layer(10), refit=False)
    mask = solve(problem, RandomizedMagnitude(repeats=1, max_buckets=1)).mask
    assert (mask == (np.abs(W) <= np.sort(np.abs(W), axis=None)[9])).all()


def test_the_best_score_is_kept(rng):
    problem = SubsetProblem(rng.standard_normal((1, 30)), np.eye(30), Budget.per_layer(12), refit=False)
    seen = []

    def score(mask):
        seen.append((float(rng.random()), mask.copy()))
        return seen[-1][0]

    solution = solve(problem, RandomizedMagnitude(repeats=9, score=score))
    assert len(seen) == 9
    best = min(seen, key=lambda pair: pair[0])
    assert (solution.mask == best[1]).all()
    assert solution.stats["score"] == best[0]


def test_more_bucketings_are_no_worse(rng):
    X = rng.standard_normal((10, 40))
    problem = SubsetProblem(rng.standard_normal((1, 40)), X.T @ X + np.eye(40), Budget.per_layer(20))
    values = [solve(problem, RandomizedMagnitude(repeats=s), seed=3).value for s in (1, 5, 50)]
    assert values[0] >= values[1] >= values[2]
    assert values[0] > values[2]


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("kind", ["shared", "stacked", "factor"])
def test_masks_scored_together_have_their_own_values(kind, refit, gradient, rng):
    problem = make_problem(rng, Budget.per_layer(5), kind=kind, refit=refit, gradient=gradient)
    masks = [problem.pools.smallest(rng.random(problem.W.shape)) for _ in range(4)]
    assert values(problem, masks) == pytest.approx([problem.value(mask) for mask in masks], rel=1e-12)
