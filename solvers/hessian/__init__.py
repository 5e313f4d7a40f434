"""Curvature as solvers see it: dense, one matrix a row, a factor with damping, or blocks of these."""

from solvers.hessian.base import Array, Hessian, cholesky_solve
from solvers.hessian.block_diagonal import BlockDiagonalHessian
from solvers.hessian.check import as_hessian
from solvers.hessian.dense import DenseHessian, StackedHessian
from solvers.hessian.factor import FactorHessian
from solvers.runtime.caches import forget_older_releases

__all__ = [
    "Array", "BlockDiagonalHessian", "DenseHessian", "FactorHessian", "Hessian", "StackedHessian",
    "as_hessian", "cholesky_solve",
]  # fmt: skip

forget_older_releases()  # what numba would read, once a function of this or any later module is called
