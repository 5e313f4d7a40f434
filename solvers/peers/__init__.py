"""Solvers of others that need an environment of their own: best-subset regression, exact and heuristic."""

from solvers.peers.known import PEERS
from solvers.solver import Solver

SOLVERS: tuple[Solver, ...] = PEERS
