"""Solvers that can prove optimality, a file each."""

from solvers.exact.branch_and_bound import BranchAndBound
from solvers.exact.brute_force import BruteForce
from solvers.solver import Solver

SOLVERS: tuple[type[Solver], ...] = (BruteForce, BranchAndBound)
