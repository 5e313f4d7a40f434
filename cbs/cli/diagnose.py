"""`cbs diagnose` and `cbs audit`: where a pruned network loses, and what of it really is zero."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cbs.cli import output
from cbs.cli.asking import field_option
from cbs.cli.options import (
    INPUT,
    OUTPUT,
    Data,
    DataDir,
    Device,
    Json,
    Model,
    Seed,
    Test,
    Weights,
    Wide,
    listed,
    model_names,
    option,
)  # fmt: skip
from cbs.names import check_name
from cbs.request import Request

if TYPE_CHECKING:
    from torch import nn

    from cbs.cli.sources import Job

WHAT = "What to tell"
PARTS = ("damage", "trace", "audit", "sensitivity", "stability")
"""What `cbs diagnose` can tell; the first three unless something is asked for."""
TITLES = {
    "damage": "Loss layer by layer: alone, all but it, all up to it",
    "trace": "Relative error of every module's output, in running order",
    "audit": "Zeros, and what holds them",
    "sensitivity": "Loss with one layer alone pruned",
    "stability": "Masks chosen on bootstrap samples of the data",
}
FILES = (".safetensors", ".pt", ".pth")


def diagnose(
    model: Model = "digits",
    weights: Weights = None,
    pruned: Annotated[
        Path | None,
        option(
            panel=INPUT,
            metavar="FILE",
            help="Weights of the pruned network, as METHOD-SPARSITY.safetensors of a run folder.  [default: "
            "prune now]",
        ),
    ] = None,
    data: Data = None,
    test: Test = None,
    data_dir: DataDir = None,
    samples: Annotated[int | None, field_option("samples")] = None,
    loss: Annotated[str, field_option("loss")] = str(Request.loss),
    sparsity: Annotated[float, field_option("sparsity", "--sparsity", "-s")] = 0.9,
    method: Annotated[str, field_option("method", "--method", "-m")] = "magnitude",
    scope: Annotated[str, field_option("scope")] = Request.scope,
    what: Annotated[
        list[str] | None,
        option(
            panel=WHAT,
            metavar="NAMES",
            help="Of damage, trace, audit, sensitivity, stability. Repeat it or use commas.  [default: "
            "damage,trace,audit]",
        ),
    ] = None,
    resamples: Annotated[
        int, option(panel=WHAT, metavar="NUMBER", help="Bootstrap samples for `stability`.")
    ] = 10,
    seed: Seed = 0,
    device: Device = "cpu",
    folder: Annotated[
        Path | None,
        option("--output", "-o", panel=OUTPUT, metavar="FOLDER", help="For diagnosis.json and figures."),
    ] = None,
    as_json: Json = False,
    wide: Wide = False,
) -> int:
    """Tell where a pruned network loses: layer by layer, and in running order.

    The pruned network is a file's, or the network is pruned now, greedily and without proofs. Losses and
    errors are measured on the test data if there are any, else on the calibration data.

    For example:

    `cbs diagnose`

    `cbs diagnose net.py:build --weights net.pt --data net.py:loader --pruned runs/TIME/joint-0.9.safetensors`

    `cbs diagnose digits -s 0.9 -m obc --what sensitivity,stability -o diagnosis`
    """  # fmt: skip
    wanted = listed("what", what) or list(PARTS[:3])
    for name in wanted:
        check_name("part", name, PARTS)
    output.check_places([weights, pruned])
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(f"output {str(folder)!r} is a file; give a folder")
    from cbs.cli.sources import find_loss, gather_job  # imports PyTorch: `--help` need not wait

    how = find_loss(loss)
    settings: dict[str, Any] = {"samples": samples, "loss": how, "seed": seed, "device": device}
    asking = {"sparsity": sparsity, "method": method, "scope": scope, **settings}
    Request(**asking, certify=False)
    with output.telling_interruption():
        job = gather_job(model, weights, data, test, data_dir)
        found = _found(wanted, job, pruned, asking, resamples)

    def show() -> None:
        if as_json:
            output.print_json({"model": model, **{name: part.to_dict() for name, part in found.items()}})
            return
        for name, part in found.items():
            print(f"{TITLES[name]}\n")
            output.print_table(*part.table(), right=True, wide=wide)
            if verdict := getattr(part, "verdict", ""):
                print(f"\n{verdict}")
            print()

    status = output.deliver(show, {} if folder is None else {folder: partial(_write, folder, model, found)})
    stopped = any(getattr(part, "status", "done") == "interrupted" for part in found.values())
    return status or (130 if stopped else 0)


def _found(
    wanted: list[str], job: Job, pruned: Path | None, asking: Mapping[str, Any], resamples: int
) -> dict[str, Any]:
    """What is wanted, part by part; after an interruption what there is."""
    import cbs
    from cbs.cli.weights import fill
    from cbs.data import gather
    from cbs.network.surgery import clone

    measured = job.data if job.test is None else job.test
    settings = {name: asking[name] for name in ("samples", "loss", "seed", "device")}
    found: dict[str, Any] = {}
    result: Any = None
    dense: nn.Module | None = None
    if {*wanted} & {"damage", "trace", "audit"}:
        if pruned is None:
            result = cbs.prune(job.model, job.data, test=job.test, certify=False, solver="greedy", **asking)
        else:
            dense = job.model
            result = fill(clone(job.model), pruned)
    shared = {name: settings[name] for name in ("samples", "seed", "device")}
    for name in wanted:
        if name == "damage":
            part: Any = cbs.damage(result, measured, dense=dense, loss=asking["loss"], **shared)
        elif name == "trace":
            part = cbs.trace(result, measured, dense=dense, **shared)
        elif name == "audit":
            part = cbs.audit(result, data=gather(measured, asking["samples"], asking["seed"]))
        elif name == "sensitivity":
            scope = "layer" if asking["scope"] == "network" else asking["scope"]
            part = cbs.sensitivity(
                job.model, job.data, method=asking["method"], test=job.test, scope=scope, **settings
            )
        else:
            part = cbs.stability(job.model, job.data, resamples=resamples, **asking)
        found[name] = part
        if getattr(part, "status", "done") == "interrupted":
            break
    return found


def _write(folder: Path, model: str, found: Mapping[str, Any]) -> None:
    """Records and figures into a folder."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    record = output.plain({"model": model, **{name: part.to_dict() for name, part in found.items()}})
    (folder / "diagnosis.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, part in found.items():
        if hasattr(part, "draw"):
            part.draw().savefig(folder / f"{name}.png")


def audit(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|MODEL",
            help="A state dict, .safetensors or .pt; or a model as for `cbs prune`.",
            autocompletion=model_names,
        ),
    ],
    weights: Weights = None,
    masks: Annotated[
        Path | None,
        option(
            panel=INPUT,
            metavar="FILE",
            help="Masks that should hold, METHOD-SPARSITY.masks.safetensors of a run folder.",
        ),
    ] = None,
    data: Data = None,
    samples: Annotated[int | None, field_option("samples")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    wide: Wide = False,
) -> int:
    """Count the zeros of a network by parameter, and tell what holds them and what came back.

    Of a model with --data also the inputs that are always zero, and the outputs that never change.

    For example:

    `cbs audit tuned.safetensors --masks runs/TIME/joint-0.9.masks.safetensors`
    """  # fmt: skip
    import cbs  # imports PyTorch: `--help` need not wait
    from cbs.cli.sources import find_data, find_model
    from cbs.cli.weights import read_state

    if what.endswith(FILES):
        if weights is not None or data is not None:
            name = "weights" if weights is not None else "data"
            raise ValueError(f"{name} go with a model, but {what!r} is a file; give the model that it is of")
        model: Any = read_state(Path(what))
    else:
        model = find_model(what, weights)
    given = None if data is None else find_data(data, None)
    against = None if masks is None else {k: v.bool() for k, v in read_state(masks).items()}
    found = cbs.audit(model, against=against, data=given, samples=samples, seed=seed)

    def show() -> None:
        if as_json:
            output.print_json(found.to_dict())
            return
        output.print_table(*found.table(), right=True, wide=wide)
        print(f"\n{found.verdict}")

    return output.deliver(show, {})
