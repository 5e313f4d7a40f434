"""The run folder: pruned weights, masks, report and plot, written whole or not at all."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors.torch import save

from cbs.report.plot import draw
from cbs.result import PruneResult


class RunFolder:
    """A folder that appears under its name once everything in it is written.

    Entering makes a hidden folder beside it, so that a place that can't be written is found out before
    the work; leaving renames it, or removes it (and every parent made for it) after an exception.

    Args:
        path: the folder to make; it must not exist.

    Raises:
        ValueError: on entering, if the path exists, or its parent can't be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._made: list[Path] = []

    def __enter__(self) -> Path:
        if self.path.exists():
            raise ValueError(f"output {str(self.path)!r} exists; give a folder that does not")
        try:
            for parent in reversed(self.path.parents):
                if not parent.exists():
                    parent.mkdir()
                    self._made.append(parent)
            self._hidden = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
            self._hidden.chmod(0o755)
        except OSError as error:
            self._remove_parents()
            raise ValueError(
                f"output {str(self.path)!r} can't be written ({error.strerror}); give a folder that can"
            ) from None
        return self._hidden

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._hidden.rename(self.path)
            return
        shutil.rmtree(self._hidden)
        self._remove_parents()

    def _remove_parents(self) -> None:
        while self._made:
            self._made.pop().rmdir()


def report(results: Sequence[PruneResult], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a run: what was asked, on what it ran, and every result down to its rows.

    Args:
        results: of `prune` or `compare`.
        settings: what was asked, ready for JSON.
    """
    packages = ("combinatorial-brain-surgeon", "torch", "numpy", "scipy")
    return {
        "settings": dict(settings),
        "environment": {
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "threads": torch.get_num_threads(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "interrupted": any(result.status == "interrupted" for result in results),
        "results": [result.to_dict() for result in results],
    }


def write(folder: Path, results: Sequence[PruneResult], facts: Mapping[str, Any]) -> None:
    """Fill a run folder.

    `report.json` and `plot.png`; for every method and sparsity `METHOD-SPARSITY.safetensors`, the
    pruned network's state dict, and `METHOD-SPARSITY.masks.safetensors`, a bool tensor for every
    pruned layer, true where pruned.

    Args:
        folder: an empty folder.
        results: of `prune` or `compare`; at least one.
        facts: what `report` returned.
    """
    for result in results:
        stem = f"{result.method}-{result.asked:g}"
        (folder / f"{stem}.safetensors").write_bytes(save(_own(result.state)))
        (folder / f"{stem}.masks.safetensors").write_bytes(save(_own(result.masks)))
    draw(results).savefig(folder / "plot.png")
    text = json.dumps(facts, indent=1, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")


def _own(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies that share no memory, which the format insists on."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
