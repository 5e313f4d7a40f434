"""`cbs prune`: a network pruned by every method, with a table, a plot, and a run folder."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

import cbs
from cbs import report
from cbs.arguments import helps
from cbs.cli import output
from cbs.request import Request
from cbs.schedule.growth import as_schedule

F = TypeVar("F", bound=Callable[..., Any])
METAVARS = {
    "solver": "NAME", "loss": "NAME", "time_limit": "SECONDS", "patience": "SECONDS", "finetune": "EPOCHS",
    "stages": "STAGES",
}  # fmt: skip
DEMO = {"scope": "row"}
"""What is asked of the embedded digits network where nothing else is: its rows are proven in seconds."""


def _asking(command: F) -> F:
    """Give a command an option for every field of `Request` that it does not have already.

    Args:
        command: that takes them as its `**options`; in its help they follow `layers`.
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    names = [parameter.name for parameter in own]
    asked = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default,
            annotation=Annotated[_type(str(field.type)), _option(field.name)],
        )
        for field in fields(Request)
        if field.name not in names
    ]  # fmt: skip
    at = names.index("layers") + 1
    ordered = [parameter.replace(kind=asked[0].kind) for parameter in (*own[:at], *asked, *own[at:-1])]
    command.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    return command


def _type(annotation: str) -> Any:
    """Of an option whose field has this annotation: the part of it that can be typed, or None."""
    (kind,) = (kind for kind in (str, int, float, bool) if kind.__name__ in annotation.split(" | "))
    return kind | None if "None" in annotation else kind


def _option(name: str, *declarations: str, more: str = "") -> Any:
    text = helps()[name]
    return typer.Option(*declarations, metavar=METAVARS.get(name), help=f"{text[:1].upper()}{text[1:]}{more}")


@_asking
def prune(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="digits, mlpnet, or package.module:name of your own.  [default: digits, by all methods]",
        ),
    ] = None,
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
        _option("sparsity", "--sparsity", "-s", more=" Repeat it or use commas.  [default: 0.5,0.75,0.9]"),
    ] = None,
    method: Annotated[
        list[str] | None,
        _option(
            "method",
            "--method",
            "-m",
            more=f" Repeat it or use commas.  [default: {Request.method}; without MODEL all]",
        ),
    ] = None,
    stages: Annotated[str, _option("stages")] = "1",
    layers: Annotated[
        list[str] | None,
        _option("layers", more=" Repeat it or use commas.  [default: all]"),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Run folder.  [default: runs/TIME]"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on in the folder of --output, or else in the latest of the same settings under runs, "
            "and compute only what it lacks; start afresh if there is none.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report instead of the table.")] = False,
    **options: Any,
) -> int:
    """Prune a network by several methods, and say how far each is from the best pruning there is.

    Without MODEL: trains an MLP on scikit-learn's digits in seconds, and prunes it by every method: half,
    three quarters and nine tenths of every row's weights, unless options say otherwise. Named, as `digits`,
    it is pruned by row as well; every other network has one budget for all of its layers.

    Writes a run folder with the pruned weights and masks (safetensors), report.json, and a plot. Every result
    is in the folder as soon as it is there: whatever ends the run, the same command with `--resume` computes
    only the rest.

    For example:

    `cbs prune`

    `cbs prune package.module:model --weights file.safetensors --data package.module:loader --sparsity 0.9`
    """
    sparsities = _sparsities(sparsity, options["budget"])
    methods = _listed("method", method) or (None if model is None else [str(Request.method)])
    from cbs.cli.sources import EMBEDDED, find_loss, gather_job  # imports PyTorch: `--help` need not wait
    from cbs.cli.ticker import Ticker
    from cbs.data import gather
    from cbs.prune import requests

    given: dict[str, Any] = {"layers": _listed("layers", layers) or None}
    for name, value in options.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            given[name] = value
    given["stages"] = as_schedule(stages)
    given |= DEMO if model in (None, "digits") and not given.keys() & {"scope", "budget"} else {}
    if given.get("patience") == 0:
        given["patience"] = None
    loss = given.get("loss", Request.loss)
    given["loss"] = find_loss(loss)
    with _telling_warnings():
        first, *_ = requests(sparsities, methods, **given)  # before an embedded model is trained
    chosen = [request.name for request in first]
    asked = first[0].to_dict()
    del asked["sparsity"], asked["method"]
    model = model or "digits"
    settings = {
        "model": model, "weights": weights, "data": data, "test": test, "data_dir": data_dir,
        "sparsities": sparsities, "methods": chosen, **asked, "loss": loss,
    }  # fmt: skip
    settings = output.plain(settings)
    path = _latest(settings) if resume and folder is None else folder
    path = path or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    settings["output"] = str(path)
    with output.telling_interruption(), report.RunFolder(path, settings, resume=resume) as run:
        job = gather_job(model, weights, data, test, data_dir)
        drawn = asked["samples"] if asked["finetune"] is None else None  # it is fine-tuned on all
        calibration = gather(job.data, drawn, asked["seed"])
        held_out = None if job.test is None else gather(job.test)
        finished = run.revive(job.model, report.identity(job.model, calibration, held_out))
        keeper = _Keeper(run)
        if weights is None and model not in EMBEDDED:
            keeper.remark = "no --weights given: pruning the network as its module makes it"
        whole = True
        with _telling_warnings(), Ticker(len(sparsities) * len(chosen), asked["budget"]) as ticker:
            try:
                results = cbs.compare(
                    job.model, calibration, sparsities=sparsities, methods=chosen, test=held_out,
                    callback=ticker, on_result=keeper, finished=finished, **given,
                )  # fmt: skip
            except KeyboardInterrupt:
                results, whole = list(run.results.values()), False
                if not results:
                    raise
        facts = run.conclude(results, whole=whole)

    def show() -> None:
        if as_json:
            output.print_json(facts)
        else:
            console = output.results()
            console.print(report.terminal(results))
            if several := report.staged(results):
                console.print()
                console.print(report.stages_terminal(several))
            where = f"not all of it could be written to {path}" if keeper.status else f"written to {path}"
            console.print(f"\n{_dense(results[0])}{where}: begin with table.md", soft_wrap=True)
            if not keeper.status:
                console.print(f"\n{report.next_steps(results, path)}", soft_wrap=True)

    status = output.deliver(show, {path: partial(run.finish, plot=whole)})
    return status or keeper.status or (130 if facts["interrupted"] else 0)


class _Keeper:
    """Puts results into a run folder: Ctrl-C meanwhile comes after it, and a full disk costs only files.

    Args:
        run: the folder.

    Attributes:
        remark: what is to be told once there is a result.
        status: the exit status of what could not be written, or 0.
    """

    def __init__(self, run: report.RunFolder) -> None:
        self.run, self.remark, self.status = run, "", 0

    def __call__(self, result: cbs.PruneResult) -> None:
        """Keep one result."""
        from solvers.control import Control, interruptible

        if self.remark:
            output.remark(self.remark)
            self.remark = ""
        wish = Control()
        with interruptible(wish):
            try:
                self.run.keep(result)
            except OSError as error:
                if not self.status:
                    why = error.strerror or str(error)
                    self.status = output.complain(
                        f"output {str(self.run.path)!r} can't be written now ({why})"
                    )
        if wish.interrupted:
            raise KeyboardInterrupt


def _latest(settings: dict[str, Any]) -> Path | None:
    """The latest folder under `runs` that the settings are those of; None if there is no run at all.

    Raises:
        ValueError: if there are runs, but of other settings.
    """
    found = sorted((path.parent for path in Path("runs").glob("*/report.json")), reverse=True)
    differs = ""
    for path in found:
        try:
            why = report.difference(report.read_report(path)["settings"], settings)
        except ValueError as error:
            differs = differs or str(error)
            continue
        if why is None:
            return path
        differs = differs or f"{str(path)!r} {why}"
    if found:
        raise ValueError(f"no run to go on with: the latest, {differs}")
    return None


@contextmanager
def _telling_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("always", cbs.LeftOut)
        warnings.simplefilter("always", cbs.ScopeIgnored)
        warnings.simplefilter("always", cbs.RefitWarning)
        warnings.showwarning = lambda message, *_, **__: output.remark(str(message))
        yield


def _dense(result: cbs.PruneResult) -> str:
    dense = result.test_before or result.before
    on = "" if result.test_before else " on calibration data"
    return "" if dense.accuracy is None else f"dense accuracy{on} {100 * dense.accuracy:.2f}%; "


def _listed(name: str, values: list[str] | None) -> list[str]:
    parts = [part.strip() for value in values or [] for part in value.split(",")]
    listed = list(dict.fromkeys(part for part in parts if part))
    if values and not listed:
        raise ValueError(f"{name} names nothing, got {' '.join(values)!r}; leave it out for the default")
    return listed


def _sparsities(values: list[str] | None, budget: str) -> list[float | None]:
    listed = _listed("sparsity", values)
    if not listed:
        return [None] if ":" in budget else [0.5, 0.75, 0.9]
    try:
        return list(dict.fromkeys(float(value) for value in listed))
    except ValueError as error:
        raise ValueError(f"sparsity must be numbers in [0, 1), separated by commas: {error}") from None
