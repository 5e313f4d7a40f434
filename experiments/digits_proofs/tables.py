"""The table of README.md from the study's cells."""

import pandas as pd

from cbs.study.frames import records


def layers(frame: pd.DataFrame) -> str:
    """A line for every layer and sparsity."""
    rows = records(frame)
    peers = list(dict.fromkeys(one["peer"] for row in rows for one in row["peers"]))
    heads = [
        "layer", "pruned", "rows", "proven", "nodes a row", "seconds a row",
        *(f"{peer}: rows proven, difference, times slower" for peer in peers),
    ]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        found = {one["peer"]: one for one in row["peers"]}
        cells = [
            row["layer"], f"{row['sparsity']:.0%}", str(row["m"]), str(row["proven"]),
            f"{row['nodes_a_row']:,.0f}", f"{row['seconds_a_row']:.3f}",
        ]  # fmt: skip
        for peer in peers:
            one = found.get(peer)
            cells.append(
                f"{one['proven']} of {one['rows']}, {one['difference']:.1e}, {one['times_slower']:.0f}x"
                if one
                else "-"
            )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
