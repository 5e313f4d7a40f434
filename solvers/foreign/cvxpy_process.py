"""CVXPY in a process of its own: models come in on standard input, answers go out on standard output.

What CVXPY runs can't be stopped from outside, prints what it likes, and may load a HiGHS that keeps OR-Tools
from loading; a process can be killed, silenced, and left alone with it. `solvers.foreign.cvxpy` runs this
file by itself; it imports nothing else of the package. It answers one model after the other until its input
ends.

In comes the length of a NumPy archive, 8 bytes with the highest first, and the archive: `c [N]`, `A` as
`indptr`, `indices` and `data` of its rows, `b [rows]`, `lower [N]`, `upper [N]`, `cones [K, 3]`,
`start [N]` or nothing, and an array `options` of JSON text: `back_end`, `equalities`, `binary` (variables
that come first), `gap`, `seconds` or null, `seed`, `tolerance`, `factor` (of the objective).
Out comes a line of JSON: `x` or null, `dual` or null, `nodes`, and `status` as CVXPY has it; or `error`.
The first line says which mixed-integer solvers CVXPY finds.
"""

from __future__ import annotations

import importlib
import io
import json
import math
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

SEPARATORS = ("aggregation", "clique", "gomory", "impliedbounds", "mcf", "mixing", "rlt", "zerohalf")
"""Cuts of SCIP that do not pay here, see `solvers.foreign.scip`."""

HEURISTICS = ("rounding", "simplerounding", "shifting", "trysol")
"""Those of SCIP's heuristics that are left on: CVXPY hands it no incumbent."""


class BackEnd(NamedTuple):
    """How a solver is driven through CVXPY.

    Attributes:
        options: its arguments of `solve`, of the options above.
        told: the dual bound, or minus infinity, and the nodes, of what CVXPY's interface to it returned.
    """

    options: Callable[[Any], dict[str, Any]]
    told: Callable[[Any], tuple[float, int]]


def main() -> None:
    """Answer models until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    warnings.simplefilter("ignore")
    cp: Any = importlib.import_module("cvxpy")
    print(json.dumps({"solvers": cp.installed_solvers()}), file=answers, flush=True)
    while len(size := sys.stdin.buffer.read(8)) == 8:
        archive = io.BytesIO(sys.stdin.buffer.read(int.from_bytes(size, "big")))
        try:
            answer = solve(np.load(archive, allow_pickle=False))
        except Exception as error:
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        print(json.dumps(answer), file=answers, flush=True)


def solve(fields: Any) -> dict[str, Any]:
    """The model in CVXPY, and what its solver answers."""
    cp: Any = importlib.import_module("cvxpy")
    asked = json.loads(str(fields["options"]))
    k, N = asked["binary"], len(fields["c"])
    z, v = cp.Variable(k, boolean=True), cp.Variable(N - k)
    x = cp.hstack([z, v])
    A = sp.csr_array((fields["data"], fields["indices"], fields["indptr"]), shape=(len(fields["b"]), N))
    A, b, cut = sp.csc_matrix(A), fields["b"], asked["equalities"]
    limits = [A[:cut] @ x == b[:cut]]
    if len(b) > cut:
        limits.append(A[cut:] @ x <= b[cut:])
    lower, upper, cones = fields["lower"], fields["upper"], fields["cones"]
    low, high = np.flatnonzero(np.isfinite(lower)), np.flatnonzero(np.isfinite(upper))
    limits += [x[low] >= lower[low], x[high] <= upper[high]]
    if len(cones):  # v^2 <= s z
        v_, s_, z_ = (x[cones[:, i]] for i in range(3))
        limits.append(cp.SOC(s_ + z_, cp.vstack([2.0 * v_, s_ - z_]), axis=0))
    problem = cp.Problem(cp.Minimize((asked["factor"] * fields["c"]) @ x), limits)
    warm = len(fields["start"]) > 0
    if warm:
        z.value, v.value = np.rint(fields["start"][:k]), fields["start"][k:]
    back_end = BACK_ENDS[asked["back_end"]]
    data, chain, inverse = problem.get_problem_data(asked["back_end"])
    raw = chain.solve_via_data(problem, data, warm, False, back_end.options(asked))
    solution = chain.invert(raw, inverse)
    point = None
    if solution.status in cp.settings.SOLUTION_PRESENT and solution.primal_vars:
        problem.unpack(solution)
        point = None if z.value is None else np.concatenate([z.value, v.value]).tolist()
    dual, nodes = back_end.told(raw)
    bound = dual / asked["factor"] if math.isfinite(dual) and abs(dual) < 1e20 else None
    return {"x": point, "dual": bound, "nodes": nodes, "status": solution.status}


def _scip(asked: Any) -> dict[str, Any]:
    scip: Any = importlib.import_module("pyscipopt")
    frequencies = [name for name in scip.Model().getParams() if name.startswith("heuristics/")]
    frequencies = [
        name for name in frequencies if name.endswith("/freq") and name.split("/")[1] not in HEURISTICS
    ]
    tolerance = asked["tolerance"]
    parameters = {
        "misc/catchctrlc": False, "randomization/randomseedshift": asked["seed"],
        "numerics/feastol": tolerance, "numerics/dualfeastol": tolerance, "limits/gap": asked["gap"],
        "separating/maxrounds": 1, "separating/maxcuts": 20, "branching/pscost/priority": 100_000,
    } | {f"separating/{name}/freq": -1 for name in SEPARATORS}  # fmt: skip
    parameters |= dict.fromkeys(frequencies, -1)
    return {"scip_params": parameters | _limit(asked, "limits/time")}


def _highs(asked: Any) -> dict[str, Any]:
    return {
        "random_seed": asked["seed"], "mip_rel_gap": asked["gap"], "mip_abs_gap": 0.0, "threads": 1,
        "mip_feasibility_tolerance": asked["tolerance"], "primal_feasibility_tolerance": asked["tolerance"],
        "dual_feasibility_tolerance": asked["tolerance"],
    } | _limit(asked, "time_limit")  # fmt: skip


def _scipy(asked: Any) -> dict[str, Any]:
    return {"scipy_options": {"mip_rel_gap": asked["gap"]} | _limit(asked, "time_limit")}


def _gurobi(asked: Any) -> dict[str, Any]:
    return {
        "Seed": asked["seed"], "MIPGap": asked["gap"], "MIPGapAbs": 0.0, "Threads": 1,
        "OptimalityTol": asked["tolerance"], "FeasibilityTol": asked["tolerance"],
        "IntFeasTol": asked["tolerance"],
    } | _limit(asked, "TimeLimit")  # fmt: skip


def _limit(asked: Any, name: str) -> dict[str, Any]:
    return {} if asked["seconds"] is None else {name: asked["seconds"]}


def _told_by_scipy(raw: Any) -> tuple[float, int]:
    dual = raw.get("mip_dual_bound")
    return -math.inf if dual is None else float(dual), int(raw.get("mip_node_count") or 0)


BACK_ENDS = {
    "SCIP": BackEnd(
        _scip, lambda raw: (float(raw["model"].getDualbound()), int(raw["model"].getNTotalNodes()))
    ),
    "HIGHS": BackEnd(
        _highs, lambda raw: (float(raw["info"].mip_dual_bound), int(raw["info"].mip_node_count))
    ),
    "SCIPY": BackEnd(_scipy, _told_by_scipy),
    "GUROBI": BackEnd(_gurobi, lambda raw: (float(raw["model"].ObjBound), int(raw["model"].NodeCount))),
}

if __name__ == "__main__":
    main()
