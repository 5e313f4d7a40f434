"""`cbs curve`: what every number of pruned weights costs each row, at least and at most."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np

import solvers
from cbs.cli import output
from cbs.cli.options import HOW, LIMITS, OUTPUT, File, Json, Limit, option
from cbs.cli.watch import Watch
from solvers import instances
from solvers.runtime.writing import replacing

LINES = 10
"""Lines of the table that is printed, the first one not counted."""


def curve(
    file: File,
    time_limit: Limit = None,
    gap: Annotated[
        float,
        option(
            panel=LIMITS,
            metavar="NUMBER",
            help="Stop at a count once (value - bound) / |value| is proven to be this small.",
        ),
    ] = 1e-4,
    prune: Annotated[
        str | None,
        option(panel=HOW, metavar="K,K,...", help="Counts to search, e.g. 16,32 or 8-16; all by default."),
    ] = None,
    csv_file: Annotated[
        Path | None,
        option("--csv", panel=OUTPUT, metavar="OUT", help="Write row, prune, value, bound, proven."),
    ] = None,
    certificate: Annotated[
        Path | None,
        option(
            panel=OUTPUT, metavar="OUT", help="Write proofs of all bounds, for `cbs verify`; needs per_layer."
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Value and bound of every row of an instance for every number of pruned weights.

    The instance's own count does not matter. Neighbouring counts share their work, so that all of them take
    far less than as many calls of `cbs solve`. Values and bounds shown on the way are sums over all rows and
    counts. Ctrl-C stops the search, prints what was found so far and exits with status 130.

    For example:

    `cbs curve layer.npz --csv curves.csv`

    `cbs curve layer.npz --prune 28-36 --certificate layer.cert && cbs verify layer.cert layer.npz`
    """
    output.check_places([file], csv=csv_file, certificate=certificate)
    problem = instances.load(file)
    counts = None if prune is None else _counts(prune, len(problem.prunable))
    with output.telling_interruption(), Watch() as watch:
        found = solvers.curve(
            problem, gap=gap, time_limit=time_limit, callback=watch, certify=certificate is not None,
            counts=counts,
        )  # fmt: skip
    saves: dict[Path, Callable[[], None]] = {}
    if csv_file is not None:
        saves[csv_file] = partial(_write, csv_file, found)
    if certificate is not None and found.certificate is not None:
        saves[certificate] = partial(found.certificate.save, certificate)
    status = output.deliver(partial(_show, found, as_json), saves)
    unproven = certificate is not None and found.certificate is None
    if unproven and "certificate" in found.stats:
        return status or output.complain(f"no certificate is written: {found.stats['certificate']}")
    if unproven:
        output.remark("interrupted before the certificate was complete; none is written")
    return status or (130 if unproven or found.status is solvers.Status.INTERRUPTED else 0)


def _show(found: solvers.Curve, as_json: bool) -> None:
    if as_json:
        output.print_json(
            {
                "status": found.status.value,
                "seconds": found.seconds,
                "nodes": found.stats["nodes"],
                "values": found.values,
                "bounds": found.lower,
                "proven": found.proven,
            }
        )
        return
    m, width = found.values.shape
    lines = []
    for k in np.unique(np.linspace(0, width - 1, min(width, LINES + 1)).round().astype(int)).tolist():
        value, bound = float(found.values[:, k].sum()), float(found.lower[:, k].sum())
        gap = output.percent(solvers.Bounds(min(bound, value), value).gap)
        proven = f"{int(found.proven[:, k].sum())} of {m}"
        lines.append((f"{k} of {width - 1}", output.number(value), output.number(bound), gap, proven))
    output.print_table(("pruned a row", "value", "bound", "gap", "rows proven"), lines, right=True)
    print(
        f"{int(found.proven.sum())} of {m * width} proven to {output.percent(found.gap)}, up to rounding; "
        f"{found.stats['nodes']:,} nodes, {found.seconds:.2f} s\n"
        f"status   {found.status.value}: {found.status.remedy}"
    )


def _write(path: Path, found: solvers.Curve) -> None:
    text = io.StringIO(newline="")
    writer, proven = csv.writer(text), found.proven
    writer.writerow(["row", "prune", "value", "bound", "proven"])
    for (r, k), value in np.ndenumerate(found.values):
        writer.writerow([r, k, repr(float(value)), repr(float(found.lower[r, k])), int(proven[r, k])])
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def _counts(text: str, n: int) -> list[int]:
    counts: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            start, end = int(first), int(last or first)
            if not start <= end:
                raise ValueError("an empty range")
            counts += [start, *range(start, min(end, n) + 1), end]
    except ValueError:
        raise ValueError(f"prune {text!r} must list counts or ranges, like 16,32 or 8-16") from None
    return counts
