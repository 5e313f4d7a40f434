"""The run folder: every result is in it as soon as it is there, and a run that was ended goes on from it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from cbs.network import surgery
from cbs.network.eligible import module_of
from cbs.network.layers import named_layers
from cbs.report.closing import best, page
from cbs.report.environment import environment
from cbs.report.layers_plot import draw_layers
from cbs.report.page.run import write_run_page
from cbs.report.plot import draw
from cbs.report.stages import staged
from cbs.report.stages_plot import draw_stages
from cbs.result import PruneResult
from solvers.runtime.writing import replacing

REPORT, CONFIG = "report.json", "config.toml"
LAYOUT = 4
"""Of the report, which counts up when an older one can't be read any more."""
ASIDE = ("weights", "data_dir", "output", "identity", "executor")
"""Settings that a run that goes on need not share: they name places, and what lies there is compared."""


class RunFolder:
    """A folder with `report.json`, and for every result its pruned weights and its masks.

    `METHOD-SPARSITY.safetensors` is the pruned network's state dict, `METHOD-SPARSITY.masks.safetensors` has
    a bool tensor for every pruned layer, true where pruned. Every file is written beside its place and
    renamed, the report after what it speaks of: whenever the process is killed, all that the report lists is
    there. Until the run is over the report says that it was interrupted.

    Entering makes the folder, so that a place that can't be written is found out before the work. Leaving
    with an exception and no result removes it, and every parent made for it.

    Args:
        path: the folder to make.
        settings: what is asked for, ready for JSON.
        resume: go on in the folder if it is there.
        config: text of `config.toml`, by which the same is asked for again; to it come the digests of network
            and data. None if empty.
        command: what was typed after `cbs`, for the report.

    Attributes:
        results: that are in the folder, in the order they came.

    Raises:
        ValueError: on entering, if the path exists (to resume: and is no run folder of the same settings), or
            its parent can't be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any],
        *,
        resume: bool = False,
        config: str = "",
        command: Sequence[str] | None = None,
    ) -> None:
        self.path, self.settings, self._resume = Path(path), dict(settings), resume
        self._config, self._command = config, command
        self.results: dict[tuple[str, float], PruneResult] = {}
        self._written: dict[tuple[str, float], nn.Module] = {}
        self._stored: dict[str, Any] | None = None
        self._whole = False
        self._made: list[Path] = []

    def __enter__(self) -> RunFolder:
        if self._resume and self.path.is_dir():
            self._stored = read_report(self.path)
            if differs := difference(self._stored["settings"], self.settings):
                raise ValueError(f"output {str(self.path)!r} {differs}")
            return self
        if os.path.lexists(self.path):
            raise ValueError(
                f"output {str(self.path)!r} exists; give a folder that does not, or go on with it by --resume"
            )
        try:
            for folder in (*reversed(self.path.parents), self.path):
                if not folder.exists():
                    folder.mkdir()
                    self._made.append(folder)
            self._write()
            self._write_config({})
        except OSError as error:
            self._remove()
            raise ValueError(
                f"output {str(self.path)!r} can't be written ({error.strerror}); give a folder that can"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not self.results:
            self._remove()

    def _remove(self) -> None:
        if self.path in self._made:
            shutil.rmtree(self.path, ignore_errors=True)
            self._made.remove(self.path)
        while self._made:
            self._made.pop().rmdir()

    def revive(self, model: nn.Module, identity: Mapping[str, Any]) -> list[PruneResult]:
        """The finished results of the run that is gone on with; none of a new one.

        Args:
            model: the dense network.
            identity: digests of model and data, which must be those of the run.

        Raises:
            ValueError: if they are others, or a file is damaged.
        """
        if self._stored is None:
            self.settings["identity"] = dict(identity)
            self._write()
            self._write_config(identity)
            return []
        before = self._stored["settings"].get("identity")
        if before is not None:
            for what, digest in identity.items():
                if before.get(what) != digest:
                    raise ValueError(
                        f"output {str(self.path)!r} is of a run with another {what}; give the same one, or "
                        "another folder without --resume"
                    )
        self.settings["identity"] = dict(identity)
        self._write_config(identity)
        names = [layer["name"] for record in self._stored["results"][:1] for layer in record["layers"]]
        plain = surgery.clone(model)
        there = {name for name, _ in plain.named_modules()}
        names = [name for name in names if name in there or module_of(name) in there]
        saved = surgery.save(named_layers(plain, names)) if names else {}
        for record in self._stored["results"]:
            result = self._revived(record, model, saved)
            if result is not None and result.status != "interrupted":
                key = result.method, result.asked
                self.results[key], self._written[key] = result, result.model
        return list(self.results.values())

    def _revived(
        self, record: Mapping[str, Any], model: nn.Module, saved: surgery.Saved
    ) -> PruneResult | None:
        try:
            files = [self.path / name for name in file_names(record["method"], record["asked"])]
            if not all(file.exists() for file in files):
                return None
            state, masks = (load(file.read_bytes()) for file in files)
            original = surgery.clone(model).state_dict()
            return PruneResult.from_dict(record, surgery.revive(model, state, masks), saved, original)
        except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
            raise ValueError(
                f"output {str(self.path)!r}: the result of {record.get('method')!r} is damaged "
                f"({str(error) or type(error).__name__}); delete its files to compute it again"
            ) from None

    def keep(self, result: PruneResult) -> None:
        """Put a result into the folder, or what has become known of it since.

        Raises:
            OSError: if it can't be written; what was there stays.
        """
        key = result.method, result.asked
        self.results[key] = result
        if self._written.get(key) is not result.model:
            for name, tensors in zip(file_names(*key), (result.state, result.masks), strict=True):
                with replacing(self.path / name) as file:
                    file.write(save(_own(tensors)))
            self._written[key] = result.model
        self._write()

    def conclude(self, results: Sequence[PruneResult], *, whole: bool = True) -> dict[str, Any]:
        """The report of all results, in their order; `whole` if this is all that was asked for."""
        self.results = {(result.method, result.asked): result for result in results}
        self._whole = whole
        return self._facts()

    def finish(self, *, plot: bool = True) -> None:
        """Write the report that was concluded and a page to read; if there is time, plots and `report.html`.

        Raises:
            OSError: if a file can't be written.
        """
        self._write()
        with replacing(self.path / "table.md") as file:
            file.write(page(list(self.results.values()), self.settings, self.path).encode())
        if plot:
            with replacing(self.path / "plot.png") as file:
                draw(list(self.results.values())).savefig(file, format="png")
            with replacing(self.path / "layers.png") as file:
                draw_layers(best(list(self.results.values()))).savefig(file, format="png")
            if several := staged(list(self.results.values())):
                with replacing(self.path / "stages.png") as file:
                    draw_stages(several).savefig(file, format="png")
            write_run_page(self._facts(), self.path)

    def _write_config(self, identity: Mapping[str, Any]) -> None:
        if self._config:
            with replacing(self.path / CONFIG) as file:
                file.write(f"{self._config}{digests(identity)}".encode())

    def _facts(self) -> dict[str, Any]:
        facts = report(list(self.results.values()), self.settings, self._command)
        return facts | {"interrupted": facts["interrupted"] or not self._whole}

    def _write(self) -> None:
        text = json.dumps(self._facts(), allow_nan=False)
        with replacing(self.path / REPORT) as file:
            file.write(f"{text}\n".encode())


def read_report(folder: Path) -> dict[str, Any]:
    """The report of a run folder.

    Raises:
        ValueError: in one line, if there is none.
    """
    try:
        facts = json.loads((folder / REPORT).read_bytes())
        if not isinstance(facts["settings"], dict) or not isinstance(facts["results"], list):
            raise ValueError("it holds no settings and results")
        if not all(isinstance(record, dict) for record in facts["results"]):
            raise ValueError("its results are none")
        if facts.get("layout") != LAYOUT:
            raise ValueError(f"its layout is {facts.get('layout')}, not {LAYOUT}: another version wrote it")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise ValueError(
            f"output {str(folder)!r} is no run folder to go on with ({REPORT}: {why}); give another"
        ) from None
    return dict(facts)


def difference(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """In words, the first setting in which two runs differ that must not, or None."""
    for name, value in settings.items():
        if name not in ASIDE and stored.get(name) != value:
            was = json.dumps(stored.get(name))
            return (
                f"is of a run with {name} {was}, not {json.dumps(value)}; give that, or another folder "
                "without --resume"
            )
    return None


def file_names(method: str, asked: float) -> tuple[str, str]:
    """Names of the files with a result's weights and masks."""
    stem = f"{os.path.basename(method)}-{float(asked)!r}"
    return f"{stem}.safetensors", f"{stem}.masks.safetensors"


def report(
    results: Sequence[PruneResult], settings: Mapping[str, Any], command: Sequence[str] | None = None
) -> dict[str, Any]:
    """The facts of a run: what was asked, on what it ran, and every result down to its rows.

    Args:
        results: of `prune` or `compare`.
        settings: what was asked, ready for JSON.
        command: what was typed after `cbs`, if that is known.
    """
    return {
        "layout": LAYOUT,
        "settings": dict(settings),
        **({} if command is None else {"command": ["cbs", *command]}),
        "environment": environment(),
        "interrupted": any(result.status == "interrupted" for result in results),
        "results": [result.to_dict() for result in results],
    }


def digests(identity: Mapping[str, Any]) -> str:
    """Digests of a run's network and data as a table of its `config.toml`."""
    lines = [f'"{what}" = "{digest}"' for what, digest in identity.items() if digest is not None]
    return "\n".join(["", "[identity]", *lines, ""]) if lines else ""


def _own(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies that share no memory, which the format insists on."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
