"""The classifier against all subsets of its model and its loss, and as scikit-learn has estimators."""

import itertools

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from solvers.estimators import BestSubsetClassifier


def test_scikit_learn_checks_it():
    failed = [
        (found["check_name"], found["exception"])
        for found in check_estimator(BestSubsetClassifier(), on_fail=None, on_skip=None)
        if found["status"] == "failed"
    ]
    assert not failed


def binary(seed=0, N=80, p=6):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, p)) @ (np.eye(p) + 0.3 * rng.standard_normal((p, p)))
    chance = 1.0 / (1.0 + np.exp(-(2.0 * X[:, 0] - 1.5 * X[:, 1] + 0.5)))
    return X, np.where(rng.random(N) < chance, "yes", "no")


def loss(X, y, columns, weight=None, alpha=1.0):
    """The least logistic loss of some columns, by scikit-learn, with the ridge on standardized columns."""
    s = np.ones(len(X)) if weight is None else weight
    Z = X - s @ X / s.sum()
    Z = (Z / np.sqrt(s @ Z**2 / s.sum()))[:, columns]
    total = 0.0
    classes = np.unique(y)
    for one in classes[1:] if len(classes) == 2 else classes:
        model = LogisticRegression(C=1.0 / alpha, tol=1e-10, max_iter=1000).fit(Z, y == one, s)
        sign = np.where(y == one, 1.0, -1.0)
        total += (
            s @ np.logaddexp(0.0, -sign * model.decision_function(Z)) + 0.5 * alpha * (model.coef_**2).sum()
        )
    return total


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_near_the_best_and_above_its_bound(weighted):
    X, y = binary()
    weight = np.linspace(0.2, 2.0, 80) if weighted else None
    model = BestSubsetClassifier(2).fit(X, y, sample_weight=weight)
    values = {c: loss(X, y, list(c), weight) for c in itertools.combinations(range(6), 2)}
    best = min(values, key=values.get)
    assert tuple(np.flatnonzero(model.support_)) == best == (0, 1)
    assert model.objective_ == pytest.approx(values[best], rel=1e-6)
    assert 0.5 * values[best] < model.loss_bound_ <= values[best]
    assert model.bound_ <= model.objective_
    assert (model.status_, model.gap_ <= 1e-4) == ("optimal", True)
    assert 1 <= model.n_iter_ <= 10
    s = np.ones(80) if weight is None else weight
    other = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000)
    Z = X - s @ X / s.sum()
    Z /= np.sqrt(s @ Z**2 / s.sum())
    other.fit(Z[:, best], y, s)
    np.testing.assert_allclose(model.predict_proba(X), other.predict_proba(Z[:, best]), atol=1e-5)
    np.testing.assert_array_equal(model.predict(X), other.predict(Z[:, best]))
    chances = np.where(y == "yes", *model.predict_proba(X).T[::-1])
    assert model.log_loss_ == pytest.approx(-(s @ np.log(chances)) / s.sum())


def test_classes_share_their_features():
    X, y = load_iris(return_X_y=True)
    model = BestSubsetClassifier(2).fit(X, y)
    values = {c: loss(X, y, list(c)) for c in itertools.combinations(range(4), 2)}
    assert model.coef_.shape == (3, 4)
    assert tuple(np.flatnonzero(model.support_)) == min(values, key=values.get)
    assert model.objective_ == pytest.approx(min(values.values()), rel=1e-5)
    assert model.loss_bound_ <= min(values.values())
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)
    assert model.score(X, y) > 0.9
    assert BestSubsetClassifier().fit(X, y).n_features_to_select_ == 2


def test_groups_and_columns_that_are_always_kept():
    X, y = binary(seed=2)
    model = BestSubsetClassifier(1, groups=[0, 0, 0, 1, 1, 1], always_keep=[4]).fit(X, y)
    assert np.flatnonzero(model.support_)[1] == 4
    assert model.support_[:3].sum() == 1
    assert BestSubsetClassifier(6, always_keep=range(6)).fit(X, y).objective_ == pytest.approx(
        loss(X, y, list(range(6))), rel=1e-6
    )


def test_real_data_in_units_of_its_own():
    data = load_breast_cancer(as_frame=True)
    model = BestSubsetClassifier(5, always_keep=["mean radius"])
    model.fit(data.data, data.target)
    assert "mean radius" in model.get_feature_names_out()
    assert model.score(data.data, data.target) > 0.96
    assert model.status_ == "optimal"
    scaled = BestSubsetClassifier(5, always_keep=[0]).fit(
        data.data.to_numpy() * 10.0 ** np.linspace(-4, 4, 30), data.target
    )
    np.testing.assert_array_equal(scaled.support_, model.support_)
    chain = make_pipeline(BestSubsetClassifier(3), LogisticRegression(max_iter=5000))
    assert chain.fit(data.data.to_numpy(), data.target)[-1].coef_.shape == (1, 3)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": 0.0}, "alpha must be a finite number > 0, got 0.0"),
        ({"max_iter": 0}, "max_iter must be a whole number >= 1, got 0"),
        ({"n_features_to_select": "bic"}, "got 'bic': criteria are for BestSubsetRegressor"),
        ({"n_features_to_select": 9}, "n_features_to_select=9 must lie between 1 and 6"),
    ],
)
def test_bad_parameters_are_one_line(parameters, message):
    with pytest.raises(ValueError) as error:
        BestSubsetClassifier(**parameters).fit(*binary())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_one_class_is_refused():
    X, y = binary()
    with pytest.raises(ValueError, match="y has one class only, 'yes'; need at least two classes"):
        BestSubsetClassifier().fit(X, y, sample_weight=(y == "yes").astype(float))
