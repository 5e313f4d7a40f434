import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget

M, N = 3, 8


def test_per_row_pools_are_rows():
    pools = Budget.per_row(3).laid_over(M, N)
    assert pools.labels.tolist() == [[0] * N, [1] * N, [2] * N]
    assert pools.prune.tolist() == [3, 3, 3]
    assert pools.keep.tolist() == [5, 5, 5]
    assert not pools.coupled


@pytest.mark.parametrize("counts", [[0, 8, 2], (0, 8, 2), np.array([0, 8, 2])])
def test_per_row_takes_a_number_for_every_row(counts):
    pools = Budget.per_row(counts).laid_over(M, N)
    assert pools.prune.tolist() == [0, 8, 2]
    assert pools.keep.tolist() == [8, 0, 6]


def test_per_layer_is_one_pool():
    pools = Budget.per_layer(10).laid_over(M, N)
    assert pools.labels.tolist() == [[0] * N] * M
    assert (pools.prune.tolist(), pools.sizes.tolist()) == ([10], [24])


def test_n_of_m_pools_are_neighbours():
    pools = Budget.n_of_m(1, 4).laid_over(2, N)
    assert pools.labels.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [2, 2, 2, 2, 3, 3, 3, 3]]
    assert pools.prune.tolist() == [3, 3, 3, 3]
    assert pools.keep.tolist() == [1, 1, 1, 1]


def test_columns_are_one_row_of_decisions():
    pools = Budget.columns(3).laid_over(M, N)
    assert pools.coupled
    assert pools.labels.tolist() == [[0] * N]
    decisions = np.arange(N)[None] < 3
    mask = pools.expand(decisions, M)
    assert mask.tolist() == [[True] * 3 + [False] * 5] * M
    assert pools.decisions(mask).tolist() == decisions.tolist()


def test_units_of_columns_are_kept_or_pruned_whole():
    budget = Budget.columns(1, width=4)
    pools = budget.laid_over(M, N)
    assert (pools.prune.tolist(), pools.width, repr(budget)) == ([4], 4, "Budget.columns(1, width=4)")
    assert pools.smallest(np.array([[1.0, 1, 1, 2, 0, 0, 0, 9]]))[0].tolist() == [True] * 4 + [False] * 4
    mask = np.repeat(np.arange(N)[None] < 4, M, axis=0)
    assert pools.violation(mask) is None
    assert pools.violation(np.roll(mask, 1, axis=1)) == (
        "it prunes a part of unit 0, of 4 neighbouring columns"
    )
    assert Budget.columns(3, width=1) == Budget.columns(3)


def test_groups_of_neighbours_have_their_own_counts():
    budget = Budget.groups([3, 1, 4], (1, 0, 3))
    pools = budget.laid_over(2, N)
    assert pools.labels.tolist() == [[0, 0, 0, 1, 2, 2, 2, 2], [3, 3, 3, 4, 5, 5, 5, 5]]
    assert (pools.prune.tolist(), pools.keep.tolist()) == ([1, 0, 3] * 2, [2, 1, 1] * 2)
    assert repr(budget) == "Budget.groups([3, 1, 4], [1, 0, 3])"
    assert budget.describe() == {"budget": "groups", "prune": (1, 0, 3), "sizes": (3, 1, 4)}
    mask = pools.smallest(np.arange(2.0 * N).reshape(2, N))
    assert mask.tolist() == [[1, 0, 0, 0, 1, 1, 1, 0]] * 2
    assert pools.violation(mask) is None


def test_pools_of_labels_keep_their_own_numbers():
    budget = Budget.pools(list("abbabbca"), {"c": 0, "a": 1, "b": 3})
    pools = budget.laid_over(2, N)
    assert pools.labels.tolist() == [[0, 1, 1, 0, 1, 1, 2, 0], [3, 4, 4, 3, 4, 4, 5, 3]]
    assert (pools.keep.tolist(), pools.prune.tolist()) == ([1, 3, 0] * 2, [2, 1, 1] * 2)
    mask = pools.smallest(np.arange(2.0 * N).reshape(2, N))
    assert mask.tolist() == [[1, 1, 0, 1, 0, 0, 1, 0]] * 2
    assert pools.violation(mask) is None
    assert repr(budget) == "Budget.pools([0, 1, 1, 0, 1, 1, 2, 0], [1, 3, 0])"
    assert budget.describe() == {
        "budget": "pools", "prune": (2, 1, 1), "labels": (0, 1, 1, 0, 1, 1, 2, 0),
    }  # fmt: skip
    assert budget == Budget.pools(np.array(list("abbabbca")), np.array([1, 3, 0]))
    assert Budget.pools([5, 5, 2, 2], 1).laid_over(1, 4).prune.tolist() == [1, 1]


def test_pools_of_labels_of_one_mask():
    pools = Budget.pools([1, 0, 1], [0, 1], shared=True).laid_over(5, 3)
    assert (pools.labels.tolist(), pools.coupled, pools.keep.tolist()) == ([[1, 0, 1]], True, [0, 1])


def test_expanding_copies():
    pools = Budget.per_row(3).laid_over(M, N)
    decisions = pools.smallest(np.zeros((M, N)))
    pools.expand(decisions, M)[0, 0] ^= True
    assert decisions[0, 0]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.sampled_from(
        [
            Budget.per_row(3),
            Budget.per_row([0, 8, 2]),
            Budget.per_layer(10),
            Budget.n_of_m(2, 4),
            Budget.columns(5),
        ]
    ),
    st.lists(st.integers(0, 5), min_size=M * N, max_size=M * N),
)
def test_smallest_prunes_the_least_scores_of_every_pool(budget, scores):
    pools = budget.laid_over(M, N)
    flat = np.array(scores[: pools.labels.size], dtype=float)
    chosen = pools.smallest(flat.reshape(pools.labels.shape))
    for p, count in enumerate(pools.prune):
        members = np.flatnonzero(pools.labels.ravel() == p)
        expected = sorted(members, key=lambda i: (flat[i], i))[:count]
        assert sorted(expected) == [i for i in members if chosen.ravel()[i]]
    assert pools.violation(pools.expand(chosen, M)) is None


def test_violation_names_the_first_wrong_pool():
    pools = Budget.per_row(3).laid_over(M, N)
    mask = pools.smallest(np.zeros((M, N)))
    mask[1, 5] = True
    mask[2, 0] = False
    assert pools.violation(mask) == "pool 1 prunes 4 of 8 entries, not 3"


def test_violation_of_coupled_rows():
    pools = Budget.columns(3).laid_over(2, 4)
    assert pools.violation(np.array([[1, 1, 1, 0], [1, 1, 1, 0]], dtype=bool)) is None
    assert pools.violation(np.array([[1, 1, 1, 0], [1, 1, 0, 1]], dtype=bool)) == (
        "rows of the mask differ, but the budget prunes whole columns"
    )
    assert pools.violation(np.array([[1, 1, 0, 0], [1, 1, 0, 0]], dtype=bool)) == (
        "pool 0 prunes 2 of 4 entries, not 3"
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Budget.per_row(2.5), "budget: `prune` must be a whole number, not 2.5"),
        (lambda: Budget.per_row(-1), "budget: `prune` must not be negative, got -1"),
        (lambda: Budget.per_row([1, -2]), "budget: `prune` must not be negative, got -2"),
        (lambda: Budget.per_row([1, "x"]), "budget: `prune` must be a whole number, not 'x'"),
        (lambda: Budget.per_layer(None), "budget: `prune` must be a whole number, not None"),
        (lambda: Budget.columns(3, width=0), "budget: `width` must be at least 1, got 0"),
        (lambda: Budget.columns("3"), "budget: `prune` must be a whole number, not '3'"),
        (lambda: Budget.n_of_m(2.0, 4), "budget: `keep` must be a whole number, not 2.0"),
        (lambda: Budget.n_of_m(2, -4), "budget: `of` must not be negative, got -4"),
        (lambda: Budget.n_of_m(5, 4), "budget keeps 5 of 4: `keep` must lie between 0 and `of` >= 1"),
        (lambda: Budget.n_of_m(0, 0), "budget keeps 0 of 0: `keep` must lie between 0 and `of` >= 1"),
        (lambda: Budget.pools([], 1), "budget of pools: `labels` is empty; need one for every input"),
        (
            lambda: Budget.pools([0, "a"], 1),
            "budget of pools: `labels` must be all numbers or all words, one for every input",
        ),
        (
            lambda: Budget.pools([0, 1], {0: 1}),
            "budget of pools: `keep` has no number for label 1; labels are [0, 1]",
        ),
        (
            lambda: Budget.pools([0, 1], {0: 1, 1: 0, 2: 1}),
            "budget of pools: `keep` has a number for label 2; labels are [0, 1]",
        ),
        (
            lambda: Budget.pools([0, 1], [1]),
            "budget of pools: `keep` has 1 numbers for 2 labels, [0, 1]",
        ),
        (
            lambda: Budget.pools(["a", "b", "a"], 2),
            "budget of pools: `keep` is 2 for label 'b', which has only 1 inputs",
        ),
        (lambda: Budget.pools([0, 1], 0.5), "budget: `keep` must be a whole number, not 0.5"),
    ],
)
def test_bad_counts_are_refused(build, message):
    with pytest.raises(ValueError) as error:
        build()
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget.per_row(9), "budget prunes 9 weights, but there are only 8 in a row"),
        (Budget.per_row([1, 10, 9]), "budget prunes 10 weights, but there are only 8 in a row"),
        (Budget.groups([4, 3], [0, 1]), "budget of groups: sizes add up to 7, but rows have 8 inputs"),
        (Budget.pools([0, 1], 1), "budget of pools: labels are 2, but rows have 8 inputs"),
        (Budget.groups([5, 3], [0, 4]), "budget prunes 4 weights, but there are only 3 in a group"),
        (Budget.columns(1, width=3), "budget of columns in units: `width` = 3 does not divide 8 inputs"),
        (Budget.columns(5, width=2), "budget prunes 5 units, but there are only 4 of 2 columns"),
        (Budget.per_row([1, 2]), "budget gives 2 row counts for 3 rows"),
        (Budget.per_row([]), "budget gives 0 row counts for 3 rows"),
        (Budget.per_layer(25), "budget prunes 25 weights, but there are only 24 in the layer"),
        (Budget.columns(9), "budget prunes 9 weights, but there are only 8 columns in the layer"),
        (Budget.n_of_m(2, 3), "budget of 2 of 3: `of` = 3 does not divide 8 inputs"),
    ],
)
def test_budgets_that_cannot_be_met_are_refused(budget, message):
    with pytest.raises(ValueError) as error:
        budget.laid_over(M, N)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("budget", "fields"),
    [
        (Budget.per_row(0), {"budget": "per_row", "prune": 0}),
        (Budget.per_row([1, 2]), {"budget": "per_row", "prune": (1, 2)}),
        (Budget.per_layer(np.int64(4)), {"budget": "per_layer", "prune": 4}),
        (Budget.columns(1), {"budget": "columns", "prune": 1}),
        (Budget.n_of_m(2, 4), {"budget": "n_of_m", "keep": 2, "of": 4}),
    ],
)
def test_description(budget, fields):
    assert budget.describe() == fields


def test_numpy_counts_compare_like_numbers():
    assert Budget.per_row(np.array([1, 2])) == Budget.per_row([1, 2])
    assert Budget.n_of_m(np.int32(2), 4) == Budget.n_of_m(2, 4)


def test_a_count_may_be_an_array_of_no_dimension():
    assert Budget.per_row(np.array(3)) == Budget.per_row(3)
    assert Budget.per_row(np.array([1, 2])) == Budget.per_row([1, 2])
