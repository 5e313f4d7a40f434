"""What the soak came to: a line a solver, and one for every kind of claim held against the exact answer."""

from collections import Counter

STATEMENTS = {
    "bounds above": "bounds of solutions, curves and shared budgets, and those that certificates prove",
    "told bounds above": "bounds told to callbacks while searching",
    "told values below": "incumbents told to callbacks while searching",
    "values off": "values of masks",
    "false proofs": "masks called optimal, counts called proven",
    "certificates refused": "certificates written and verified",
    "errors": "problems refused, in one line; everything else is an error",
}
"""A kind of fault, and what is held against the exact answer to find it."""


def table(frame):
    """Two tables, and whatever contradictions there are."""
    done = frame[frame["state"] == "done"]
    lines = []
    for name in ("consistent", "held"):
        of = done[done["solver"] == name]
        if of.empty:
            continue
        wrong = [line for result in of["result"] for line in result["contradictions"]]
        count = sum(result["problems"] for result in of["result"])
        minutes = of["cpu_seconds"].sum() / 60
        lines += [f"`{name}`: {count:,} problems, {len(wrong)} contradictions, {minutes:.0f} minutes.", ""]
        lines += [*(f"- {line}" for line in wrong), ""] if wrong else []
        lines += [*(_solvers(of) if name == "consistent" else _held(of)), ""]
    return "\n".join(lines)


def _solvers(of):
    counts = {}
    for result in of["result"]:
        for row in result["solvers"]:
            there = counts.setdefault(row["name"], Counter())
            there.update({key: row[key] for key in ("solves", "proven", "seconds")})
    yield "| solver | problems solved | proven | mean ms |"
    yield "|---|---:|---:|---:|"
    for name, row in sorted(counts.items(), key=lambda pair: (-pair[1]["solves"], pair[0])):
        mean = 1000 * row["seconds"] / row["solves"]
        yield f"| {name} | {row['solves']:,} | {row['proven']:,} | {mean:.1f} |"


def _held(of):
    counts, wrong = Counter(), Counter()
    for result in of["result"]:
        counts.update(result["counts"])
        wrong.update(line.partition(":")[0] for line in result["contradictions"])
    yield "| what was held against the exact answer | how many | wrong |"
    yield "|---|---:|---:|"
    for kind, text in STATEMENTS.items():
        yield f"| {text} | {counts[kind]:,} | {wrong[kind]} |"
