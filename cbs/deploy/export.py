"""`export()`: a network as a file for use, as small as it can be with the same outputs; and `load()`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cbs.deploy.batch import Batch, as_batch
from cbs.deploy.compact import compact
from cbs.deploy.stored import rebuild, write
from cbs.network.eligible import unwrap
from cbs.network.shrink import Removed, shrink, tell_stays
from cbs.network.surgery import clone
from cbs.quantization.quantize import QuantizeResult
from cbs.quantization.stored import PackedLayer
from cbs.result import PruneResult

FORMATS = ("safetensors", "onnx")
"""Formats, which are also the endings of their files."""
RUNTIMES = ("torch", "sparse")


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: of the file.
        format: `safetensors` or `onnx`.
        bytes: of the file.
        dense_bytes: of the tensors of the network that was pruned, with plain weights.
        parameters: of the network in the file, zeros included.
        dense_parameters: of the network that was pruned.
        removed: for every group of neurons that lost some the name of its first layer, how many went, of how
            many.
        needs_model: why `load` must be given the network or what makes it; None if the file is enough.
        opset: of ONNX; else None.
        exporter: that wrote ONNX, `trace` or `torch.export`; else None.
        error: largest difference of an output from torch's, relative to the largest output, of ONNX; else
            None.
    """

    path: Path
    format: str
    bytes: int
    dense_bytes: int
    parameters: int
    dense_parameters: int
    removed: list[tuple[str, int, int]] = field(default_factory=list)
    needs_model: str | None = None
    opset: int | None = None
    exporter: str | None = None
    error: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "path": os.fspath(self.path)}


def export(
    model: nn.Module | PruneResult | QuantizeResult,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    inputs: Any = None,
    builder: str | None = None,
    neurons: Sequence[Any] = (),
) -> Exported:
    """Write a network to a file for use: masks made permanent, dead neurons taken out, zeros not stored.

    What is taken out are the neurons that were pruned, and, where inputs are known, every neuron that feeds
    nothing or is constant (see `cbs.deploy.compact`). The outputs in evaluation mode stay the same to within
    rounding. A file that is there is replaced whole, or not at all.

    Args:
        model: a network with masks or without, or a result of `prune` or `quantize`.
        path: ends in `.safetensors` (beside it a description is written that ends in `.json`) or `.onnx`.
        format: `safetensors` or `onnx`; by default what the path ends in.
        inputs: a batch of the network's inputs, a few samples; by default calibration samples of the result.
            ONNX needs them.
        builder: `package.module:name` of what makes the network, for `load`; by default its class is named.
        neurons: of a network what was pruned of groups of neurons, as `PruneResult.neurons` or a report has
            it.

    Raises:
        ValueError: in one line, for what can't be exported, or if a file that was made has other outputs.
        OSError: if a file can't be written.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path must be a file's, got {path!r}")
    ending = Path(path).suffix.removeprefix(".")
    chosen = ending if format is None else format
    if chosen not in FORMATS or ending != chosen:
        endings = " or ".join(f".{name}" for name in FORMATS)
        raise ValueError(
            f"path {os.fspath(path)!r} must end in {endings}, as its format does, got format {format!r}"
        )
    dense, small, removed = slimmed(model, inputs, neurons)
    facts: dict[str, Any] = {
        "dense_bytes": _bytes(dense),
        "dense_parameters": sum(p.numel() for p in dense.parameters()),
        "parameters": sum(p.numel() for p in small.parameters()),
        "removed": removed,
    }
    if chosen == "onnx":
        from cbs.deploy.onnx import write_onnx

        made = write_onnx(small, path, example_of(model, inputs))
        return Exported(
            Path(path),
            chosen,
            os.path.getsize(path),
            opset=made.opset,
            exporter=made.exporter,
            error=made.error,
            **facts,
        )
    packed: Mapping[str, PackedLayer] = model.packed if isinstance(model, QuantizeResult) else {}
    written = write(small, path, builder=builder, packed=packed, facts={"pruning": facts})
    return Exported(Path(path), chosen, os.path.getsize(path), needs_model=written.reason, **facts)


def load(
    path: str | os.PathLike[str],
    model: nn.Module | Callable[[], nn.Module] | None = None,
    *,
    runtime: str = "torch",
    inputs: Any = None,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """The network of a file that `export` wrote, in evaluation mode.

    Args:
        path: of the `.safetensors` file.
        model: the network that was pruned, or a function that makes one: for classes that can't be made
            without arguments. Its weights do not matter; layers that the file has smaller become so.
        runtime: `torch`, or `sparse` for what `cbs.sparse` makes of the network.
        inputs: a batch of inputs that the sparse runtime is chosen on.
        device: where the network goes.

    Raises:
        ValueError: in one line, if the file can't be read, is none of these, is damaged, of a newer version
            or another network's.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime must be 'torch' or 'sparse', got {runtime!r}")
    network = rebuild(path, model)
    if runtime == "torch":
        return network.to(device)
    from cbs.deploy.sparse import sparse

    return sparse(network, inputs, device=device)


def slimmed(
    model: nn.Module | PruneResult | QuantizeResult, inputs: Any = None, neurons: Sequence[Any] = ()
) -> tuple[nn.Module, nn.Module, list[tuple[str, int, int]]]:
    """The network as it was in size, and as it is without what has no effect; what went of which group.

    Args:
        model: a network or a result.
        inputs: a batch of inputs; by default those of a result.
        neurons: of a network what was pruned of groups of neurons, as `PruneResult.neurons` or a report has
            it.

    Raises:
        ValueError: in one line, for what is no network.
    """
    if isinstance(model, PruneResult | QuantizeResult):
        masked = model.model
    elif isinstance(model, nn.Module):
        masked = unwrap(model)
    else:
        raise ValueError(f"model must be a torch.nn.Module or a result, got {type(model).__name__}")
    dense = clone(masked).cpu().eval()
    groups: list[Removed] = []
    small = dense
    gone = [group if isinstance(group, Removed) else Removed(**group) for group in neurons]
    if isinstance(model, PruneResult):
        gone = model.neurons
    if gone:
        tell_stays(gone)
        groups = [group for group in gone if group.stays is None]
        small = shrink(dense, groups).eval()
    given = example_of(model, inputs)
    lost: list[Removed] = []
    if given is not None and not isinstance(model, QuantizeResult):  # whose codes are of whole layers
        small, lost = compact(small, given)
    return dense, small, _together(groups, lost)


def example_of(model: Any, inputs: Any) -> Batch | None:
    """Inputs that are given, or those that a result carries, or None; on the CPU."""
    found = as_batch(getattr(model, "example", None) if inputs is None else inputs)
    return None if found is None else found.to("cpu")


def _together(*parts: list[Removed]) -> list[tuple[str, int, int]]:
    """For every group how many neurons went in all, of how many there were."""
    gone: dict[str, int] = {}
    counts: dict[str, int] = {}
    for group in [group for part in parts for group in part]:
        gone[group.name] = gone.get(group.name, 0) + len(group.neurons)
        counts.setdefault(group.name, group.count)
    return [(name, count, counts[name]) for name, count in gone.items() if count]


def _bytes(model: nn.Module) -> int:
    tensors = {id(t): t for t in model.state_dict(keep_vars=True).values() if isinstance(t, Tensor)}
    return sum(t.numel() * t.element_size() for t in tensors.values())
