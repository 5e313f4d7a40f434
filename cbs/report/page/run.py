"""A `cbs prune` run as cells of a study, a cell a result, so that its page is made like any other's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cbs.report.page.sources import PAGE, Source

if TYPE_CHECKING:
    import pandas as pd

KEPT = ("layers", "measured", "history", "neurons")
"""Parts of a result that figures are drawn from."""
SHOWN = (
    "scope", "budget", "granularity", "pipeline", "refit", "stages", "solver", "time_limit", "data", "test",
    "weights",
)  # fmt: skip
"""Settings that a page tells, where they were given."""


def of_run(folder: str | os.PathLike[str]) -> Source:
    """The results in the folder of a run.

    Raises:
        ValueError: in one line, if it is none, or has no results.
    """
    from cbs.report.folder import read_report

    place = Path(folder)
    try:
        report = read_report(place)
    except ValueError as error:
        told = str(error).removeprefix("output ").replace("no run folder to go on with", "no run folder")
        raise ValueError(told.replace("; give another", "; give that of `cbs prune`, or a store")) from None
    if not report["results"]:
        raise ValueError(f"{str(place)!r} has no results yet: there is nothing to report on")
    try:
        return source(report, place)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(place)!r}: its report.json is damaged ({error!r})") from None


def source(report: Mapping[str, Any], folder: Path) -> Source:
    """The results of a report (`cbs.report.report`), with the masks in a folder."""
    settings = report["settings"]
    keys = {f"{record['method']}-{record['asked']!r}": record for record in report["results"]}
    facts = {
        "network": settings.get("model"),
        **{name.replace("_", " "): settings.get(name) for name in SHOWN},
    }

    def arrays(key: str) -> dict[str, NDArray[Any]]:
        return _masks(folder, keys[key])

    told = {name: _word(value) for name, value in facts.items() if value not in (None, "", [], 1)}
    if report.get("interrupted"):
        told["state"] = "interrupted: not all that was asked for is here"
    return Source(frame(report), arrays, folder / PAGE, f"Pruned: {_name(settings)}", told)


def frame(report: Mapping[str, Any]) -> pd.DataFrame:
    """The results of a report as a table of cells of kind `prune`."""
    import pandas as pd

    settings, machine = report["settings"], report.get("environment", {})
    digest = (settings.get("identity") or {}).get("model", "")
    rows = []
    for record in report["results"]:
        measured, certified = record["measured"], record["certified"]
        after = measured["test_after"] or measured["after"]
        rows.append(
            {
                "key": f"{record['method']}-{record['asked']!r}",
                "kind": "prune",
                "state": "done",
                "instance": _name(settings),
                "digest": digest,
                "family": "network",
                "solver": record["method"],
                "variant": record["request"].get("scope", ""),
                "budget": record["request"].get("budget", ""),
                "sparsity": record["sparsity"],
                "asked": record["asked"],
                "seed": record["request"].get("seed", 0),
                "status": record["status"],
                "value": record["value"],
                "bound": certified["bound"],
                "gap": record["gap"],
                "seconds": record["seconds"],
                "accuracy": after["accuracy"],
                "loss": after["loss"],
                "version": machine.get("combinatorial-brain-surgeon", ""),
                "machine": f"{machine.get('machine', '')}, {machine.get('processors', '?')} processors",
                "result": {name: record[name] for name in KEPT if name in record},
                "options": {},
            }
        )
    made = pd.DataFrame(rows)
    made["sparsity"] = _grouped(made)
    return made


def _grouped(made: pd.DataFrame) -> pd.Series:
    """What was asked for, as sparsities by which methods are compared; what was reached where none was."""
    asked = pd_numbers(made["asked"])
    return asked.where(np.isfinite(asked), made["sparsity"].astype(float))


def pd_numbers(column: pd.Series) -> pd.Series:
    """A column as numbers, NaN where it has none."""
    import pandas as pd

    return pd.to_numeric(column, errors="coerce").astype(float)


def _masks(folder: Path, record: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from cbs.report.folder import file_names

    path = folder / file_names(record["method"], record["asked"])[1]
    try:
        found = load_file(path)
    except FileNotFoundError:
        return {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} can't be read ({error})") from None
    return {f"mask:{name}": mask.reshape(len(mask), -1) for name, mask in found.items() if mask.ndim > 1}


def write_run_page(report: Mapping[str, Any], folder: Path) -> None:
    """Write the page of a run into its folder, of the report that is in memory.

    Raises:
        OSError: if it can't be written.
    """
    from cbs.report.page.write import write

    made = source(json.loads(json.dumps(report)), folder)
    facts = {**made.facts, "made": time.strftime("%Y-%m-%d %H:%M")}
    write(made.frame, made.arrays, folder / PAGE, title=made.title, facts=facts)


def _name(settings: Mapping[str, Any]) -> str:
    model = str(settings.get("model") or "network")
    return Path(model).name if model.endswith(".py") or os.sep in model else model


def _word(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
