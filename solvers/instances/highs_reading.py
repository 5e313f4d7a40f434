"""A model file read by HiGHS, in a process of its own.

The wheels of highspy and OR-Tools each bring a `libhighs`, and a process can load only one of them, so
`solvers.instances.read` runs this file by itself; it imports nothing else of the package.

The path is the argument. Out goes a NumPy archive: `c [N]`, `offset`, `lower [N]`, `upper [N]`, `whole [N]`,
`maximize`, `names [N]`, `row_lower [M]`, `row_upper [M]`, the rows as `A_data`, `A_index`, `A_start`,
`by_columns`, and the lower triangle of the quadratic part as `Q_data`, `Q_index`, `Q_start` by columns.
Status 3 says that HiGHS can't read the file.
"""

from __future__ import annotations

import io
import sys

import highspy
import numpy as np

UNREAD = 3


def main() -> int:
    """Read the file that is named, and write what is in it to standard output."""
    highs = highspy.Highs()  # type: ignore[no-untyped-call]
    highs.silent()
    if highs.readModel(sys.argv[1]) == highspy.HighsStatus.kError:
        return UNREAD
    model = highs.getModel()
    lp, hessian = model.lp_, model.hessian_
    kinds = list(lp.integrality_) or [highspy.HighsVarType.kContinuous] * lp.num_col_
    fields = {
        "c": np.array(lp.col_cost_), "offset": float(lp.offset_), "lower": np.array(lp.col_lower_),
        "upper": np.array(lp.col_upper_), "row_lower": np.array(lp.row_lower_),
        "row_upper": np.array(lp.row_upper_),
        "whole": np.array([kind == highspy.HighsVarType.kInteger for kind in kinds], dtype=bool),
        "maximize": lp.sense_ == highspy.ObjSense.kMaximize, "names": np.array(list(lp.col_names_),
        dtype=str),
        "A_data": np.array(lp.a_matrix_.value_), "A_index": np.array(lp.a_matrix_.index_),
        "A_start": np.array(lp.a_matrix_.start_),
        "by_columns": lp.a_matrix_.format_ == highspy.MatrixFormat.kColwise, "dim": hessian.dim_,
        "Q_data": np.array(hessian.value_), "Q_index": np.array(hessian.index_),
        "Q_start": np.array(hessian.start_),
    }  # fmt: skip
    made = io.BytesIO()
    np.savez(made, **fields)  # type: ignore[arg-type]
    sys.stdout.buffer.write(made.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
