"""Quadratic subset selection for pruning: problems, solvers, bounds and proofs, in numbers only.

Masks are True where pruned.
"""

from typing import TYPE_CHECKING

from solvers.runtime import caches as caches  # finds a place for compiled code before any is defined
from solvers.runtime.lazy import export as _export

if TYPE_CHECKING:
    from solvers.budget import Budget
    from solvers.curve import Curve, curve
    from solvers.executors.door import executor
    from solvers.hessian import BlockDiagonalHessian, DenseHessian, FactorHessian, Hessian, StackedHessian
    from solvers.near_optimal import NearOptimal, near_optimal
    from solvers.problem import SubsetProblem
    from solvers.solution import Bounds, Progress, Solution, Status
    from solvers.solve import available, get_solver, solve
    from solvers.solver import Outcome, Solver
    from solvers.together import Together, solve_together

__all__ = [
    "BlockDiagonalHessian", "Bounds", "Budget", "Curve", "DenseHessian", "FactorHessian", "Hessian",
    "NearOptimal", "Outcome", "Progress", "Solution", "Solver", "StackedHessian", "Status", "SubsetProblem",
    "Together", "available", "curve", "executor", "get_solver", "near_optimal", "solve", "solve_together",
]  # fmt: skip

_export(
    __name__,
    {
        "budget": ["Budget"],
        "curve": ["Curve", "curve"],
        "executors.door": ["executor"],
        "hessian": ["BlockDiagonalHessian", "DenseHessian", "FactorHessian", "Hessian", "StackedHessian"],
        "near_optimal": ["NearOptimal", "near_optimal"],
        "problem": ["SubsetProblem"],
        "solution": ["Bounds", "Progress", "Solution", "Status"],
        "solve": ["available", "get_solver", "solve"],
        "solver": ["Outcome", "Solver"],
        "together": ["Together", "solve_together"],
    },
)
