"""`cbs export`: an instance as a model file for other solvers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cbs.cli import output
from cbs.cli.options import File, Json
from solvers import instances


def export(
    file: File,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Where to; the ending .mps or .lp says which format.")
    ],
    split: Annotated[
        bool, typer.Option("--split", help="Write the model that the best split strengthens, with its cones.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write an instance as a mixed-integer programme, for any solver that reads MPS or LP files.

    The optimum of the file, times the unit that is printed, is the optimum of the instance.

    For example:

    `cbs export layer.npz layer.mps --split`
    """
    output.check_places([file], model=out)
    unit = instances.export(out, instances.load(file), split=split)
    if as_json:
        output.print_json({"file": out, "unit": unit})
    else:
        print(f"{out}: cost = {output.number(unit)} times the objective")
