"""`cbs solvers` and `cbs methods`: what there is to choose from."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

import cbs
from cbs.cli import output
from solvers import available
from solvers.budget import KINDS

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def solvers(as_json: Json = False) -> None:
    """List the solvers: what each proves and supports, and whether its dependency is installed."""
    known = available()
    if as_json:
        output.print_json(known)
        return
    table = Table("solver", "proves", "variants", "budgets", "installed", "what it does", box=None)
    for name, facts in known.items():
        variants = "both" if len(facts["variants"]) == 2 else ", ".join(facts["variants"])
        budgets = "all" if len(facts["budgets"]) == len(KINDS) else ", ".join(facts["budgets"])
        installed = "yes" if facts["installed"] else facts["install"]
        table.add_row(name, facts["proves"], variants, budgets, installed, facts["summary"])
    output.results().print(table)


def methods(as_json: Json = False) -> None:
    """List the pruning methods: what each knows of the loss, how it selects, and what makes up for it."""
    known = cbs.methods()
    if as_json:
        output.print_json(known)
        return
    table = Table("method", "curvature", "selection", "compensation", "paper", box=None)
    for name, facts in known.items():
        table.add_row(name, *(facts[key] for key in ("curvature", "selection", "compensation", "paper")))
    output.results().print(table)
