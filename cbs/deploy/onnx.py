"""ONNX files: the network for other runtimes, kept only if ONNX Runtime computes the same from it.

PyTorch has two exporters. The one that traces the network is quick, needs no other package and is taken
first; the one that goes through `torch.export` (package onnxscript) is taken where the first fails. The
first dimension of every input is the batch's and is left open. What was written is run by ONNX Runtime on
the given samples, all together and the first alone, and held against torch's outputs.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cbs.data import first_line
from cbs.deploy.batch import Batch, arguments, call, difference, tensors_of
from solvers.runtime.writing import replacing

OPSET = 18
SHOWN = 16
"""Samples that are run."""
SAME = 1e-4
"""Largest difference of an output from torch's, relative to the largest output, in single precision."""


@dataclass(frozen=True)
class Checked:
    """An ONNX file that was tried.

    Attributes:
        opset: of the operators.
        exporter: `trace` or `torch.export`.
        error: largest difference of an output from torch's, relative to the largest.
    """

    opset: int
    exporter: str
    error: float


def write_onnx(model: nn.Module, path: str | os.PathLike[str], inputs: Batch | None) -> Checked:
    """Write a network without masks, in evaluation mode; what is at the place stays if that fails.

    Args:
        model: the network.
        path: of the file.
        inputs: a batch: a tensor, a tuple (by position) or a mapping (by keyword); two samples at least, so
            that it is seen whether the batch's size is left open.

    Raises:
        ValueError: in one line, if a package is missing, the network can't be exported, or its outputs
            differ.
        OSError: if the file can't be written.
    """
    for package in ("onnx", "onnxruntime"):
        if find_spec(package) is None:
            raise ValueError(f"ONNX needs the package {package!r}; install it, or the extra 'onnx'")
    if inputs is None:
        raise ValueError("inputs are missing: ONNX is made by running the network; give a batch as inputs=")
    model = model.cpu().eval()
    whole = inputs.to("cpu")
    batches = [whole[:SHOWN], whole[:1]]
    with torch.no_grad():
        wanted = [tensors_of(call(model, batch)) for batch in batches]
    failed: list[str] = []
    for exporter, write in EXPORTERS.items():
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "network.onnx"
            try:
                with _quiet():
                    write(model, batches[0], made, len(wanted[0]))
                error = max(_error(model, made, batch, w) for batch, w in zip(batches, wanted, strict=True))
            except Exception as failure:  # exporters and ONNX Runtime raise classes of their own
                failed.append(f"{exporter}: {type(failure).__name__}: {first_line(failure)}")
                continue
            if not error <= SAME:
                failed.append(f"{exporter}: outputs differ by {error:.1e} of the largest")
                continue
            data = made.read_bytes()
        with replacing(path) as file:
            file.write(data)
        return Checked(OPSET, exporter, error)
    raise ValueError(f"{type(model).__name__} can't be exported to ONNX ({'; '.join(failed)})")


def session(path: str | os.PathLike[str], threads: int = 0) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        path: of the file.
        threads: that an operator may take; 0 leaves it to ONNX Runtime.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what fails is raised
    return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])


def feed(model: nn.Module, batch: Batch, running: Any) -> dict[str, Any]:
    """A batch as ONNX Runtime takes it, by name; an input that the network does not look at is none."""
    given = _inputs(model, batch)
    return {item.name: given[item.name].numpy() for item in running.get_inputs()}


class Positional(nn.Module):
    """A network as exporters take any: tensors by position, and of its outputs all tensors in a tuple.

    Args:
        model: the network.
        names: of tensors that it takes by keyword.
        count: of tensors that it takes by position.
        fixed: what else it is given by keyword.
    """

    def __init__(self, model: nn.Module, names: list[str], count: int, fixed: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.names, self.count, self.fixed = model, names, count, fixed

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """All tensors of the network's answer."""
        named = dict(zip(self.names, tensors[self.count :], strict=True))
        return tuple(tensors_of(self.model(*tensors[: self.count], **named, **self.fixed)))


def _inputs(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """A batch's tensors by name: those given by position are `input`, `input_1`, ..."""
    args, kwargs = arguments(model, batch)
    if not all(isinstance(value, Tensor) for value in args):
        raise ValueError("inputs in structures can't be told apart in ONNX; take them as separate arguments")
    named = {f"input_{i}" if i else "input": tensor for i, tensor in enumerate(args)}
    return named | {name: value for name, value in kwargs.items() if isinstance(value, Tensor)}


def _traced(model: nn.Module, inputs: Batch, path: Path, outputs: int) -> None:
    _write(model, inputs, path, outputs, dynamo=False)


def _exported(model: nn.Module, inputs: Batch, path: Path, outputs: int) -> None:
    if find_spec("onnxscript") is None:
        raise ValueError("it needs the package 'onnxscript', which is not installed")
    _write(model, inputs, path, outputs, dynamo=True)


EXPORTERS: dict[str, Callable[[nn.Module, Batch, Path, int], None]] = {
    "trace": _traced,
    "torch.export": _exported,
}


def _write(model: nn.Module, inputs: Batch, path: Path, outputs: int, *, dynamo: bool) -> None:
    args, kwargs = arguments(model, inputs)
    given = _inputs(model, inputs)
    fixed = {name: value for name, value in kwargs.items() if not isinstance(value, Tensor)}
    wrapped = Positional(model, [name for name in kwargs if name in given], len(args), fixed).eval()
    outside = [f"output_{i}" if i else "output" for i in range(outputs)]
    settings: dict[str, Any] = {
        "dynamo": dynamo, "opset_version": OPSET, "input_names": [*given], "output_names": outside,
    }  # fmt: skip
    if dynamo:
        shapes = tuple({0: torch.export.Dim.DYNAMIC} for _ in given)
        settings |= {"dynamic_shapes": (shapes,), "external_data": False, "verbose": False}
    else:
        settings |= {"dynamic_axes": {name: {0: "batch"} for name in (*given, *outside)}}
    torch.onnx.export(wrapped, tuple(given.values()), os.fspath(path), **settings)


def _error(model: nn.Module, path: Path, inputs: Batch, wanted: list[Tensor]) -> float:
    running = session(path, threads=1)
    found = [torch.from_numpy(a) for a in running.run(None, feed(model, inputs, running))]
    return difference(found, wanted)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters log and print, in Python and in C++."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), _no_output():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _no_output() -> Iterator[None]:
    """Nothing that is written to standard output and error goes anywhere, whoever writes it."""
    nowhere = io.StringIO()
    held: list[tuple[int, int]] = []
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        try:
            with contextlib.suppress(OSError), open(os.devnull, "wb") as sink:  # either may be closed
                for number in (1, 2):
                    held.append((number, os.dup(number)))
                    os.dup2(sink.fileno(), number)
            yield
        finally:
            for number, before in held:
                os.dup2(before, number)
                os.close(before)
