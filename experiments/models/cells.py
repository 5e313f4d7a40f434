"""Prune networks whose weights come from packages; save, load, export and time what is left."""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from cases import CASES, Case
from safetensors.torch import load_file, save_file
from torch import nn

import cbs
from cbs.network.surgery import clone

SAME = 1e-4
"""Largest difference of outputs, relative to the largest, that counts as none."""


def pruned(
    network: str, what: str, by: str, method: str, options: Mapping[str, Any], onnx: bool = False
) -> dict[str, Any]:
    """Prune, save, load, export and measure.

    Args:
        network: of `CASES`.
        what: is pruned, in words, for the table.
        by: what, in words.
        method: of `cbs.prune`.
        options: of `cbs.prune`.
        onnx: write it as ONNX, too.
    """
    case, dense = made(network)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cbs.LeftOut)
        result = cbs.prune(
            dense, case.data, layers=case.layers, method=method, **{"seed": 0, "certify": False, **options}
        )
    seconds = time.perf_counter() - began
    found: dict[str, Any] = {
        "seconds": round(seconds, 1), "achieved_sparsity": round(result.sparsity, 4), "gap": result.gap,
        "whole": round(zeros(result.model, dense), 4), "layers": len(result.layers),
        "left_out": len(result.left_out), "status": result.status,
        **case.quality(dense, result.model),
    }  # fmt: skip
    return found | kept(case, dense, result, onnx)


@lru_cache(maxsize=1)
def made(network: str) -> tuple[Case, nn.Module]:
    """A case, and its network."""
    case = CASES[network](None)
    return case, case.build()


def zeros(pruned: nn.Module, dense: nn.Module) -> float:
    """Share of all numbers in the dense network's parameters that are gone, or zero, in the pruned one."""
    every = sum(values.numel() for values in dense.parameters())
    left = sum(int(values.count_nonzero()) for values in clone(pruned).parameters())  # masks are permanent
    return 1 - left / every


def kept(case: Case, dense: nn.Module, result: cbs.PruneResult, onnx: bool) -> dict[str, Any]:
    """What is saved is what is loaded, in plain PyTorch and by `cbs.load`; bytes and milliseconds."""
    wanted = call(result.model, case.example)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pruned.safetensors"
        save_file({name: values.contiguous() for name, values in result.state.items()}, path)
        fresh = case.build()
        try:
            fresh.load_state_dict(load_file(path), strict=False)
            found["reloads"] = close(call(fresh, case.example), wanted)
        except RuntimeError as error:  # neurons are gone: other shapes
            found["reloads"] = str(error).splitlines()[-1].strip()
        dense_path = Path(folder) / "dense.safetensors"
        found["dense_bytes"] = size(dense, dense_path)
        try:
            out = cbs.export(result, Path(folder) / "small.safetensors")
            loaded = cbs.load(out.path, case.build)
            found["exports"] = close(call(loaded, case.example), wanted)
            found["bytes"] = out.bytes
        except ValueError as error:
            found["exports"], loaded = str(error), result.model
        if onnx:
            try:
                written = cbs.export(result, Path(folder) / "small.onnx", inputs=case.short)
                found["onnx"], found["onnx_bytes"] = written.error, written.bytes
            except ValueError as error:
                found["onnx"] = str(error).split("Please feel free")[0].strip()
    models = {"dense": dense, "pruned": loaded}
    try:
        models["sparse"] = cbs.sparse(result, case.example)
        found["sparse"] = close(call(models["sparse"], case.example), wanted)
    except ValueError as error:
        found["sparse"] = str(error)
    times = processor_times([lambda m=model: call(m, case.example) for model in models.values()])
    for name, each in zip(models, times, strict=True):
        found[f"{name}_cpu_ms"] = round(1e3 * each, 3)
    return found


def processor_times(calls: Sequence[Callable[[], Any]], rounds: int = 9) -> list[float]:
    """Median seconds of the processor for each of some calls, in turns.

    Not of the clock: what else runs on the machine takes time from long calls, and none from short ones.
    """
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + 1):
        for times, once in zip(found, calls, strict=True):
            began, count = time.process_time(), 0
            while count < 1 or time.process_time() - began < 0.02:
                once()
                count += 1
            times.append((time.process_time() - began) / count)
    return [statistics.median(times[1:]) for times in found]


def size(model: nn.Module, path: Path) -> int:
    """Bytes of the dense network as safetensors."""
    save_file({name: values.contiguous().clone() for name, values in model.state_dict().items()}, path)
    return path.stat().st_size


def call(model: nn.Module, example: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**example) if isinstance(example, dict) else model(example)


def close(found: torch.Tensor, wanted: torch.Tensor) -> float | bool:
    """True where outputs are the same; else how far they are off, relative to the largest."""
    off = float((found - wanted).abs().max() / wanted.abs().max())
    return True if off <= SAME else off
