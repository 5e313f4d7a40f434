"""scikit-learn estimators: the best subset of a model's columns, with a bound on every other subset.

*Best-subset selection* in statistics, *sparse regression with a cardinality constraint* in optimization.
Needs scikit-learn, which nothing else in `solvers` imports.
"""

from solvers.estimators.classifier import BestSubsetClassifier
from solvers.estimators.least_squares import LeastSquares
from solvers.estimators.path import BestSubsetPath, best_subset_path
from solvers.estimators.regressor import BestSubsetRegressor

__all__ = [
    "BestSubsetClassifier", "BestSubsetPath", "BestSubsetRegressor", "LeastSquares", "best_subset_path",
]  # fmt: skip
