"""Solvers that others wrote, behind one adapter: mixed-integer and constraint programmes, a file each."""

from solvers.foreign.copt import Copt, CoptPlain
from solvers.foreign.cp_sat import CpSat
from solvers.foreign.cplex import Cplex, CplexPlain
from solvers.foreign.gurobi import Gurobi, GurobiPlain
from solvers.foreign.highs import Highs
from solvers.foreign.scip import Scip, ScipPlain
from solvers.foreign.xpress import Xpress, XpressPlain
from solvers.solver import Solver

SOLVERS: tuple[type[Solver], ...] = (
    CpSat, Highs, Scip, ScipPlain, Gurobi, GurobiPlain, Cplex, CplexPlain, Copt,
    CoptPlain, Xpress, XpressPlain,
)  # fmt: skip
