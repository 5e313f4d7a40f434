"""`cbs bench`: a network dense, smaller, sparse and as ONNX: milliseconds, bytes and multiplications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cbs.cli import output
from cbs.cli.networks import Architecture, DataDir, Inputs, Result, Shape, Source, Weights
from cbs.cli.options import HOW, Json, flag, listed, option

if TYPE_CHECKING:
    from cbs.deploy.bench import Bench


def bench(
    source: Source,
    result: Result = None,
    model: Architecture = None,
    weights: Weights = None,
    data: Inputs = None,
    data_dir: DataDir = None,
    shape: Shape = None,
    batch: Annotated[
        list[str] | None,
        option(
            "--batch",
            "-b",
            panel=HOW,
            metavar="SIZES",
            help="Samples of a call; repeat it or use commas.  [default: 1,64]",
        ),
    ] = None,
    threads: Annotated[
        int | None,
        option(
            panel=HOW,
            metavar="NUMBER",
            min=1,
            help="For PyTorch and ONNX Runtime.  [default: as PyTorch has]",
        ),
    ] = None,
    seconds: Annotated[
        float, option(panel=HOW, metavar="NUMBER", help="For the timing of a batch size, about.")
    ] = 2.0,
    onnx: Annotated[bool, flag("--onnx/--no-onnx", panel=HOW, help="Whether to try ONNX Runtime.")] = True,
    as_json: Json = False,
) -> None:
    """Time a network in every form that it can take, side by side on this machine.

    Dense is the network with every weight, in PyTorch; smaller without the neurons that have no effect;
    sparse what `cbs.sparse` makes of it; onnx the smaller one in ONNX Runtime. All take turns, so that
    whatever else the machine does meets all alike; milliseconds are medians, and half of the calls took
    between the two that follow.

    For example:

    `cbs bench runs/20260101-120000`

    `cbs bench package.module:network --weights pruned.safetensors --shape 3,32,32 --threads 1`
    """
    sizes = _sizes(listed("batch", batch))
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"seconds must be a number from 0, got {seconds}")
    from cbs.cli.networks import find
    from cbs.deploy.bench import bench as measure

    found = find(
        source, result=result, model=model, weights=weights, data=data, data_dir=data_dir, shape=shape
    )
    if found.inputs is None:
        raise ValueError(f"inputs of {source!r} are not known; give --data FILE.py:NAME or --shape SIZES")
    made = measure(
        found.model, inputs=found.inputs, batches=sizes, threads=threads, seconds=seconds, onnx=onnx,
        neurons=found.neurons,
    )  # fmt: skip
    if as_json:
        output.print_json(made.to_dict())
    else:
        _tell(made)


def _sizes(values: list[str]) -> list[int]:
    try:
        found = [int(value) for value in values or ["1", "64"]]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise ValueError(f"batch must be whole numbers from 1, got {', '.join(values)}")
    return found


def _tell(made: Bench) -> None:
    """Tables, what could not be made, and the verdict."""
    rows = [
        (
            variant.name, _bytes(variant.disk), "-" if variant.memory is None else _bytes(variant.memory),
            f"{variant.multiplications:,}", variant.what,
        )
        for variant in made.variants
    ]  # fmt: skip
    output.print_table(("", "on disk", "in memory", "multiplied", "what runs"), rows)
    for batch in made.variants[0].times:
        print()
        times = []
        for variant in made.variants:
            t = variant.times[batch]
            half = f"{1e3 * t.low:.4g} - {1e3 * t.high:.4g}"
            times.append((variant.name, f"{1e3 * t.median:.4g}", half, made.told(variant, batch)))
        output.print_table((f"batch {batch}", "ms", "half of them", "against dense"), times, right=True)
    print()
    for remark in made.remarks:
        output.results().print(f"no {remark}")
    threads = f"{made.threads} thread{'' if made.threads == 1 else 's'}"
    for verdict in made.verdicts:
        print(verdict)
    print(f"Measured on {made.machine}, {threads}.")


def _bytes(count: int) -> str:
    if count < 10_000:
        return f"{count:,} B"
    return f"{count / 1e3:,.0f} kB" if count < 10_000_000 else f"{count / 1e6:,.1f} MB"
