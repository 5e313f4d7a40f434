"""Best subsets, with proofs, beside the selections that people have: whose sum of squares is least."""

import importlib.util
import time
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import RFE, SequentialFeatureSelector
from sklearn.linear_model import LinearRegression, LogisticRegression, OrthogonalMatchingPursuit, lars_path
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from solvers.estimators import BestSubsetClassifier, best_subset_path

Data = tuple[NDArray[np.float64], NDArray[np.float64]]
DESIGNS = {
    "n=50, rho 0.5": (200, 50, 0.5), "n=50, rho 0.9": (200, 50, 0.9),
    "n=100, rho 0.5": (300, 100, 0.5), "n=100, rho 0.9": (300, 100, 0.9),
}  # fmt: skip
"""Made-up data: samples, features, correlation `rho^|i - j|` of columns."""
COUNT, SNR = 10, 2.0
"""Features of these that count, and signal to noise."""
NARROW, LARGEST = 40, 10
"""Features up to which all sizes are asked for, else those up to a largest."""


def path(data: str, gap: float = 1e-4, limit: float = 100.0) -> dict[str, Any]:
    """All sizes of subset of a regression, with proofs; seconds are of the processor."""
    X, y = regression(data)
    N, n = X.shape
    best_subset_path(X[:, :3], y, sizes=[1])  # compile
    start = time.process_time()
    sizes = [k for k in range(1, n + 1) if n <= NARROW or k <= LARGEST]
    found = best_subset_path(X, y, gap=gap, time_limit=limit, sizes=sizes)
    seconds = time.process_time() - start
    steps = [
        {"k": k, "value": float(found.objective[i]), "bound": float(found.bound[i]),
         "proven": bool(found.proven[i])}
        for i, k in enumerate(sizes)
    ]  # fmt: skip
    return {"samples": N, "n": n, "seconds": seconds, "sizes": steps}


def peer(data: str, k: int, method: str) -> dict[str, Any]:
    """Another's subset of k columns, refitted by least squares."""
    X, y = regression(data)
    Z = StandardScaler().fit_transform(X)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        support = selected(Z, y, k, method)
    facts = {"samples": X.shape[0], "n": X.shape[1], "seconds": time.process_time() - start}
    if support is None or support.sum() != k:
        return {**facts, "status": "has no such size"}
    fitted = LinearRegression().fit(X[:, support], y).predict(X[:, support])
    return {**facts, "status": "feasible", "value": float(((y - fitted) ** 2).sum())}


def classifier(data: str, k: int) -> dict[str, Any]:
    """Our k columns of a classification, the logistic loss and a bound of it."""
    X, y = classes(data)
    start = time.process_time()
    own = BestSubsetClassifier(k).fit(X, y)
    return {
        "samples": X.shape[0], "n": X.shape[1], "seconds": time.process_time() - start,
        "value": own.objective_, "bound": own.loss_bound_, "status": own.status_,
    }  # fmt: skip


def chosen(data: str, k: int, method: str) -> dict[str, Any]:
    """Another's k columns of a classification, fitted as ours are."""
    X, y = classes(data)
    Z = StandardScaler().fit_transform(X)
    start = time.process_time()
    if method == "RFE":
        selector = RFE(LogisticRegression(), n_features_to_select=k)
    else:
        selector = SequentialFeatureSelector(
            LogisticRegression(), n_features_to_select=k, scoring="neg_log_loss", cv=itself(Z)
        )
    support = selector.fit(Z, y).get_support()
    seconds = time.process_time() - start
    fixed = BestSubsetClassifier(k, always_keep=np.flatnonzero(support)).fit(X, y)
    return {"samples": X.shape[0], "n": X.shape[1], "seconds": seconds, "value": fixed.objective_}


def selected(Z: NDArray[np.float64], y: NDArray[np.float64], k: int, method: str) -> NDArray[np.bool_] | None:
    """Which columns a method takes; None if its path has no set of k."""
    if method in ("forward", "backward"):
        selector = SequentialFeatureSelector(
            LinearRegression(), n_features_to_select=k, direction=method, cv=itself(Z)
        )
        return selector.fit(Z, y).get_support()
    if method == "RFE":
        return RFE(LinearRegression(), n_features_to_select=k).fit(Z, y).support_
    if method == "OMP":
        return OrthogonalMatchingPursuit(n_nonzero_coefs=k).fit(Z, y).coef_ != 0.0
    if method == "Lasso":
        _, _, coefs = lars_path(Z, y - y.mean(), method="lasso")
        exact = np.flatnonzero((coefs != 0.0).sum(axis=0) == k)
        return coefs[:, exact[-1]] != 0.0 if len(exact) else None
    if method == "abess":
        if not importlib.util.find_spec("abess"):
            raise ValueError("method 'abess' is not installed: pip install abess")
        from abess import LinearRegression as Abess

        return Abess(support_size=k, thread=1).fit(Z, y).coef_ != 0.0
    raise ValueError(f"method must be forward, backward, RFE, OMP, Lasso or abess, got {method!r}")


def itself(Z: NDArray[np.float64]) -> list[Data]:
    """Everything to fit and everything to judge by: no folds."""
    return [(np.arange(len(Z)), np.arange(len(Z)))]


@lru_cache(maxsize=1)
def regression(data: str) -> Data:
    """Regressions in scikit-learn's own data, and made-up ones, as `n=50, rho 0.5 #SEED`."""
    if data.partition(" #")[0] in DESIGNS:
        return made(*DESIGNS[data.partition(" #")[0]], int(data.partition(" #")[2]))
    diabetes, wine, cancer = load_diabetes(), load_wine(), load_breast_cancer()
    if data == "diabetes":
        return diabetes.data, diabetes.target
    if data == "diabetes, quadratic":
        terms = PolynomialFeatures(2, include_bias=False).fit(diabetes.data)
        square, names = terms.transform(diabetes.data), terms.get_feature_names_out()
        of_sex = [i for i, name in enumerate(names) if name == "x1^2"]
        return np.delete(square, of_sex, axis=1), diabetes.target
    if data == "wine, alcohol":
        return np.delete(wine.data, 0, axis=1), wine.data[:, 0]
    if data == "breast cancer, worst area":
        return np.delete(cancer.data, 23, axis=1), cancer.data[:, 23]
    raise ValueError(f"data {data!r} is none that is known here")


def made(N: int, n: int, rho: float, seed: int) -> Data:
    """Columns of correlation `rho^|i - j|`, of which every so many count, at a signal to noise ratio."""
    rng = np.random.default_rng(seed)
    C = rho ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    X = rng.standard_normal((N, n)) @ np.linalg.cholesky(C).T
    w = np.zeros(n)
    w[:: n // COUNT] = rng.choice([-1.0, 1.0], COUNT)
    return X, X @ w + rng.standard_normal(N) * np.sqrt(w @ C @ w / SNR)


def classes(data: str) -> Data:
    """Breast cancer and wine as classifications."""
    loaded = {"breast cancer, classes": load_breast_cancer, "wine, classes": load_wine}[data]()
    return loaded.data, loaded.target
