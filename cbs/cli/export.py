"""`cbs export`: a network as a file for use, or an instance as a model file for other solvers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cbs.cli import output
from cbs.cli.networks import Architecture, DataDir, Inputs, Result, Shape, Weights
from cbs.cli.options import HOW, SOURCE, Json, flag

if TYPE_CHECKING:
    from cbs.deploy.export import Exported

INSTANCES = (".mps", ".lp", ".qplib")
NETWORKS = (".safetensors", ".onnx")


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help=f"A run folder of `cbs prune`; digits, mlpnet, {SOURCE}; or an instance, FILE.npz.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="Where to: .safetensors or .onnx for a network, .mps, .lp or .qplib for an instance.",
        ),
    ],
    result: Result = None,
    model: Architecture = None,
    weights: Weights = None,
    data: Inputs = None,
    data_dir: DataDir = None,
    shape: Shape = None,
    split: Annotated[
        bool, flag("--split", panel=HOW, help="Of an instance: the model that the best split strengthens.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a pruned network as a small file, or an instance as a mixed-integer programme.

    A network loses its masks, every neuron that has no effect, and the zeros of its file; `cbs.load` reads
    it. ONNX is kept only if ONNX Runtime gives the same outputs. An instance becomes a file for any solver
    that reads MPS or LP: the optimum of the file, times the unit that is printed, is the optimum of the
    instance.

    For example:

    `cbs export runs/20260101-120000 small.safetensors`

    `cbs export package.module:network net.onnx --weights pruned.safetensors --shape 3,32,32`

    `cbs export layer.npz layer.mps --split`
    """
    if Path(source).suffix == ".npz":
        _instance(Path(source), out, split, as_json)
        return
    if split or out.suffix in INSTANCES:
        raise ValueError(
            f"{'split' if split else out.suffix} is for instances, but source {source!r} is no .npz file"
        )
    if out.suffix not in NETWORKS:
        raise ValueError(f"out {str(out)!r} must end in {' or '.join(NETWORKS)}")
    inside = Path(source) if Path(source).is_file() else None
    output.check_places([inside, weights], output=out)
    from cbs.cli.networks import find
    from cbs.deploy.export import export as write

    found = find(
        source, result=result, model=model, weights=weights, data=data, data_dir=data_dir, shape=shape
    )
    made = write(found.model, out, inputs=found.inputs, neurons=found.neurons)
    if made.needs_model is not None and found.builder is not None:
        made = write(found.model, out, inputs=found.inputs, neurons=found.neurons, builder=found.builder)
    if as_json:
        output.print_json(made.to_dict())
    else:
        _tell(made)


def _instance(path: Path, out: Path, split: bool, as_json: bool) -> None:
    from solvers import instances

    output.check_places([path], model=out)
    if out.suffix == ".qplib":
        if split:
            raise ValueError("--split has cones, which a .qplib file's readers rarely take; give .mps or .lp")
        instances.write_qplib(
            out, instances.load(path), "".join(c if c.isalnum() else "_" for c in path.stem)
        )
        unit = 1.0
    else:
        unit = instances.export(out, instances.load(path), split=split)
    if as_json:
        output.print_json({"file": out, "unit": unit})
    else:
        print(f"{out}: cost = {output.number(unit)} times the objective")


def _tell(made: Exported) -> None:
    """What was written, in a few lines."""
    share = 100 * made.bytes / max(1, made.dense_bytes)
    rows: list[tuple[str, Any]] = [
        (
            "file",
            f"{made.path}: {made.bytes:,} bytes, {share:.0f}% of the dense weights' {made.dense_bytes:,}",
        ),
        ("parameters", f"{made.parameters:,} of {made.dense_parameters:,}, zeros included"),
    ]
    for name, gone, count in made.removed:
        rows.append(("taken out", f"{gone} of {count} neurons of {name}"))
    if made.opset is not None:
        rows.append(("ONNX", f"opset {made.opset}; outputs within {made.error:.1e} of PyTorch's largest"))
    elif made.needs_model is None:
        rows.append(("to use it", f"cbs.load({str(made.path)!r}), in PyTorch or with runtime='sparse'"))
    else:
        rows.append(("to use it", f"cbs.load({str(made.path)!r}, model=NETWORK), for {made.needs_model}"))
    output.print_table(("", ""), rows)
