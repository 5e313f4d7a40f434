"""`cbs verify`: is a certificate a proof?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cbs.cli import output
from cbs.cli.options import Json

Certificate = Annotated[
    Path, typer.Argument(metavar="CERTIFICATE", help="What `cbs solve --certificate` wrote.")
]
Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE.npz...", help="The instance it is about; several in the order of its writing."
    ),
]


def verify(certificate: Certificate, files: Files, as_json: Json = False) -> int:
    """Verify that no mask of an instance's budget has a smaller loss increase than a certificate says.

    Everything is evaluated rigorously, for the numbers in the files, by code that shares nothing with any
    solver. Exit status: 0 proven, 1 refuted, with one line on standard error that says what is not proven,
    2 for files that can't be read.

    For example:

    `cbs verify layer.cert layer.npz`
    """
    from solvers import checker
    from solvers.runtime.parallel import one_thread_each

    try:
        with one_thread_each():
            verdict = checker.verify(certificate, *files)
    except checker.Refuted as error:
        output.complain(f"not proven: {error}")
        return 1
    if as_json:
        output.print_json(
            {
                "proven": True,
                "value": [verdict.low, verdict.high],
                "bound": verdict.bound,
                "gap": verdict.gap,
                "proofs": verdict.proofs,
                "leaves": verdict.leaves,
                "seconds": verdict.seconds,
            }
        )
        return 0
    print(
        f"proven: value {output.number(verdict.high)} (+/- {(verdict.high - verdict.low) / 2:.1e}), "
        f"bound {output.number(verdict.bound)}, gap {output.percent(verdict.gap)}; "
        f"{verdict.proofs} proofs, {verdict.leaves} leaves, {verdict.seconds:.2f} s"
    )
    return 0
