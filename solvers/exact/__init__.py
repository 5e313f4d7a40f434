"""The project's own exact solvers: every mask tried, and branch and bound on trees of split relaxations."""

from solvers.exact.enumeration import BruteForce
from solvers.exact.tree import BranchAndBound
from solvers.solver import Solver

SOLVERS: tuple[Solver, ...] = (BruteForce(), BranchAndBound())
