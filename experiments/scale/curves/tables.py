"""Tables of results/table.md from the study's cells."""

import pandas as pd

from cbs.study.frames import records


def points(frame: pd.DataFrame) -> str:
    """What all curves took."""
    rows = [row for row in records(frame) if row["kind"] == "call"]
    if not rows:
        return "No curves yet."
    return (
        f"Row curves of all layers, {sum(row['points'] for row in rows):,} points: "
        f"{sum(row['seconds'] for row in rows):.1f} s, {rows[0]['rows_at_a_time']} rows at a time."
    )


def layers(frame: pd.DataFrame) -> str:
    """Layer objectives after swaps, as share below greedy's, and seconds."""
    found: dict[tuple[str, float], dict[str, dict]] = {}
    for row in records(frame):
        if row["kind"] == "solve":
            place = row["instance"].split("-")[1], round(row["sparsity"], 2)
            found.setdefault(place, {})[row["solver"]] = row
    names = [name for name in dict.fromkeys(n for one in found.values() for n in one) if name != "greedy"]
    heads = ["layer", "pruned", "greedy", "s", *(f"{name}: below greedy, s" for name in names)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for (layer, sparsity), row in sorted(found.items()):
        if (greedy := row.get("greedy")) is None:
            continue
        cells = [layer, f"{sparsity:.0%}", f"{greedy['value']:.4g}", f"{greedy['seconds']:.1f}"]
        for name in names:
            theirs = row.get(name)
            below = None if theirs is None else 1 - theirs["value"] / greedy["value"]
            cells.append("-" if theirs is None else f"{below:.1%}, {theirs['seconds']:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
