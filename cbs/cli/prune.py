"""`cbs prune`: a network pruned by every method, with a table, a plot, and a run folder."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

import cbs
from cbs import report
from cbs.cli import configuration, output
from cbs.cli.asking import TYPED, asking, field_option, help_all
from cbs.cli.options import (
    MORE,
    OUTPUT,
    SOURCE,
    Data,
    DataDir,
    Test,
    Weights,
    flag,
    listed,
    model_names,
    option,
)  # fmt: skip
from cbs.cli.tone import quiet
from cbs.request import Request
from cbs.schedule.growth import as_schedule

REPEAT = " Repeat it or use commas."
DEMO = {"scope": "row"}
"""What is asked of the embedded digits network where nothing else is: its rows are proven in seconds."""


@asking
def prune(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            autocompletion=model_names,
            help=f"digits, mlpnet, or your own: {SOURCE}.  [default: digits, by all methods]",
        ),
    ] = None,
    weights: Weights = None,
    data: Data = None,
    test: Test = None,
    data_dir: DataDir = None,
    sparsity: Annotated[
        list[str] | None,
        field_option("sparsity", "--sparsity", "-s", more=f"{REPEAT}  [default: 0.5,0.75,0.9]"),
    ] = None,
    method: Annotated[
        list[str] | None,
        field_option(
            "method",
            "--method",
            "-m",
            more=f"{REPEAT}  [default: {Request.method}; without MODEL all]",
        ),
    ] = None,
    stages: Annotated[str, field_option("stages")] = "1",
    layers: Annotated[list[str] | None, field_option("layers", more=f"{REPEAT}  [default: all]")] = None,
    folder: Annotated[
        Path | None,
        option("--output", "-o", panel=OUTPUT, metavar="FOLDER", help="Run folder.  [default: runs/TIME]"),
    ] = None,
    resume: Annotated[
        bool,
        flag(
            "--resume",
            panel=OUTPUT,
            help="Go on in the folder of --output, or else in the latest of the same settings under runs, "
            "and compute only what it lacks; start afresh if there is none.",
        ),
    ] = False,
    as_json: Annotated[
        bool, flag("--json", panel=OUTPUT, help="Print the report instead of the table.")
    ] = False,
    helped: Annotated[
        bool,
        flag("--help-all", panel=MORE, is_eager=True, callback=help_all, help="All that is said of options."),
    ] = False,
    **options: Any,
) -> int:
    """Prune a network by several methods, and say how far each is from the best pruning there is.

    Without MODEL: trains an MLP on scikit-learn's digits in seconds, and prunes it by every method: half,
    three quarters and nine tenths of every row's weights, unless options say otherwise. Named, as `digits`,
    it is pruned by row as well; every other network has one budget for all of its layers.

    Writes a run folder with the pruned weights and masks (safetensors), report.html, table.md, report.json,
    plots, and config.toml, which asks for the same again. Every result is in the folder as soon as it is
    there: whatever ends the run, the same command with `--resume` computes only the rest.

    For example:

    `cbs prune`

    `cbs prune net.py:build --weights net.safetensors --data net.py:loader -s 0.8,0.9`

    `cbs prune net.py:build --data net.py:loader --budget 2:4 --refit network --time-limit 300`

    `cbs prune --config runs/TIME/config.toml -o again`
    """
    limited = any(options[name] is not None for name in ("max_loss_increase", "max_accuracy_drop"))
    sparsities = _sparsities(sparsity, [None] if limited or ":" in options["budget"] else [0.5, 0.75, 0.9])
    methods = listed("method", method) or (None if model is None else [str(Request.method)])
    from cbs.cli.pretrained import is_folder
    from cbs.cli.sources import EMBEDDED, find_loss, gather_job  # imports PyTorch: `--help` need not wait
    from cbs.cli.ticker import Ticker
    from cbs.data import gather
    from cbs.prune import requests

    given: dict[str, Any] = {"layers": listed("layers", layers) or None}
    for name, value in options.items():
        if isinstance(value, list):
            options[name] = value = listed(name, value) or None
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
    asked = {TYPED.get(name, name): value for name, value in asked.items()}
    typed = {TYPED.get(name, name): value for name, value in options.items()}
    model = model or "digits"
    settings = {
        "model": model, "weights": weights, "data": data, "test": test, "data_dir": data_dir,
        "sparsities": sparsities, "methods": chosen, **asked, "loss": loss,
    }  # fmt: skip
    settings = output.plain(settings)
    path = _latest(settings) if resume and folder is None else folder
    path = path or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    settings["output"] = str(path)
    again = {
        "model": model, "weights": weights, "data": data, "test": test,
        "data_dir": data_dir if model == "mlpnet" else None, "sparsity": sparsities, "method": chosen,
        "stages": stages, "layers": given["layers"], **typed,
        "scope": asked["scope"] if asked["budget"] == Request.budget else None,
    }  # fmt: skip
    if sparsities == [None]:
        del again["sparsity"]
    arguments = context.obj if isinstance(context.obj, list) else None
    reruns = configuration.write("prune", again, path, remarks=_remarks(arguments))
    started = report.RunFolder(path, settings, resume=resume, config=reruns, command=arguments)
    with output.telling_interruption(), started as run:
        job = gather_job(model, weights, data, test, data_dir)
        drawn = asked["samples"] if asked["finetune"] is None else None  # it is fine-tuned on all
        calibration = gather(job.data, drawn, asked["seed"], job.model)
        held_out = None if job.test is None else gather(job.test, None, asked["seed"], job.model)
        identity = report.identity(job.model, calibration, held_out)
        finished = run.revive(job.model, identity)
        _compare_identity(context, identity)
        keeper = _Keeper(run)
        if weights is None and model not in EMBEDDED and not is_folder(model):
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
            if quiet():
                return
            first = "report.html" if whole else "table.md"
            where = f"not all of it could be written to {path}" if keeper.status else f"written to {path}"
            console.print(f"\n{_dense(results[0])}{where}: begin with {first}", soft_wrap=True)
            if keeper.status:
                return
            for result in report.best(results):
                head = f"{result.method} at {100 * result.asked:g}%: " if len(results) > 1 else ""
                console.print(f"{head}{report.shares(result)}", soft_wrap=True)
            if len(results) == 1:
                headings, *lines = report.layer_lines(results[0])
                console.print()
                output.print_table(headings, lines, right=True)
            console.print(f"\n{report.next_steps(results, path, settings)}", soft_wrap=True)

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


def _remarks(arguments: list[str] | None) -> list[str]:
    """What a configuration file begins with."""
    version = importlib.metadata.version("combinatorial-brain-surgeon")
    typed = [] if arguments is None else [f"written by: {shlex.join(['cbs', *arguments])}"]
    return [*typed, f"in {os.getcwd()}, by version {version}", "the same again: cbs prune --config THIS_FILE"]


def _compare_identity(context: typer.Context, identity: Mapping[str, str | None]) -> None:
    """Say so if a configuration file was written for another network or other data."""
    path = context.params.get("config")
    if path is None:
        return
    for what, digest in configuration.identity(path).items():
        if what in identity and identity[what] != digest:
            output.remark(f"config {str(path)!r} was written for another {what}: results will differ")


@contextmanager
def _telling_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("always", cbs.LeftOut)
        warnings.simplefilter("always", cbs.LimitWarning)
        warnings.simplefilter("always", cbs.OutputChosen)
        warnings.simplefilter("always", cbs.ScopeIgnored)
        warnings.simplefilter("always", cbs.RefitWarning)
        warnings.showwarning = lambda message, *_, **__: output.remark(str(message))
        yield


def _dense(result: cbs.PruneResult) -> str:
    dense = result.test_before or result.before
    on = "" if result.test_before else " on calibration data"
    return "" if dense.accuracy is None else f"dense accuracy{on} {100 * dense.accuracy:.2f}%; "


def _sparsities(values: list[str] | None, usual: list[float | None]) -> list[float | None]:
    found = listed("sparsity", values)
    if not found:
        return usual
    try:
        return list(dict.fromkeys(float(value) for value in found))
    except ValueError as error:
        raise ValueError(f"sparsity must be numbers in [0, 1), separated by commas: {error}") from None
