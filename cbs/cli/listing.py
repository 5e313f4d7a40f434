"""`cbs solvers` and `cbs methods`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cbs
import solvers as package
from cbs.cli import output
from cbs.cli.options import Json, Wide
from cbs.cli.tone import quiet


def solvers(wide: Wide = False, as_json: Json = False) -> None:
    """List the solvers: what each proves and takes, and how to install what is missing.

    A solver is for both variants, joint and selection, and for every budget, but for what is said of it.

    For example:

    `cbs solvers --wide`
    """
    known = package.available()
    if as_json:
        output.print_json(known)
        return
    if wide:
        headings: tuple[str, ...] = ("solver", "proves", "takes", "resumes", "what it does")
        rows: list[tuple[str, ...]] = [
            (name, f["proves"], _takes(f), "yes" if f["resumable"] else "no", f["summary"])
            for name, f in known.items()
        ]
    else:
        headings = ("solver", "proves", "what it does")
        rows = [(name, facts["proves"], _about(facts)) for name, facts in known.items()]
    output.print_table(headings, rows, wide=wide)
    missing: dict[str, list[str]] = {}
    for name, facts in known.items():
        if not facts["installed"]:
            missing.setdefault(facts["install"], []).append(name)
    if missing:
        output.results().print("\nnot installed:")
        output.print_table(("", ""), [(", ".join(names), command) for command, names in missing.items()])


def _about(facts: Mapping[str, Any]) -> str:
    """What a solver does, and what it does not take."""
    takes = _takes(facts)
    only = f"; {takes} only" if takes in ("joint", "selection") else f"; {takes}"
    return f"{facts['summary']}{'' if takes == 'all' else only}"


def _takes(facts: Mapping[str, Any]) -> str:
    """Variants and budgets, where they are not all."""
    from solvers.budget import KINDS

    variants = "" if len(facts["variants"]) == 2 else ", ".join(facts["variants"])
    lacking = [kind for kind in KINDS if kind not in facts["budgets"]]
    return "; ".join(part for part in (variants, lacking and f"not {', '.join(lacking)}") if part) or "all"


def methods(wide: Wide = False, as_json: Json = False) -> None:
    """List the pruning methods: what each knows of the loss, how it selects, and what makes up for it.

    For example:

    `cbs methods --wide`
    """
    known = cbs.methods()
    if as_json:
        output.print_json(known)
        return
    columns: tuple[str, ...] = ("curvature", "selection", "compensation")
    if wide:
        columns += ("granularity", "needs", "paper")
    output.print_table(
        ("method", *columns),
        [(name, *(facts[key] for key in columns)) for name, facts in known.items()],
        wide=wide,
    )
    if not wide and not quiet():
        output.results().print("\nwhat they prune, what they need and their papers: cbs methods --wide")
