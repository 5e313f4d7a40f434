import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from solvers import Budget, SubsetProblem
from tests.solvers.oracles import BUDGETS, all_masks, dense_move, dense_value, gram, make_problem

M, N = 2, 6
QUICK = settings(derandomize=True, max_examples=25, deadline=None)


def some_masks(problem, rng, count=6):
    masks = list(all_masks(problem))
    return [masks[i] for i in rng.choice(len(masks), min(count, len(masks)), replace=False)]


@pytest.mark.parametrize("gradient", [False, True], ids=["plain", "gradient"])
@pytest.mark.parametrize("movable", [(), (0, 4)], ids=["fixed", "movable"])
@pytest.mark.parametrize("kind", ["shared", "stacked", "factor"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_value_and_weights_against_the_optimality_system(budget, refit, kind, movable, gradient, rng):
    n = N + len(movable)
    options = {"refit": refit, "kind": kind, "gradient": gradient, "movable": movable}
    problem = make_problem(rng, BUDGETS[budget], m=M, n=n, **options)
    for mask in some_masks(problem, rng):
        value = problem.value(mask)
        assert value == pytest.approx(dense_value(problem, mask), rel=1e-9, abs=1e-10)
        assert problem.row_values(mask).sum() == pytest.approx(value, rel=1e-14)
        weights = problem.weights(mask)
        np.testing.assert_allclose(weights, problem.W + dense_move(problem, mask), atol=1e-9)
        np.testing.assert_array_equal(weights[mask], 0.0)
        if not refit:
            still = ~mask
            still[:, problem.movable] = False
            np.testing.assert_array_equal(weights[still], problem.W[still])


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_value_is_what_a_generic_minimiser_finds(refit, rng):
    problem = make_problem(rng, Budget.per_row(3), m=1, n=7, refit=refit, gradient=True, movable=[6])
    H, w, g = problem.hessian.dense(0), problem.W[0], problem.G[0]
    for mask in some_masks(problem, rng, 3):
        moving = np.flatnonzero(~mask[0]) if refit else np.array([6])
        D = np.where(mask[0], -w, 0.0)

        def loss(x, D=D, moving=moving):
            D[moving] = x
            return g @ D + 0.5 * D @ H @ D

        found = minimize(loss, np.zeros(len(moving)), method="BFGS", options={"gtol": 1e-7})
        assert problem.value(mask) == pytest.approx(found.fun, rel=1e-8, abs=1e-9)


@QUICK
@given(seed=st.integers(0, 10**6), gradient=st.booleans(), kind=st.sampled_from(["shared", "stacked"]))
def test_refitting_never_costs_more(seed, gradient, kind):
    rng = np.random.default_rng(seed)
    joint = make_problem(rng, Budget.per_layer(4), kind=kind, gradient=gradient, movable=[1])
    H = joint.hessian.dense(0) if kind == "shared" else joint.hessian.H
    fixed = SubsetProblem(joint.W, H, joint.budget, refit=False, gradient=joint.G, movable=[1])
    still = SubsetProblem(
        np.delete(joint.W, 1, 1),
        np.delete(np.delete(H, 1, -1), 1, -2),
        joint.budget,
        refit=False,
        gradient=None if joint.G is None else np.delete(joint.G, 1, 1),
    )
    for mask in some_masks(joint, rng, 4):
        assert joint.value(mask) <= fixed.value(mask) + 1e-12
        assert fixed.value(mask) <= still.value(np.delete(mask, 1, 1)) + 1e-12


@QUICK
@given(seed=st.integers(0, 10**6), refit=st.booleans(), scale=st.sampled_from([1e-9, 0.3, 7.0, 1e9]))
def test_permuting_and_scaling(seed, refit, scale):
    rng = np.random.default_rng(seed)
    problem = make_problem(rng, Budget.per_row(3), refit=refit, gradient=True)
    H, order = problem.hessian.dense(0), rng.permutation(N)
    permuted = SubsetProblem(
        problem.W[:, order],
        H[np.ix_(order, order)],
        problem.budget,
        refit=refit,
        gradient=problem.G[:, order],
    )
    scaled = SubsetProblem(problem.W, scale * H, problem.budget, refit=refit, gradient=scale * problem.G)
    for mask in some_masks(problem, rng, 3):
        value = problem.value(mask)
        assert permuted.value(mask[:, order]) == pytest.approx(value, rel=1e-9, abs=1e-11)
        assert scaled.value(mask) == pytest.approx(scale * value, rel=1e-9, abs=1e-11 * scale)


def test_pruning_nothing_costs_nothing_and_everything_costs_the_weights(rng):
    nothing = make_problem(rng, Budget.per_row(0))
    assert nothing.value(np.zeros((M, N), dtype=bool)) == 0.0
    np.testing.assert_array_equal(nothing.weights(np.zeros((M, N), dtype=bool)), nothing.W)
    everything = make_problem(rng, Budget.per_row(N))
    H, W = everything.hessian.dense(0), everything.W
    expected = 0.5 * sum(w @ H @ w for w in W)
    assert everything.value(np.ones((M, N), dtype=bool)) == pytest.approx(expected, rel=1e-13)
    assert everything.scale >= expected


def test_inputs_are_copied_and_not_changed(rng):
    W, H, G = rng.standard_normal((M, N)), gram(rng, N), rng.standard_normal((M, N))
    before = [A.copy() for A in (W, H, G)]
    problem = SubsetProblem(W, H, Budget.per_row(2), gradient=G, movable=[5])
    mask = np.zeros((M, N), dtype=bool)
    mask[:, :2] = True
    value = problem.value(mask)
    problem.weights(mask)
    assert mask.sum() == 2 * M
    for A, B in zip((W, H, G), before, strict=True):
        np.testing.assert_array_equal(A, B)
        A[:] = 17.0
    assert problem.value(mask) == value
    with pytest.raises(ValueError, match="read-only"):
        problem.W[0, 0] = 1.0


def test_masks_may_be_lists_of_zeros_and_ones(rng):
    problem = make_problem(rng, Budget.per_row(2))
    mask = np.zeros((M, N), dtype=bool)
    mask[:, 1:3] = True
    assert problem.value(mask.astype(int).tolist()) == problem.value(mask)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.ones(N)}, "weights must be a matrix [m, n], got shape (6,)"),
        ({"weights": [["a"]]}, "weights must be an array of numbers"),
        ({"weights": [[1.0], [1.0, 2.0]]}, "weights must be an array of numbers"),
        ({"weights": np.ones((0, N))}, "weights have shape (0, 6); need at least one row and one input"),
        ({"weights": np.full((M, N), np.nan)}, "weights has nan at [0, 0]; every entry must be finite"),
        ({"gradient": np.ones((M, N + 1))}, "gradient has shape (2, 7), the weights (2, 6)"),
        ({"gradient": np.full((M, N), np.inf)}, "gradient has inf at [0, 0]; every entry must be finite"),
        (
            {"hessian": np.eye(N + 1)},
            "hessian has shape (7, 7), but weights [2, 6] need (6, 6) or (2, 6, 6)",
        ),
        ({"budget": 3}, "budget must be a solvers.Budget, not int"),
        ({"budget": Budget.per_row(7)}, "budget prunes 7 weights, but there are only 6 in a row"),
        (
            {"budget": Budget.per_row(6), "movable": [2]},
            "budget prunes 6 weights, but there are only 5 in a row",
        ),
        ({"movable": [6]}, "movable must list distinct columns between 0 and 5, got [6]"),
        ({"movable": [-1]}, "movable must list distinct columns between 0 and 5, got [-1]"),
        ({"movable": [1, 1]}, "movable must list distinct columns between 0 and 5, got [1, 1]"),
        ({"movable": [0.5]}, "movable must list distinct columns between 0 and 5, got [0.5]"),
        ({"movable": [True]}, "movable must list distinct columns between 0 and 5, got [True]"),
        ({"movable": range(N)}, "movable lists all 6 columns; at least one must be left to prune"),
        (
            {"hessian": np.diag([1.0, 1, 1, 1, 1, 0]), "refit": False, "movable": [5]},
            "hessian is singular where weights move; add damping to its diagonal",
        ),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"weights": np.ones((M, N)), "hessian": np.eye(N), "budget": Budget.per_row(2), **change}
    weights, hessian, budget = (arguments.pop(name) for name in ("weights", "hessian", "budget"))
    with pytest.raises(ValueError) as error:
        SubsetProblem(weights, hessian, budget, **arguments)
    assert str(error.value) == message


def good_mask():
    mask = np.zeros((M, N), dtype=int)
    mask[:, 1:3] = 1
    return mask


def with_entry(row, column, entry):
    mask = good_mask().astype(type(entry))
    mask[row, column] = entry
    return mask


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(N, dtype=bool), "mask has shape (6,), the weights (2, 6)"),
        (with_entry(0, 0, 2), "mask must hold booleans, True where pruned"),
        (with_entry(0, 0, np.nan), "mask must hold booleans, True where pruned"),
        (with_entry(0, 5, True), "mask prunes a movable column"),
        (with_entry(1, 0, True), "mask does not meet the budget: pool 1 prunes 3 of 5 entries, not 2"),
    ],
)
def test_bad_masks_are_refused(mask, message, rng):
    problem = make_problem(rng, Budget.per_row(2), movable=[5])
    assert problem.value(good_mask()) > 0
    for ask in (problem.value, problem.weights, problem.row_values):
        with pytest.raises(ValueError) as error:
            ask(mask)
        assert str(error.value) == message


@pytest.mark.parametrize("kind", ["shared", "stacked"])
def test_rows_solved_side_by_side_move_as_they_do_in_turn(kind, rng, monkeypatch):
    problem = make_problem(rng, Budget.per_row(3), m=5, n=8, kind=kind)
    mask = np.zeros((5, 8), dtype=bool)
    for r, pruned in enumerate([[0, 1, 2], [5, 6, 7], [0, 1, 2], [2, 4, 6], [5, 6, 7]]):
        mask[r, pruned] = True
    in_turn = problem.move(mask)
    np.testing.assert_allclose(in_turn, dense_move(problem, mask), atol=1e-9)
    monkeypatch.setattr("solvers.hessian.supports.LARGE", 0)
    np.testing.assert_array_equal(problem.move(mask), in_turn)


def test_one_factorisation_serves_rows_with_the_same_survivors(rng, monkeypatch):
    problem = make_problem(rng, Budget.per_row(3), m=4, n=8)
    mask = np.zeros((4, 8), dtype=bool)
    mask[:, :2] = True
    mask[[0, 2], 2] = mask[[1, 3], 5] = True
    solved = []
    solve_block = type(problem.hessian).solve
    monkeypatch.setattr(
        type(problem.hessian),
        "solve",
        lambda H, row, index, rhs: solved.append(row) or solve_block(H, row, index, rhs),
    )
    problem.value(mask)
    assert solved == [0, 1]


def test_a_mask_is_refitted_once_and_its_answers_are_the_callers_own(rng, monkeypatch):
    problem = make_problem(rng, Budget.per_row(3), m=2, n=8)
    refits, settled = [], SubsetProblem._settled
    monkeypatch.setattr(
        SubsetProblem, "_settled", lambda self, mask: refits.append(mask) or settled(self, mask)
    )
    first, other = (problem.pools.smallest(rng.random((2, 8))) for _ in range(2))
    value, rows, weights = problem.value(first), problem.row_values(first), problem.weights(first)
    assert len(refits) == 1
    rows[:] = weights[:] = 0.0
    assert problem.value(first) == value
    assert problem.value(other) == pytest.approx(dense_value(problem, other), rel=1e-9)
    first[0] = other[0]
    assert problem.value(first) == pytest.approx(dense_value(problem, first), rel=1e-9)
    assert len(refits) == 3


class TestWhatIsTakenForNumbers:
    @pytest.mark.parametrize(
        "change",
        [
            lambda A: torch.nn.Parameter(torch.tensor(A)),
            lambda A: torch.tensor(A, dtype=torch.bfloat16),
            lambda A: A.astype(object),
            lambda A: A.astype(int),
            lambda A: A.astype(np.float32),
            lambda A: A.tolist(),
        ],
        ids=["parameter", "bfloat16", "objects", "integers", "single", "lists"],
    )
    def test_taken(self, change):
        W, H = np.array([[1.0, -2.0, 4.0]]), np.diag([4.0, 2.0, 1.0])
        problem = SubsetProblem(change(W), change(H), Budget.per_row(1), gradient=change(W))
        np.testing.assert_array_equal(problem.W, W)
        np.testing.assert_array_equal(problem.hessian.dense(0), H)
        assert problem.W.dtype == np.float64

    @pytest.mark.parametrize(
        "change",
        [
            lambda A: A * 1j,
            lambda A: torch.tensor(A).to_sparse(),
            lambda A: torch.tensor(A, device="meta"),
            lambda A: torch.tensor(A * 1j),
            scipy.sparse.csr_array,
            lambda A: np.ma.masked_greater(A, 1.5),
            lambda A: A.astype(str),
            lambda A: np.array([[object()] * 3]),
            lambda A: None,
        ],
        ids=["complex", "sparse", "meta", "complex tensor", "scipy", "masked", "words", "things", "none"],
    )
    def test_refused_in_a_line(self, change):
        W, H = np.array([[1.0, -2.0, 4.0]]), np.diag([4.0, 2.0, 1.0])
        for weights, hessian, name in ((change(W), H, "weights"), (W, change(H), "hessian")):
            with pytest.raises(ValueError, match=rf"^{name} (must|has)") as error:
                SubsetProblem(weights, hessian, Budget.per_row(1))
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["shared", "stacked"])
def test_another_budget_and_a_row_alone_are_the_same_problem(kind, rng):
    problem = make_problem(rng, Budget.per_row([1, 3]), gradient=True, movable=(4,), kind=kind)
    mask = problem.pools.expand(problem.pools.smallest(rng.random(problem.pools.labels.shape)), 2)
    mask = np.insert(mask, 4, False, axis=1)
    values = problem.row_values(mask)
    whole = problem.with_budget(Budget.per_layer(4))
    assert whole.budget == Budget.per_layer(4)
    assert problem.budget == Budget.per_row([1, 3])
    assert (whole.row_values(mask) == values).all()
    with pytest.raises(ValueError, match="there are only 10 in the layer"):
        problem.with_budget(Budget.per_layer(11))
    for r, prune in ((0, None), (1, 3)):
        alone = problem.row(r, prune)
        assert alone.budget == Budget.per_row(int(mask[r].sum()))
        assert alone.value(mask[r : r + 1]) == pytest.approx(values[r], rel=1e-12)
    with pytest.raises(ValueError, match="row 0 has no budget of its own"):
        whole.row(0)
