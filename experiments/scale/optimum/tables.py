"""The table of results/table.md from the study's cells."""

import numpy as np
import pandas as pd

from cbs.study.frames import records

AT_OPTIMUM = 1e-6


def heuristics(frame: pd.DataFrame) -> str:
    """A line for every sparsity and heuristic, and for all sparsities together."""
    rows = records(frame)
    lines = [
        "| pruned | rows proven | solver | mean excess | median | worst | at the optimum | ms a row |",
        "|---" * 8 + "|",
    ]
    sparsities = sorted({row["sparsity"] for row in rows})
    names = list(dict.fromkeys(one["solver"] for row in rows for one in row["heuristics"]))
    for label, chosen in [*((f"{s:.0%}", [s]) for s in sparsities), ("all", sparsities)]:
        mine = [row for row in rows if row["sparsity"] in chosen]
        for name in names:
            found = [one for row in mine for one in row["heuristics"] if one["solver"] == name]
            excess = np.concatenate([one["excess"] for one in found])
            time = 1e3 * sum(one["seconds"] for one in found) / sum(row["m"] for row in mine)
            cells = [
                label, f"{len(excess)}", name, f"{excess.mean():.3%}", f"{np.median(excess):.3%}",
                f"{excess.max():.2%}", f"{np.mean(excess <= AT_OPTIMUM):.1%}", f"{time:.2f}",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    proofs = sum(row["seconds"] for row in rows)
    many = max((row["rows_at_a_time"] for row in rows), default=1)
    return "\n".join([*lines, "", f"{proofs:.0f} s for the proofs, {many} rows at a time."])
