"""Tables of results/table.md from the study's cells."""

import pandas as pd

from cbs.study.frames import records


def curves(frame: pd.DataFrame) -> str:
    """A line a layer."""
    lines = [
        "| network | layer | rows x inputs | rows x counts | proven | largest gap | nodes | search, s "
        "| check, s | proofs | leaves | MB |",
        "|---" * 12 + "|",
    ]
    lines += [
        f"| {row['network']} | {row['layer']} | {row['m']} x {row['n']} | {row['points']:,} "
        f"| {row['proven']:,} | {row['gap']:.2e} | {row['nodes']:,} | {row['seconds']:.1f} "
        f"| {row['check_seconds']:.1f} | {row['proofs']:,} | {row['leaves']:,} | {row['megabytes']:.0f} |"
        for row in records(frame)
        if row["solver"] == "curves"
    ]
    return "\n".join(lines)


def budgets(frame: pd.DataFrame) -> str:
    """A line for every group of layers and sparsity."""
    lines = [
        "| network | pruned | kept a layer | value | bound | gap | nodes | search, s | check, s | MB |",
        "|---" * 10 + "|",
    ]
    rows = [row for row in records(frame) if row["solver"] == "budgets"]
    for row in rows:
        some = f", layers {', '.join(row['some'])}" if row.get("some") else ""
        lines.append(
            f"| {row['network']}{some} | {row['sparsity']:.0%} | {' + '.join(map(str, row['kept']))} "
            f"| {row['value']:.6g} | {row['bound']:.6g} | {row['gap']:.2e} | {row['nodes']:,} "
            f"| {row['seconds']:.1f} | {row['check_seconds']:.1f} | {row['megabytes']:.0f} |"
        )
    return "\n".join(lines)
