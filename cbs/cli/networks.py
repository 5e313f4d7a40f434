"""The network that `cbs export` and `cbs bench` are given: a run folder, an exported file, or a name."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cbs.cli import output
from cbs.cli.options import INPUT, SOURCE, DataDir, Weights, option

if TYPE_CHECKING:
    from torch import nn

SAMPLES = 64
"""Inputs that are taken of the data."""
Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help=f"A run folder of `cbs prune`; a file of `cbs export`; or digits, mlpnet, {SOURCE}.",
    ),
]
Result = Annotated[
    str | None,
    option(
        panel=INPUT, metavar="METHOD-SPARSITY",
        help="Which result of a run folder.  [default: of the sparsest the one of least loss]",
    ),
]  # fmt: skip
Architecture = Annotated[
    str | None,
    option(
        "--model",
        panel=INPUT,
        metavar="FILE.py:NAME",
        help="What makes the network of a file that can't tell.",
    ),
]
Inputs = Annotated[
    str | None,
    option(
        panel=INPUT, metavar="FILE.py:NAME",
        help="Data whose inputs the network is run on.  [default: those of the run or the embedded model]",
    ),
]  # fmt: skip
Shape = Annotated[
    str | None,
    option(
        panel=INPUT,
        metavar="SIZES",
        help="Instead of data: random inputs of a sample's sizes, such as 3,32,32.",
    ),
]
__all__ = ["Architecture", "DataDir", "Found", "Inputs", "Result", "Shape", "Source", "Weights", "find"]


@dataclass(frozen=True)
class Found:
    """A network and inputs for it.

    Attributes:
        model: with zeros where it was pruned.
        inputs: a batch, or None.
        neurons: what was pruned of groups of neurons, as a report has it.
        builder: `package.module:name` of what makes it, or None.
    """

    model: nn.Module
    inputs: Any
    neurons: list[Any] = field(default_factory=list)
    builder: str | None = None


def find(
    source: str,
    *,
    result: str | None = None,
    model: str | None = None,
    weights: Path | None = None,
    data: str | None = None,
    data_dir: Path | None = None,
    shape: str | None = None,
) -> Found:
    """The network of a run folder, of an exported file, or of a name.

    Raises:
        ValueError: in one line, for what can't be found, or belongs to another.
    """
    from cbs.cli.sources import find_data, find_model

    path = Path(source)
    neurons: list[Any] = []
    name: str | None = source
    if path.is_dir():
        if weights is not None:
            raise ValueError("weights are those of the run folder; leave out --weights")
        record, settings, weights = _result(path, result)
        name = model or settings["model"]
        data = data or settings.get("data")
        data_dir = data_dir or (Path(settings["data_dir"]) if settings.get("data_dir") else None)
        network, neurons = find_model(str(name), weights), record.get("neurons", [])
    elif result is not None:
        raise ValueError(f"result {result!r} is of a run folder, but {source!r} is none")
    elif path.suffix == ".safetensors" or (":" not in source and path.is_file()):
        from cbs.deploy.stored import rebuild

        if weights is not None:
            raise ValueError(f"weights are those of {source!r}; leave out --weights")
        network, name = rebuild(path, None if model is None else find_model(model)), model
    elif model is not None:
        raise ValueError(f"model {model!r} is for run folders and files, but {source!r} is neither")
    elif source == "digits" and weights is None:
        from cbs.zoo import trained_digits_mlp

        network, _ = trained_digits_mlp()
    else:
        network = find_model(source, weights)
    return Found(
        network, _inputs(network, name, data, data_dir, shape, find_data), neurons, _importable(name)
    )


def _result(folder: Path, wanted: str | None) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """A result's record, the run's settings, and the file with its weights."""
    from cbs.report.folder import file_names, read_report

    report = read_report(folder)
    records: dict[str, dict[str, Any]] = {}
    for record in report["results"]:
        name = file_names(record["method"], record["asked"])[0]
        if (folder / name).is_file():
            records[name.removesuffix(".safetensors")] = record
    if not records:
        raise ValueError(f"{str(folder)!r} has no result with weights; see its report.json")
    if wanted is None:
        most = max(record["asked"] for record in records.values())
        loss = {name: r["measured"]["after"]["loss"] for name, r in records.items() if r["asked"] == most}
        wanted = min(loss, key=lambda name: (loss[name] is None, loss[name]))
        if len(records) > 1:
            output.remark(f"taking {wanted} of {len(records)} results; --result names another")
    stem = wanted.removesuffix(".safetensors")
    if stem not in records:
        raise ValueError(f"result {wanted!r} is not in {str(folder)!r}; there are {', '.join(records)}")
    return records[stem], report["settings"], folder / f"{stem}.safetensors"


def _inputs(
    network: nn.Module,
    name: str | None,
    data: str | None,
    data_dir: Path | None,
    shape: str | None,
    find_data: Any,
) -> Any:
    """A batch of inputs, of data or random ones; None where nothing is known of them."""
    import torch

    if shape is not None:
        if data is not None:
            raise ValueError("shape and data both say what the inputs are; give one of them")
        try:
            sizes = [int(size) for size in shape.split(",")]
        except ValueError:
            sizes = []
        if not sizes or min(sizes) < 1:
            raise ValueError(
                f"shape must be whole numbers from 1 with commas, such as 3,32,32, got {shape!r}"
            )
        kinds = [p.dtype for p in network.parameters() if p.is_floating_point()]
        drawn = torch.randn(SAMPLES, *sizes, generator=torch.Generator().manual_seed(0))
        return drawn.to(kinds[0]) if kinds else drawn
    from cbs.data import gather

    found = find_data(data, name, data_dir)
    return None if found is None else gather(found, SAMPLES, 0, network).first(SAMPLES)


def _importable(name: str | None) -> str | None:
    """A name under which another process finds what makes the network; None for files and embedded models."""
    if name is None or ":" not in name or ".py:" in name:
        return None
    try:
        importlib.import_module(name.partition(":")[0])
    except Exception:
        return None
    return name
