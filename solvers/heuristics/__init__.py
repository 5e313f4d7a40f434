"""Solvers that find good masks quickly, a file each; most prove nothing."""

from solvers.heuristics.magnitude import Magnitude
from solvers.solver import Solver

SOLVERS: tuple[type[Solver], ...] = (Magnitude,)
