"""HiGHS in a process of its own: a model comes in on standard input, news go out on standard output.

The wheels of highspy and OR-Tools each bring a `libhighs`, and a process can load only one of them, so
`solvers.foreign.highs` runs this file by itself; it imports nothing else of the package.

In comes a NumPy archive: `c [N]`, `integer [N]`, `A` as `indptr`, `indices` and `data` of its rows,
`lower [rows]`, `upper [rows]`, `start [N]`, and an array `options` of JSON text. Variables are in [0, 1].
Out comes a line of JSON for every piece of news: `x` (the integer variables, or null), `dual` and `nodes`;
the last one has `status`, too.
"""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import highspy
import numpy as np


def main() -> None:
    """Solve the model on standard input."""
    fields = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    integer = np.flatnonzero(fields["integer"])
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    for name, value in json.loads(str(fields["options"])).items():
        solver.setOptionValue(name, value)
    solver.passModel(_model(fields))
    start = highspy.HighsSolution()
    start.col_value = fields["start"].tolist()
    solver.setSolution(start)

    def tell(x: Any, dual: float, nodes: int, **more: str) -> None:
        point = None if x is None else np.rint(np.asarray(x)[integer]).astype(int).tolist()
        print(json.dumps({"x": point, "dual": dual, "nodes": nodes, **more}), flush=True)

    def improved(event: Any) -> None:
        news = event.data_out
        tell(news.mip_solution, news.mip_dual_bound, news.mip_node_count)

    def moved(event: Any) -> None:
        news = event.data_out
        tell(None, news.mip_dual_bound, news.mip_node_count)

    solver.cbMipImprovingSolution += improved
    solver.cbMipLogging += moved
    solver.run()
    found = solver.getSolution()
    info = solver.getInfo()
    status = solver.modelStatusToString(solver.getModelStatus())
    tell(
        found.col_value if found.value_valid else None,
        info.mip_dual_bound,
        info.mip_node_count,
        status=status,
    )


def _model(fields: Any) -> Any:
    model = highspy.HighsLp()
    N, rows = len(fields["c"]), len(fields["lower"])
    model.num_col_, model.num_row_ = N, rows
    model.col_cost_, model.col_lower_, model.col_upper_ = fields["c"], np.zeros(N), np.ones(N)
    model.row_lower_, model.row_upper_ = fields["lower"], fields["upper"]
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_, model.a_matrix_.index_ = fields["indptr"], fields["indices"]
    model.a_matrix_.value_ = fields["data"]
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    model.integrality_ = [kinds[int(flag)] for flag in fields["integer"]]
    return model


if __name__ == "__main__":
    main()
