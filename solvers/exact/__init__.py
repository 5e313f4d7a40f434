"""The project's own exact solvers: every mask tried, and branch and bound on trees of split relaxations."""

from solvers.exact.branch_and_bound import BranchAndBound
from solvers.exact.brute_force import BruteForce
from solvers.solver import Solver

SOLVERS: tuple[Solver, ...] = (BruteForce(), BranchAndBound())
