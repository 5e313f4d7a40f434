"""`cbs prune`: a network pruned by every method, with a table, a plot, and a run folder."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

import cbs
import solvers
from cbs import report
from cbs.cli import output
from cbs.method import get_method


def prune(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="digits, mlpnet, or package.module:name of your own.")
    ] = "digits",
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="State dict, .safetensors or .pt; embedded models train without."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="MODULE:NAME", help="Calibration data, or a function that returns it."),
    ] = None,
    test: Annotated[
        str | None, typer.Option(metavar="MODULE:NAME", help="Held-out data for the accuracy.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the MNIST files for mlpnet.", envvar="CBS_DATA"),
    ] = None,
    sparsity: Annotated[
        list[str] | None,
        typer.Option(
            "--sparsity", "-s", help="Fraction to prune; repeat it or use commas.  [default: 0.5,0.75,0.9]"
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", help="See `cbs methods`; repeat it or use commas.  [default: all]"),
    ] = None,
    scope: Annotated[str, typer.Option(help="Where the sparsity is met: row, layer or network.")] = "row",
    budget: Annotated[str, typer.Option(help="unstructured, columns, or N:M such as 2:4.")] = "unstructured",
    solver: Annotated[str, typer.Option(metavar="NAME", help="See `cbs solvers`.")] = "auto",
    gap: Annotated[float, typer.Option(help="Relative gap at which a search stops.")] = 1e-4,
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="For the searches of each method and sparsity.")
    ] = None,
    damping: Annotated[float, typer.Option(help="Of every curvature, relative to its mean diagonal.")] = 1e-2,
    samples: Annotated[int | None, typer.Option(help="Calibration samples; all of them if absent.")] = None,
    loss: Annotated[
        str,
        typer.Option(metavar="NAME", help="Of torch.nn.functional, e.g. mse_loss, or package.module:name."),
    ] = "cross_entropy",
    layers: Annotated[
        list[str] | None,
        typer.Option(help="Names of the layers to prune; repeat it or use commas.  [default: all]"),
    ] = None,
    certify: Annotated[
        bool,
        typer.Option(
            help="Compute a lower bound where the method and solver give none; slow for wide layers."
        ),
    ] = True,
    recalibrate: Annotated[
        bool,
        typer.Option(
            "--recalibrate", help="Refit each layer on what comes out of the pruned layers before it."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    folder: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Run folder.  [default: runs/TIME]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report instead of the table.")] = False,
) -> int:
    """Prune a network by several methods, and say how far each is from the best pruning there is.

    Without arguments: trains an MLP on scikit-learn's digits in seconds, and prunes half, three quarters and
    nine tenths of every row's weights by every method. Writes a run folder with the pruned weights and masks
    (safetensors), report.json, and a plot. Ctrl-C keeps what is finished.

    For example:

    `cbs prune`

    `cbs prune --method joint,magnitude --sparsity 0.9 --scope network`

    `cbs prune package.module:model --weights file.safetensors --data package.module:loader --budget 2:4`
    """
    sparsities = _sparsities(sparsity, budget)
    chosen = _listed(method) or list(cbs.methods())
    options: dict[str, Any] = {
        "scope": scope, "budget": budget, "solver": solver, "gap": gap, "time_limit": time_limit,
        "seed": seed, "recalibrate": recalibrate, "certify": certify,
    }  # fmt: skip
    from cbs.cli.sources import EMBEDDED, find_loss, gather_job  # imports PyTorch: `--help` need not wait
    from cbs.cli.ticker import Ticker
    from cbs.request import Request

    for fraction in sparsities:  # before an embedded model is trained
        Request(fraction, **options)
    for name in chosen:
        get_method(name)
    solvers.get_solver(solver)
    options |= {"damping": damping, "samples": samples, "layers": _listed(layers) or None}
    path = Path("runs") / time.strftime("%Y%m%d-%H%M%S") if folder is None else folder
    settings = {
        "model": model, "weights": weights, "data": data, "test": test, "data_dir": data_dir,
        "sparsities": sparsities, "methods": chosen, "loss": loss, **options, "output": path,
    }  # fmt: skip
    options["loss"] = find_loss(loss)
    labels = [budget if s is None else f"{100 * s:g}%" for s in sparsities]
    with output.telling_interruption(), report.RunFolder(path) as hidden:
        job = gather_job(model, weights, data, test, data_dir)
        if weights is None and model not in EMBEDDED:
            output.remark("no --weights given: pruning the network as its module makes it")
        with _telling_what_is_left_out(), Ticker(labels, len(chosen)) as ticker:
            results = cbs.compare(
                job.model, job.data, sparsities=sparsities, methods=chosen, test=job.test, callback=ticker,
                **options,
            )  # fmt: skip
        facts = output.plain(report.report(results, settings))
        report.write(hidden, results, facts)
    if as_json:
        output.print_json(facts)
    else:
        console = output.results()
        console.print(report.terminal(results))
        console.print(f"\n{_dense(results[0])}written to {path}", soft_wrap=True)
    return 130 if facts["interrupted"] else 0


@contextmanager
def _telling_what_is_left_out() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("always", cbs.LeftOut)
        warnings.showwarning = lambda message, *_, **__: output.remark(str(message))
        yield


def _dense(result: cbs.PruneResult) -> str:
    dense = result.test_before or result.before
    on = "" if result.test_before else " on calibration data"
    return "" if dense.accuracy is None else f"dense accuracy{on} {100 * dense.accuracy:.2f}%; "


def _listed(values: list[str] | None) -> list[str]:
    parts = [part.strip() for value in values or [] for part in value.split(",")]
    return list(dict.fromkeys(part for part in parts if part))


def _sparsities(values: list[str] | None, budget: str) -> list[float | None]:
    listed = _listed(values)
    if not listed:
        return [None] if ":" in budget else [0.5, 0.75, 0.9]
    try:
        return [float(value) for value in listed]
    except ValueError as error:
        raise ValueError(f"sparsity must be numbers in [0, 1), separated by commas: {error}") from None
