"""`cbs quantize`: a network's weights in few bits, and how many bytes and how much accuracy are left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cbs.cli import output
from cbs.cli.asking import field_option
from cbs.cli.options import (
    INPUT,
    OUTPUT,
    Data,
    DataDir,
    Device,
    Json,
    Layers,
    Model,
    Seed,
    Test,
    Weights,
    listed,
    option,
)  # fmt: skip
from cbs.request import Request

if TYPE_CHECKING:
    from cbs.quantization.quantize import QuantizeResult


GRID = "Grid"


def quantize(
    model: Model = "digits",
    weights: Weights = None,
    masks: Annotated[
        Path | None,
        option(
            panel=INPUT,
            metavar="FILE",
            help="Masks of a pruned network, METHOD-SPARSITY.masks.safetensors of a run folder: what they "
            "prune stays zero and takes no bits.",
        ),
    ] = None,
    data: Data = None,
    test: Test = None,
    data_dir: DataDir = None,
    bits: Annotated[
        list[str] | None,
        option(
            "--bits",
            "-b",
            panel=GRID,
            metavar="NUMBER",
            help="Of a code, from 2 to 8. Repeat it or use commas.  [default: 4]",
        ),
    ] = None,
    per: Annotated[
        str,
        option(panel=GRID, metavar="NAME", help="A grid for every `row`, or one for a layer's `tensor`."),
    ] = "row",
    rounding: Annotated[
        str,
        option(
            panel=GRID,
            metavar="NAME",
            help="To the `nearest` level, or with error `feedback` on the layer Gram.",
        ),
    ] = "nearest",
    grid: Annotated[
        str,
        option(
            panel=GRID,
            metavar="NAME",
            help="Levels by a `search` for least squared error, or the weights' `range`.",
        ),
    ] = "search",
    layers: Layers = None,
    damping: Annotated[float, field_option("damping")] = Request.damping,
    samples: Annotated[int | None, field_option("samples")] = None,
    loss: Annotated[str, field_option("loss")] = str(Request.loss),
    seed: Seed = 0,
    device: Device = "cpu",
    out: Annotated[
        Path | None,
        option(
            "--output",
            "-o",
            panel=OUTPUT,
            metavar="FILE",
            help="Where to write the packed codes (safetensors); one number of bits only.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Round a network's weights to few bits, and count the bytes that are left.

    The bytes are those of the file that --output writes, but for its header: codes, masks, two numbers a
    grid, and everything else at its own type.

    For example:

    `cbs quantize --bits 8,4,3,2 --rounding feedback`

    `cbs quantize digits --weights run/joint-0.9.safetensors --masks run/joint-0.9.masks.safetensors --bits 4`
    """
    asked = _bits(bits)
    if out is not None and len(asked) > 1:
        raise ValueError(f"output is one file, but bits are {', '.join(map(str, asked))}; give one of them")
    output.check_places([weights, masks], output=out)
    import cbs  # imports PyTorch: `--help` need not wait
    from cbs.cli.sources import find_loss, gather_job
    from cbs.quantization.stored import pruned_bytes

    how = find_loss(loss)
    job = gather_job(model, weights, data, test, data_dir)
    network = job.model if masks is None else _masked(job.model, masks)
    names = listed("layers", layers) or None
    asking: dict[str, Any] = {
        "per": per, "rounding": rounding, "grid": grid, "layers": names, "damping": damping,
        "samples": samples, "loss": how, "test": job.test, "seed": seed, "device": device,
    }  # fmt: skip
    results = [cbs.quantize(network, job.data, bits=width, **asking) for width in asked]

    def show() -> None:
        if as_json:
            output.print_json({"model": model, "results": [result.to_dict() for result in results]})
        else:
            _print(results, None if masks is None else pruned_bytes(network))

    return output.deliver(show, {} if out is None else {out: lambda: results[0].save(out)})


def _bits(values: list[str] | None) -> list[int]:
    listed = [part.strip() for value in values or ["4"] for part in value.split(",") if part.strip()]
    if not listed:
        raise ValueError(f"bits must be whole numbers from 2 to 8, got {' '.join(values or [])!r}")
    try:
        return list(dict.fromkeys(int(value) for value in listed))
    except ValueError:
        raise ValueError(f"bits must be whole numbers from 2 to 8, got {', '.join(listed)}") from None


def _masked(model: Any, path: Path) -> Any:
    """The model with the masks of a file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from cbs.network.surgery import clone, revive

    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"masks {str(path)!r} can't be read ({error})") from None
    return revive(model, clone(model).state_dict(), found)


def _print(results: list[QuantizeResult], pruned: int | None) -> None:
    """A table whose first row is the network that was rounded: dense, or pruned and of so many bytes."""

    def accuracy(evaluation: Any) -> str:
        return (
            "-" if evaluation is None or evaluation.accuracy is None else f"{100 * evaluation.accuracy:.2f}%"
        )

    first = results[0]
    dense = first.test_before or first.before
    size = first.dense_bytes if pruned is None else pruned
    rows = [("dense" if pruned is None else "pruned", f"{size:,}", accuracy(dense), "-", "-")]
    for result in results:
        assert result.before is not None
        assert result.after is not None
        found = accuracy(result.test_after or result.after)
        lost = f"{result.after.loss - result.before.loss:+.4f}"
        name, value = f"{result.settings['bits']} bits", output.number(result.value or 0.0)
        rows.append((name, f"{result.bytes:,}", found, lost, value))
    on = "" if first.test_before else " (calibration)"
    output.print_table(("", "bytes", f"accuracy{on}", "loss increase", "layer objectives"), rows, right=True)
