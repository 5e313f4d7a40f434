"""`cbs verify`: is a certificate a proof?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cbs.cli import output
from cbs.cli.options import Json


@contextmanager
def as_instances(files: list[Path]) -> Iterator[list[Path]]:
    """Instance files as they are; of model files that carry an instance, files with that instance."""
    from solvers.instances import read_problem, save
    from solvers.instances.read import SIGNS

    with tempfile.TemporaryDirectory() as folder:
        found = []
        for i, file in enumerate(files):
            if file.suffix.lower() in SIGNS:
                problem = read_problem(file)
                file = Path(folder) / f"{i}.npz"
                save(file, problem)
            found.append(file)
        yield found


Certificate = Annotated[
    Path, typer.Argument(metavar="CERTIFICATE", help="What `cbs solve --certificate` wrote.")
]
Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE.npz...",
        help="The instance it is about, or a model that carries it; several in the order of its writing.",
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
        with one_thread_each(), as_instances(files) as stored:
            verdict = checker.verify(certificate, *stored)
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
