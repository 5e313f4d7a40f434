"""Solvers that others wrote, behind one adapter: mixed-integer and constraint programmes, a file each."""

from solvers.foreign.copt import Copt
from solvers.foreign.cp_sat import CpSat
from solvers.foreign.cplex import Cplex
from solvers.foreign.cvxpy import Cvxpy
from solvers.foreign.gurobi import Gurobi
from solvers.foreign.highs import Highs
from solvers.foreign.outer_approximation import OuterApproximation
from solvers.foreign.scip import Scip
from solvers.foreign.xpress import Xpress
from solvers.solver import Solver

SOLVERS: tuple[Solver, ...] = (
    CpSat(), OuterApproximation(), Highs(), Scip(), Scip(strengthen=False), Gurobi(),
    Gurobi(strengthen=False), Cplex(), Cplex(strengthen=False), Copt(), Copt(strengthen=False),
    Xpress(), Xpress(strengthen=False), Cvxpy(), Cvxpy(strengthen=False),
)  # fmt: skip
