"""`cbs solvers` and `cbs methods`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

import cbs
import solvers as package
from cbs.cli import output

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def solvers(as_json: Json = False) -> None:
    """List the solvers: what each proves and takes, and how to install what is missing."""
    known = package.available()
    if as_json:
        output.print_json(known)
        return
    output.print_table(
        ("solver", "proves", "takes", "what it does"),
        [(name, facts["proves"], _takes(facts), facts["summary"]) for name, facts in known.items()],
    )
    missing: dict[str, list[str]] = {}
    for name, facts in known.items():
        if not facts["installed"]:
            missing.setdefault(facts["install"], []).append(name)
    if missing:
        output.results().print("\nnot installed:")
        output.print_table(("", ""), [(", ".join(names), command) for command, names in missing.items()])


def _takes(facts: Mapping[str, Any]) -> str:
    """Variants and budgets, where they are not all."""
    from solvers.budget import KINDS

    variants = "" if len(facts["variants"]) == 2 else ", ".join(facts["variants"])
    lacking = [kind for kind in KINDS if kind not in facts["budgets"]]
    return "; ".join(part for part in (variants, lacking and f"not {', '.join(lacking)}") if part) or "all"


def methods(as_json: Json = False) -> None:
    """List the pruning methods: what each knows of the loss, how it selects, and what makes up for it."""
    known = cbs.methods()
    if as_json:
        output.print_json(known)
        return
    columns = ("curvature", "selection", "compensation", "granularity", "needs", "paper")
    output.print_table(
        ("method", *columns), [(name, *(facts[key] for key in columns)) for name, facts in known.items()]
    )
