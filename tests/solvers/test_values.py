"""Values against rational arithmetic: right to the digits printed, whatever the condition and units."""

import numpy as np
import pytest

from solvers import Budget, FactorHessian, SubsetProblem, solve
from tests.solvers.exactly import exact_row_values
from tests.solvers.oracles import gram

N = 5


def conditioned(rng, condition):
    """A curvature of some condition whose small directions are no axes."""
    Q, _ = np.linalg.qr(rng.standard_normal((N, N)))
    H = Q @ np.diag(np.logspace(0, -np.log10(condition), N)) @ Q.T
    return 0.5 * (H + H.T)


def random_mask(rng, problem, k):
    mask = np.zeros(problem.W.shape, dtype=bool)
    for row in mask:
        row[rng.choice(problem.prunable, k, replace=False)] = True
    return mask


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("movable", [[], [2]])
@pytest.mark.parametrize("kind", ["dense", "stacked", "factor"])
@pytest.mark.parametrize("condition", [1e2, 1e10, 1e13])
def test_values_are_right_to_the_digits_printed(refit, gradient, movable, kind, condition, rng):
    H = {
        "dense": lambda: conditioned(rng, condition),
        "stacked": lambda: np.stack([conditioned(rng, condition), conditioned(rng, 1e3)]),
        "factor": lambda: FactorHessian(rng.standard_normal((3, N)), 1.0 / condition),
    }[kind]()
    G = rng.standard_normal((2, N)) if gradient else None
    for k in (1, 3):
        problem = SubsetProblem(
            rng.standard_normal((2, N)), H, Budget.per_row(k), refit=refit, gradient=G, movable=movable
        )
        mask = random_mask(rng, problem, k)
        right = [float(value) for value in exact_row_values(problem, mask)]
        np.testing.assert_allclose(problem.row_values(mask), right, rtol=1e-8)
        D = problem.weights(mask) - problem.W
        moved = [0.5 * D[r] @ problem.hessian.dense(r) @ D[r] for r in range(2)]
        if not gradient and condition < 1e5:
            np.testing.assert_allclose(moved, right, rtol=1e-8)


@pytest.mark.parametrize("refit", [True, False])
def test_no_value_is_negative_where_no_cost_is(refit, rng):
    """Twins whose weights cancel: what pruning both costs is next to nothing, and never less."""
    for _ in range(20):
        X = rng.standard_normal((9, N))
        X[:, 1] = X[:, 0]
        H = X.T @ X / 9 + 1e-13 * np.eye(N)
        W = rng.standard_normal((1, N))
        W[0, 1] = -W[0, 0]
        problem = SubsetProblem(W, H, Budget.per_row(2), refit=refit)
        mask = np.array([[True, True, False, False, False]])
        assert 0.0 <= problem.value(mask) <= 1e-12


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("power", [4, 8])
def test_the_units_of_columns_do_not_matter(refit, power, rng):
    """Powers of two: the same numbers to the last digit, but for what rounds near underflow."""
    H, W = gram(rng, 8), rng.standard_normal((2, 8))
    unit = np.exp2(np.round(np.log2(10.0) * rng.uniform(-power, power, 8)))
    for budget in (Budget.per_row(4), Budget.per_layer(7), Budget.columns(3), Budget.n_of_m(2, 4)):
        plain = solve(SubsetProblem(W, H, budget, refit=refit))
        other = solve(SubsetProblem(W / unit, H * np.outer(unit, unit), budget, refit=refit))
        assert other.status.value == "optimal"
        assert other.value == pytest.approx(plain.value, rel=1e-12)
        np.testing.assert_array_equal(other.mask, plain.mask)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_a_movable_column_of_another_scale_moves_as_well(unit, rng):
    H, W = gram(rng, 7), rng.standard_normal((2, 7))
    scale = np.array([1.0, 1, 1, 1, 1, 1, unit])
    plain = SubsetProblem(W, H, Budget.per_row(3), movable=[6])
    other = SubsetProblem(W / scale, H * np.outer(scale, scale), Budget.per_row(3), movable=[6])
    assert solve(other).value == pytest.approx(solve(plain).value, rel=1e-9)
    assert solve(other).status.value == "optimal"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda X: X.__setitem__((slice(None), 1), 3.0 * X[:, 0]),
            "columns 0 and 1 are multiples of each other",
        ),
        (lambda X: X.__setitem__((slice(None), 4), 0.0), "column 4 is empty"),
        (lambda X: X.__setitem__((slice(None), 4), X[:, :4].sum(axis=1)), "at unit diagonal)"),
    ],
)
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_what_makes_a_curvature_singular_is_named_and_the_remedy_works(spoil, words, unit, rng):
    X = rng.standard_normal((20, N)) * unit
    X[:, 2] *= 1e4
    spoil(X)
    H, W = X.T @ X / 20, rng.standard_normal((1, N))
    with pytest.raises(ValueError, match="singular") as error:
        SubsetProblem(W, H, Budget.per_row(2))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    size = np.diagonal(H).copy()
    share = float(str(error.value).split("e.g. ")[1].split(" ")[0])
    size[size == 0.0] = size.mean()
    assert solve(SubsetProblem(W, H + share * np.diag(size), Budget.per_row(2))).status.value == "optimal"
