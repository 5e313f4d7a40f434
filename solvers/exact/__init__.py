"""Solvers that can prove optimality, a file each."""

from solvers.exact.branch_and_bound import BranchAndBound
from solvers.exact.brute_force import BruteForce
from solvers.exact.copt import Copt, CoptPlain
from solvers.exact.cp_sat import CpSat
from solvers.exact.cplex import Cplex, CplexPlain
from solvers.exact.cvxpy_sdp import CvxpySdp
from solvers.exact.gurobi import Gurobi, GurobiPlain
from solvers.exact.highs import Highs
from solvers.exact.scip import Scip, ScipPlain
from solvers.exact.xpress import Xpress, XpressPlain
from solvers.solver import Solver

SOLVERS: tuple[type[Solver], ...] = (
    BruteForce, BranchAndBound, CpSat, Highs, Scip, ScipPlain, Gurobi, GurobiPlain, Cplex, CplexPlain,
    Copt, CoptPlain, Xpress, XpressPlain, CvxpySdp,
)  # fmt: skip
