"""Solvers that find good masks quickly, a file each; most prove nothing."""

from solvers.heuristics.factor_search import FactorSearch
from solvers.heuristics.greedy import Greedy, OptimalBrainSurgeon
from solvers.heuristics.local_search import LocalSearch
from solvers.heuristics.portfolio import Portfolio
from solvers.heuristics.published.alps import ALPS
from solvers.heuristics.published.chita import CHITA
from solvers.heuristics.published.osscar import OSSCAR
from solvers.heuristics.published.randomized_magnitude import RandomizedMagnitude
from solvers.heuristics.published.saliency import Magnitude, Saliency, Wanda
from solvers.heuristics.published.sparsegpt import SparseGPT
from solvers.heuristics.published.swapping import Swapping
from solvers.heuristics.tabu import Tabu
from solvers.solver import Solver

SOLVERS: tuple[Solver, ...] = (
    Greedy(), OptimalBrainSurgeon(), LocalSearch(), FactorSearch(), Tabu(), Portfolio(), ALPS(),
    CHITA(), SparseGPT(), Saliency(), Wanda(), Magnitude(), RandomizedMagnitude(), Swapping(),
    OSSCAR(),
)  # fmt: skip
