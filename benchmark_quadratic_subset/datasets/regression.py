"""Sparse ridge regression: the designs of the best-subset literature."""

import numpy as np
from benchopt import BaseDataset

from solvers import Budget, SubsetProblem


class Dataset(BaseDataset):
    """`min |y - X b|^2 / (2 N) + ridge |b|^2 / 2` over b with `k` entries, as a joint problem.

    Rows of X are normal with covariance `rho^|i - j|`; `k` equally spaced coefficients are 1; the noise has
    the variance that gives the signal-to-noise ratio (Bertsimas, King, Mazumder 2016; Hastie, Tibshirani,
    Tibshirani 2020). With `H = X'X / N + ridge I` and `w = H^-1 X'y / N` the loss is that of moving w,
    up to a constant.
    """

    name = "regression"
    requirements = ["pip::combinatorial-brain-surgeon"]
    parameters = {
        "inputs": [50], "samples": [200], "k": [5], "rho": [0.5], "snr": [1.0], "ridge": [1e-2], "seed": [0],
    }  # fmt: skip
    test_config = {"inputs": 12, "samples": 60, "k": 3}

    def get_data(self):
        """The problem; its optimum is not known."""
        rng = np.random.default_rng(self.seed)
        p = self.inputs
        covariance = self.rho ** np.abs(np.subtract.outer(np.arange(p), np.arange(p)))
        X = rng.multivariate_normal(np.zeros(p), covariance, size=self.samples)
        b = np.zeros(p)
        b[np.linspace(0, p - 1, self.k).round().astype(int)] = 1.0
        y = X @ b + np.sqrt(b @ covariance @ b / self.snr) * rng.standard_normal(self.samples)
        H = X.T @ X / self.samples + self.ridge * np.eye(p)
        w = np.linalg.solve(H, X.T @ y / self.samples)
        return {"problem": SubsetProblem(w[None], H, Budget.per_row(p - self.k))}
