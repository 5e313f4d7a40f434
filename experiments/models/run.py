"""Prune networks whose weights come from packages; save, load, export and time what is left.

    CBS_DATA=/path/to/folder python experiments/models/run.py [--only NAME ...] [--cache FOLDER]

Each row is written to `results/rows.json` as soon as it is there, and rows that are there are not computed
again; `results/table.md` is made of them. `config.toml` lists the rows.
"""

import argparse
import json
import statistics
import tempfile
import time
import tomllib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from cases import CASES, Case
from safetensors.torch import load_file, save_file
from torch import nn

import cbs

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SAME = 1e-4
"""Largest difference of outputs, relative to the largest, that counts as none."""


def row(case: Case, dense: nn.Module, asked: dict[str, Any], onnx: bool) -> dict[str, Any]:
    """Prune, save, load, export and measure."""
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cbs.LeftOut)
        result = cbs.prune(dense, case.data, layers=case.layers, **asked)
    seconds = time.perf_counter() - began
    found: dict[str, Any] = {
        "seconds": round(seconds, 1), "sparsity": round(result.sparsity, 4), "gap": result.gap,
        "whole": round(zeros(result.model, dense), 4), "layers": len(result.layers),
        "left_out": len(result.left_out), "status": result.status,
        **case.quality(dense, result.model),
    }  # fmt: skip
    return found | kept(case, dense, result, onnx)


def zeros(pruned: nn.Module, dense: nn.Module) -> float:
    """Share of all numbers in the dense network's parameters that are gone, or zero, in the pruned one."""
    every = sum(values.numel() for values in dense.parameters())
    left = sum(int(values.count_nonzero()) for values in _plain(pruned).parameters())
    return 1 - left / every


def _plain(model: nn.Module) -> nn.Module:
    from cbs.network.surgery import clone

    return clone(model)  # whose masks are permanent


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


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A line a row: what was asked, what is kept, and what it costs."""
    head = (
        "| network | pruned | by | zeros in the layers / network | quality | dense | bytes on disk | "
        "ms dense / pruned / sparse | seconds | gap |"
    )
    lines = [head, "|" + " --- |" * 3 + " ---: |" * 7]
    for key, found in sorted(rows.items(), key=lambda item: list(SHOWN).index(item[0].split(" | ")[0])):
        name, what, by = key.split(" | ")
        shown = SHOWN[name]
        quality = ", ".join(f"{figure} {found[figure]:.3f}" for figure in shown)
        dense = found.get("dense_accuracy")
        kinds = [found.get(f"{one}_cpu_ms") for one in ("dense", "pruned", "sparse")]
        times = "" if None in kinds else " / ".join(f"{one:.2f}" for one in kinds)
        gap = "" if found["gap"] is None else f"{100 * found['gap']:.1f}%"
        disk = f"{found['dense_bytes'] / 1e6:.2f} to {found.get('bytes', 0) / 1e6:.2f} MB"
        zero = f"{100 * found['sparsity']:.1f}% / {100 * found['whole']:.1f}%"
        lines.append(
            f"| {name} | {what} | {by} | {zero} | {quality} | {'' if dense is None else f'{dense:.3f}'} | "
            f"{disk} | {times} | {found['seconds']:.0f} | {gap} |"
        )
    return "\n".join(lines) + "\n"


SHOWN = {
    "silero-vad": ("agreement", "accuracy"),
    "english_g2": ("accuracy", "alike"),
    "MiniLM-L6": ("cosine", "ranks"),
    "ResNet20": ("accuracy", "agreement"),
}
"""The figures that the table has of every network."""


def put(path: Path, name: str, text: str) -> None:
    """Replace what stands between two markers of a document."""
    before, rest = path.read_text().split(f"<!-- {name}: begin")
    comment, _, rest = rest.partition("-->\n")
    path.write_text(
        f"{before}<!-- {name}: begin{comment}-->\n{text}<!-- {name}: end{rest.split(f'<!-- {name}: end')[1]}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="networks")
    parser.add_argument("--cache", type=Path, help="folder of the packages; the user's cache if absent")
    parser.add_argument("--rows", default="", help="only rows whose names have this in them")
    arguments = parser.parse_args()
    config = tomllib.loads((HERE / "config.toml").read_text())
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "rows.json"
    rows = json.loads(path.read_text()) if path.is_file() else {}
    for name in arguments.only or CASES:
        case = dense = None
        for asked in config[name]:
            label = dict(asked)
            what, by, onnx = label.pop("what"), label.pop("by"), label.pop("onnx", False)
            key = f"{name} | {what} | {by}"
            if key in rows or arguments.rows not in key:
                continue
            if case is None:
                case = CASES[name](arguments.cache)
                dense = case.build()
            new = {**row(case, dense, {**config["all"], **label}, onnx), "asked": label}
            rows = json.loads(path.read_text()) if path.is_file() else {}  # others may run beside this one
            rows[key] = new
            path.write_text(json.dumps(rows, indent=1) + "\n")
            (RESULTS / "table.md").write_text(table(rows))
            print(key, rows[key], flush=True)
    (RESULTS / "table.md").write_text(table(rows))
    put(HERE / "README.md", "models table", table(rows))


if __name__ == "__main__":
    main()
