"""Convex relaxations as solvers: each proves a lower bound, and rounds to a mask."""

from solvers.relaxations.sdp import CvxpySdp
from solvers.relaxations.split import Relaxation
from solvers.solver import Solver

SOLVERS: tuple[Solver, ...] = (Relaxation(), CvxpySdp())
