"""The regressor against all subsets by plain least squares, and as scikit-learn has estimators."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from solvers import near_optimal
from solvers.estimators import BestSubsetRegressor, LeastSquares
from solvers.estimators.columns import budget_of
from tests.solvers.estimators.regressions import best_subset, regression, sum_of_squares

CASES = {
    "plain": {},
    "weights": {"weight": np.random.default_rng(1).integers(0, 4, 60).astype(float)},
    "no intercept": {"intercept": False},
    "ridge": {"alpha": 3.0},
    "ridge on X": {"alpha": 3.0, "standardize": False},
    "outputs": {"outputs": 3},
    "weighted ridge of outputs": {"outputs": 2, "alpha": 0.5, "weight": np.linspace(0.1, 2.0, 60)},
}


def test_scikit_learn_checks_it():
    failed = [
        (found["check_name"], found["exception"])
        for found in check_estimator(BestSubsetRegressor(), on_fail=None, on_skip=None)
        if found["status"] == "failed"
    ]
    assert not failed


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("k", [1, 3, 7])
def test_no_subset_is_better(case, k):
    options = dict(CASES[case])
    X, y = regression(seed=k, outputs=options.pop("outputs", 1))
    alpha, weight = options.get("alpha", 0.0), options.get("weight")
    intercept, standardize = options.get("intercept", True), options.get("standardize", True)
    model = BestSubsetRegressor(k, alpha=alpha, fit_intercept=intercept, standardize=standardize)
    model.fit(X, y, sample_weight=weight)
    s = np.ones(len(X)) if weight is None else weight
    spread = (s @ (X - (s @ X / s.sum() if intercept else 0.0)) ** 2) / s.sum()
    ridge = alpha * (spread if standardize else np.ones(7))
    value, columns = best_subset(X, y, k, weight=weight, intercept=intercept, ridge=ridge)
    assert np.flatnonzero(model.support_).tolist() == columns
    assert model.objective_ == pytest.approx(value, rel=1e-9)
    assert model.bound_ <= value * (1.0 + 1e-12)
    assert (model.status_, model.gap_ <= 1e-4, model.n_features_to_select_) == ("optimal", True, k)
    _, w = sum_of_squares(X, y, columns, weight, intercept, ridge)
    coef = np.zeros((w.shape[1], 7))
    coef[:, columns] = w[:k].T
    np.testing.assert_allclose(model.coef_.reshape(coef.shape), coef, rtol=1e-7, atol=1e-9)
    expected = X @ coef.T + (w[k] if intercept else 0.0)
    np.testing.assert_allclose(model.predict(X).reshape(expected.shape), expected, rtol=1e-8)
    assert model.coef_.shape == ((7,) if y.ndim == 1 else coef.shape)


def test_units_of_columns_do_not_matter():
    X, y = regression(seed=4, p=9)
    units = 10.0 ** np.linspace(-4, 4, 9)
    plain, scaled = (BestSubsetRegressor(4, alpha=2.0).fit(A, y) for A in (X, X * units))
    np.testing.assert_array_equal(plain.support_, scaled.support_)
    np.testing.assert_allclose(scaled.coef_ * units, plain.coef_, rtol=1e-8)
    assert scaled.objective_ == pytest.approx(plain.objective_, rel=1e-10)
    shifted = BestSubsetRegressor(4).fit(X * units + 1e3 * units, 1e6 * y)
    assert np.flatnonzero(shifted.support_).tolist() == best_subset(X, y, 4)[1]


def test_data_at_the_ends_of_what_numbers_hold():
    X, _ = regression(seed=4, p=6)
    y = X[:, 0] - 2.0 * X[:, 3]
    for units, size in ((1.0, 1.0), (1e150, 1e140), (1e-200, 1e-120)):
        exact = BestSubsetRegressor(2).fit(X * units, y * size)
        assert np.flatnonzero(exact.support_).tolist() == [0, 3]
        assert (exact.status_, exact.gap_) == ("optimal", 0.0)
        np.testing.assert_allclose(exact.coef_[[0, 3]] * units / size, [1.0, -2.0])
    spread = BestSubsetRegressor(2, alpha=1.0, standardize=False).fit(X * 10.0 ** np.arange(-9, 9, 3), y)
    assert spread.status_ == "optimal"  # columns of 1e-9 can't pay their coefficients
    assert not spread.support_[:2].any()
    nothing = BestSubsetRegressor(2).fit(X, np.full(60, 3.0))
    assert (nothing.status_, nothing.objective_, nothing.intercept_) == ("optimal", 0.0, 3.0)


def test_columns_that_are_always_kept():
    X, y = regression(seed=5)
    model = BestSubsetRegressor(3, always_keep=[6, -3]).fit(X, y)
    value, columns = best_subset(X, y, 3, lambda c: {4, 6} <= set(c))
    assert np.flatnonzero(model.support_).tolist() == columns
    assert model.objective_ == pytest.approx(value, rel=1e-9)
    every = BestSubsetRegressor(7, always_keep=range(7)).fit(X, y)
    assert every.objective_ == pytest.approx(best_subset(X, y, 7)[0], rel=1e-9)
    assert every.status_ == "optimal"
    data = load_diabetes(as_frame=True)
    named = BestSubsetRegressor(4, always_keep=["age", "sex"]).fit(data.data, data.target)
    assert {"age", "sex"} < set(named.get_feature_names_out())


@pytest.mark.parametrize("outputs", [1, 2])
def test_groups_keep_their_own_numbers(outputs):
    X, y = regression(seed=6, outputs=outputs)
    groups = ["b", "a", "a", "b", "a", "c", "b"]
    numbers = {"a": 2, "b": 1, "c": 1}

    def allowed(columns):
        return all(sum(groups[i] == g for i in columns) == k for g, k in numbers.items())

    model = BestSubsetRegressor(numbers, groups=groups, always_keep=[5]).fit(X, y)
    value, columns = best_subset(X, y, 4, allowed)
    assert np.flatnonzero(model.support_).tolist() == columns
    assert model.objective_ == pytest.approx(value, rel=1e-9)
    one_each = BestSubsetRegressor(1, groups=groups).fit(X, y)
    assert sorted(np.array(groups)[one_each.support_]) == ["a", "b", "c"]


def test_dependent_columns_get_a_small_ridge_or_are_refused():
    X, y = regression(seed=7, N=12, p=20)
    model = BestSubsetRegressor(3).fit(X, y)
    assert model.alpha_ == pytest.approx(12e-6)
    assert model.objective_ == pytest.approx(best_subset(X, y, 3)[0], rel=1e-3)
    assert model.status_ == "optimal"
    with pytest.raises(ValueError, match=r"alpha is 0, but the columns of X are dependent .* give alpha > 0"):
        BestSubsetRegressor(3, alpha=0.0).fit(X, y)
    twice = np.hstack([X[:, :4], X[:, :2], np.ones((12, 1))])
    assert BestSubsetRegressor(3).fit(twice, y).alpha_ > 0.0
    constant = BestSubsetRegressor(4).fit(np.hstack([X[:, :4], np.full((12, 1), 7.0)]), y)
    assert (constant.alpha_, constant.coef_[4]) == (0.0, 0.0)


def test_the_size_by_a_criterion():
    X, y = regression(seed=0, N=200)
    model = BestSubsetRegressor("bic").fit(X, y)
    assert np.flatnonzero(model.support_).tolist() == [0, 1, 2]
    assert model.path_.n_features[model.path_.best("bic")] == 3
    assert (model.status_, model.n_features_to_select_) == ("optimal", 3)


def test_it_selects_in_a_pipeline_and_a_grid():
    data = load_diabetes()
    chain = make_pipeline(StandardScaler(), BestSubsetRegressor(3), LinearRegression())
    assert chain.fit(data.data, data.target)[-1].coef_.shape == (3,)
    grid = GridSearchCV(BestSubsetRegressor(), {"n_features_to_select": [2, 5]}, cv=3)
    assert grid.fit(data.data, data.target).best_params_ == {"n_features_to_select": 5}
    again = clone(BestSubsetRegressor(0.4, alpha=1.0)).fit(data.data, data.target)
    assert again.transform(data.data).shape == (442, 4)


def test_its_problem_is_there_for_other_questions():
    X, y = regression(seed=8)
    squares = LeastSquares(X, y)
    problem = squares.problem(budget_of(3, None, np.zeros(0, int), 7, shared=False))
    value, columns = best_subset(X, y, 3)
    found = near_optimal(problem, absolute=0.5 * value)
    assert squares.base + found.value == pytest.approx(value, rel=1e-9)
    assert np.flatnonzero(~found.rows[0].masks[0]).tolist() == columns
    for mask, rise in zip(found.rows[0].masks, found.rows[0].values, strict=True):
        other = sum_of_squares(X, y, np.flatnonzero(~mask).tolist())[0]
        assert squares.base + rise == pytest.approx(other, rel=1e-9)
        assert other <= 1.5 * value * (1.0 + 1e-9)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_features_to_select": 8}, "n_features_to_select=8 must lie between 1 and 7"),
        ({"n_features_to_select": 1.5}, "n_features_to_select=1.5 must be a share > 0 and <= 1"),
        ({"n_features_to_select": True}, "must be a number of features, a share of them, or None, got True"),
        ({"n_features_to_select": "ebic"}, "or one of aic, bic, got 'ebic'"),
        ({"n_features_to_select": "bic", "groups": [0] * 7}, "does not go with groups; give numbers"),
        ({"n_features_to_select": {0: 1}}, "a number for each group, but there are no groups"),
        ({"n_features_to_select": 2, "always_keep": [0, 1, 2]}, "is 2, but always_keep has 3 features"),
        ({"always_keep": [7]}, "always_keep has 7; give indices from 0 to 6, or names"),
        ({"always_keep": ["age"]}, "always_keep names 'age', which is no feature of X; X has no names"),
        ({"groups": [0, 1]}, "groups must have a label for each of the 7 features of X, got 2"),
        ({"n_features_to_select": {0: 1}, "groups": [0] * 6 + [1]}, "do not have the same labels: see 1"),
        ({"n_features_to_select": 2, "groups": [0] * 6 + [1]}, "is 2 for group 1, which has 1 features"),
        ({"alpha": -1.0}, "alpha must be a finite number >= 0, or None, got -1.0"),
        ({"solver": "nothing"}, "unknown solver 'nothing'"),
        ({"gap": -1.0}, "gap must be a finite number >= 0"),
    ],
)
def test_bad_parameters_are_one_line(parameters, message):
    with pytest.raises(ValueError) as error:
        BestSubsetRegressor(**parameters).fit(*regression())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_data_are_one_line():
    X, y = regression()
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        BestSubsetRegressor().fit(X, y, sample_weight=-np.ones(60))
    with pytest.raises(ValueError, match=r"0 for every sample|at least one non-zero"):
        BestSubsetRegressor().fit(X, y, sample_weight=np.zeros(60))
    with pytest.raises(TypeError, match="Sparse data was passed for X, but dense data is required"):
        BestSubsetRegressor().fit(sparse.csr_array(X), y)
    with pytest.raises(ValueError, match="NaN"):
        BestSubsetRegressor().fit(X * np.nan, y)
