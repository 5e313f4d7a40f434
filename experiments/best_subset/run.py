"""Best subsets, with proofs, beside the selections that people have: whose sum of squares is least."""

import argparse
import csv
import importlib.util
import sys
import time
import tomllib
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import RFE, SequentialFeatureSelector
from sklearn.linear_model import LinearRegression, LogisticRegression, OrthogonalMatchingPursuit, lars_path
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from solvers.estimators import BestSubsetClassifier, best_subset_path  # noqa: E402

FIELDS = ("data", "samples", "features", "k", "method", "value", "ratio", "bound", "proven", "seconds")


def real() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Regressions in scikit-learn's own data."""
    diabetes, wine, cancer = load_diabetes(), load_wine(), load_breast_cancer()
    square = PolynomialFeatures(2, include_bias=False).fit_transform(diabetes.data)
    names = PolynomialFeatures(2, include_bias=False).fit(diabetes.data).get_feature_names_out()
    quadratic = np.delete(square, [i for i, name in enumerate(names) if name == "x1^2"], axis=1)  # of sex
    return {
        "diabetes": (diabetes.data, diabetes.target),
        "diabetes, quadratic": (quadratic, diabetes.target),
        "wine, alcohol": (np.delete(wine.data, 0, axis=1), wine.data[:, 0]),
        "breast cancer, worst area": (np.delete(cancer.data, 23, axis=1), cancer.data[:, 23]),
    }


def made(design: dict, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of correlation `rho^|i - j|`, of which every so many count, at a signal to noise ratio."""
    rng = np.random.default_rng(seed)
    n, N, rho = design["features"], design["samples"], design["rho"]
    C = rho ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    X = rng.standard_normal((N, n)) @ np.linalg.cholesky(C).T
    w = np.zeros(n)
    w[:: n // design["count"]] = rng.choice([-1.0, 1.0], design["count"])
    signal = X @ w
    return X, signal + rng.standard_normal(N) * np.sqrt(w @ C @ w / design["snr"])


def squares(X: np.ndarray, y: np.ndarray, support: np.ndarray) -> float:
    """The sum of squares of a subset, refitted."""
    return float(((y - LinearRegression().fit(X[:, support], y).predict(X[:, support])) ** 2).sum())


def peers(X: np.ndarray, y: np.ndarray, k: int) -> dict[str, tuple[np.ndarray, float]]:
    """Other people's subsets of k columns, and the seconds that they took; all refitted by least squares."""
    Z = StandardScaler().fit_transform(X)
    everything = [(np.arange(len(Z)), np.arange(len(Z)))]
    found = {}
    for name, direction in (("forward", "forward"), ("backward", "backward")):
        if direction == "backward" and X.shape[1] > 40:
            continue  # thousands of fits
        start = time.process_time()
        selector = SequentialFeatureSelector(
            LinearRegression(), n_features_to_select=k, direction=direction, cv=everything
        )
        found[name] = selector.fit(Z, y).get_support(), time.process_time() - start
    start = time.process_time()
    found["RFE"] = (
        RFE(LinearRegression(), n_features_to_select=k).fit(Z, y).support_,
        time.process_time() - start,
    )
    start = time.process_time()
    pursuit = OrthogonalMatchingPursuit(n_nonzero_coefs=k).fit(Z, y)
    found["OMP"] = pursuit.coef_ != 0.0, time.process_time() - start
    start = time.process_time()
    _, _, coefs = lars_path(Z, y - y.mean(), method="lasso")
    sizes = (coefs != 0.0).sum(axis=0)
    exact = np.flatnonzero(sizes == k)
    if len(exact):
        found["Lasso"] = coefs[:, exact[-1]] != 0.0, time.process_time() - start
    if importlib.util.find_spec("abess"):
        from abess import LinearRegression as Abess

        start = time.process_time()
        model = Abess(support_size=k, thread=1).fit(Z, y)
        found["abess"] = model.coef_ != 0.0, time.process_time() - start
    return found


def compare(name: str, X: np.ndarray, y: np.ndarray, config: dict, rows: list[dict]) -> None:
    """All sizes with proofs, and the others at a few of them; seconds are of the processor."""
    N, n = X.shape
    start = time.process_time()
    sizes = [k for k in range(1, n + 1) if n <= config["narrow"] or k <= config["largest"]]
    compared = [k for k in (2, 3, 5, 8, 10) if k < n]
    path = best_subset_path(X, y, gap=config["gap"], time_limit=config["time_limit"], sizes=sizes)
    seconds = time.process_time() - start
    facts = {"data": name, "samples": N, "features": n}
    print(f"{name}: {path.proven.sum()} of {len(sizes)} sizes proven in {seconds:.1f} s", flush=True)
    rows += [
        facts
        | {"k": k, "method": "path", "value": path.objective[i], "ratio": 1.0, "bound": path.bound[i]}
        | {"proven": bool(path.proven[i]), "seconds": seconds}
        for i, k in enumerate(sizes)
    ]
    for i, k in enumerate(sizes):
        if k not in compared:
            continue
        for method, (support, taken) in peers(X, y, k).items():
            if support.sum() != k:
                continue
            value = squares(X, y, support)
            assert value >= path.bound[i] * (1 - 1e-9), "a bound is wrong"
            rows.append(
                facts | {"k": k, "method": method, "value": value, "ratio": value / path.objective[i],
                         "bound": path.bound[i], "proven": "", "seconds": taken}
            )  # fmt: skip


def classes(rows: list[dict]) -> None:
    """Breast cancer and wine as classifications: the logistic loss of subsets."""
    for name, data in (("breast cancer, classes", load_breast_cancer()), ("wine, classes", load_wine())):
        Z = StandardScaler().fit_transform(data.data)
        for k in (2, 3, 5, 8):
            start = time.process_time()
            own = BestSubsetClassifier(k).fit(data.data, data.target)
            taken = time.process_time() - start
            facts = {"data": name, "samples": len(Z), "features": Z.shape[1], "k": k}
            rows.append(
                facts | {"method": "classifier", "value": own.objective_, "ratio": 1.0,
                         "bound": own.loss_bound_, "proven": own.status_ == "optimal", "seconds": taken}
            )  # fmt: skip
            choices = {
                "RFE": RFE(LogisticRegression(), n_features_to_select=k),
                "forward": SequentialFeatureSelector(
                    LogisticRegression(), n_features_to_select=k, scoring="neg_log_loss",
                    cv=[(np.arange(len(Z)), np.arange(len(Z)))],
                ),
            }  # fmt: skip
            for method, selector in choices.items():
                start = time.process_time()
                support = selector.fit(Z, data.target).get_support()
                taken = time.process_time() - start
                fixed = BestSubsetClassifier(k, always_keep=np.flatnonzero(support))
                fixed.fit(data.data, data.target)
                rows.append(
                    facts | {"method": method, "value": fixed.objective_,
                             "ratio": fixed.objective_ / own.objective_, "bound": own.loss_bound_,
                             "proven": "", "seconds": taken}
                )  # fmt: skip


def table(rows: list[dict]) -> str:
    """Ratios to the proven optimum, the worst and the mean of the sizes compared; seconds of a path."""
    methods = [m for m in dict.fromkeys(row["method"] for row in rows) if m not in ("path", "classifier")]
    names = list(dict.fromkeys(row["data"].split(" #")[0] for row in rows))
    lines = [
        f"| data | samples x features | sizes proven | seconds, whole path | {' | '.join(methods)} |",
        f"|---|---|---|---|{'---|' * len(methods)}",
    ]
    for name in names:
        mine = [row for row in rows if row["data"].split(" #")[0] == name]
        own = [row for row in mine if row["method"] in ("path", "classifier")]
        runs = {row["data"]: row["seconds"] for row in own if row["method"] == "path"}
        seconds = np.mean(list(runs.values())) if runs else sum(row["seconds"] for row in own)
        cells = []
        for method in methods:
            ratios = [row["ratio"] for row in mine if row["method"] == method]
            cells.append(f"{np.mean(ratios):.3f} ({max(ratios):.3f})" if ratios else "-")
        proven = sum(bool(row["proven"]) for row in own)
        shape = f"{mine[0]['samples']} x {mine[0]['features']}"
        lines.append(f"| {name} | {shape} | {proven} of {len(own)} | {seconds:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(rows: list[dict]) -> None:
    """What was found so far."""
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    with (folder / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    (folder / "table.md").write_text(table(rows))


def main() -> None:
    config = tomllib.loads((HERE / "config.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed of each made-up design")
    arguments = parser.parse_args()
    rows: list[dict] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for name, (X, y) in real().items():
            compare(name, X, y, config, rows)
        classes(rows)
        write(rows)
        for design in config["designs"]:
            for seed in config["seeds"][: 1 if arguments.quick else None]:
                compare(f"{design['name']} #{seed}", *made(design, seed), config, rows)
                write(rows)
    write(rows)
    print(table(rows))


if __name__ == "__main__":
    main()
