"""The path against all subsets of every size."""

import numpy as np
import pytest

from solvers import Status
from solvers.estimators import best_subset_path
from tests.solvers.estimators.regressions import best_subset, regression, sum_of_squares


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("kept", [None, [5]])
def test_every_size_is_the_best(outputs, kept):
    X, y = regression(seed=9, p=6, outputs=outputs)
    weight = np.linspace(0.5, 1.5, 60)
    path = best_subset_path(X, y, always_keep=kept, sample_weight=weight)
    first = 0 if kept is None else 1
    assert path.n_features.tolist() == list(range(first, 7))
    assert (path.status, path.proven.all()) == (Status.OPTIMAL, True)
    for i, k in enumerate(path.n_features.tolist()):
        value, columns = best_subset(X, y, k, lambda c: kept is None or 5 in c, weight=weight)
        assert np.flatnonzero(path.support[i]).tolist() == columns
        assert path.objective[i] == pytest.approx(value, rel=1e-9)
        assert path.bound[i] <= value * (1.0 + 1e-12)
        assert path.objective[i] - path.bound[i] <= 1e-4 * value
        rest = sum_of_squares(X, y, columns, weight)[0]
        size, fitted = 60.0 * outputs, k * outputs
        assert path.aic[i] == pytest.approx(size * np.log(rest / size) + 2 * fitted, rel=1e-9)
        assert path.bic[i] == pytest.approx(size * np.log(rest / size) + np.log(60) * fitted, rel=1e-9)
    assert path.coef.shape == ((7 - first, 6) if outputs == 1 else (7 - first, 2, 6))
    np.testing.assert_allclose(
        (X @ path.coef[-1].reshape(outputs, 6).T + path.intercept[-1]).reshape(y.shape),
        (np.column_stack([X, np.ones(60)]) @ sum_of_squares(X, y, list(range(6)), weight)[1]).reshape(
            y.shape
        ),
    )
    assert "7 of 7 sizes proven" in repr(path) or kept


def test_some_sizes_are_those_of_the_whole():
    X, y = regression(seed=9)
    whole, some = best_subset_path(X, y), best_subset_path(X, y, sizes=[4, 2])
    assert some.n_features.tolist() == [2, 4]
    np.testing.assert_array_equal(some.support, whole.support[[2, 4]])
    np.testing.assert_allclose(some.bound, whole.bound[[2, 4]], rtol=1e-4)


def test_nothing_is_left_to_choose():
    X, y = regression(seed=9, p=3)
    path = best_subset_path(X, y, always_keep=[True, True, True])
    assert (path.n_features.tolist(), path.proven.tolist()) == ([3], [True])
    assert path.bound[0] <= path.objective[0]


def test_a_time_limit_leaves_valid_bounds():
    X, y = regression(seed=9, p=7, outputs=2)
    for outputs in (y[:, 0], y):
        path = best_subset_path(X, outputs, time_limit=1e-9)
        assert path.status is Status.TIME_LIMIT
        for i in range(8):
            assert path.support[i].sum() == i
            assert path.bound[i] <= best_subset(X, outputs, i)[0] <= path.objective[i] * (1.0 + 1e-9)


def test_bad_arguments_are_one_line():
    X, y = regression()
    with pytest.raises(ValueError, match="criterion must be one of aic, bic, got 'cv'"):
        best_subset_path(X, y).best("cv")
    with pytest.raises(ValueError, match="sample_weight must hold a number >= 0 for each of 60 samples"):
        best_subset_path(X, y, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match=r"sizes must lie between 0 and 7, got \[3, 8\]"):
        best_subset_path(X, y, sizes=[3, 8])
    with pytest.raises(ValueError, match="gap must be a finite number"):
        best_subset_path(X, y, gap=-1)
