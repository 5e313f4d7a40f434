"""A study as a file declares it: what is crossed with what, where results go, and which tables they give.

    name = "exact"
    time_limits = [10]

    [[instances]]
    network = "digits"
    rows = 4
    sparsities = [0.5, 0.75, 0.9]

    [[solvers]]
    name = "branch-and-bound"

Every `[[instances]]` is crossed with every `[[solvers]]`, every `[[models]]` with every `[[methods]]` and
`[[schedules]]`, and each `[[calls]]` spans a grid of its own. docs/study.md lists all keys.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cbs.names import check_name
from cbs.study import settings as s
from cbs.study.schema import COLUMNS, JSON
from cbs.study.settings import REQUIRED, Key

INSTANCES = ("files", "library", "random", "planted", "network", "made")
"""Where instances come from; a table names one of them."""
VARIANTS = ("joint", "selection")
MOST = 100_000
"""Problems that one table may draw."""
_SPARSITIES = s.several(s.number(0, 1))
_BUDGETS = s.several(s.text)
_SEEDS = s.several(s.integer(0, 2**63 - 1))
_COMMON: dict[str, Key] = {"variants": Key(s.several(s.one_of(*VARIANTS)), ("joint",))}
SOURCES: dict[str, dict[str, Key]] = {
    "files": {"files": Key(s.texts, REQUIRED)},
    "library": {
        "library": Key(s.text, REQUIRED), "names": Key(s.texts), "family": Key(s.text),
        "n": Key(s.span(s.integer(1))), "variants": Key(s.several(s.one_of(*VARIANTS))),
        "budgets": Key(_BUDGETS), "sparsities": Key(_SPARSITIES),
        "status": Key(s.one_of("proven", "open")), "most": Key(s.integer(1)),
    },
    "random": {
        "random": Key(s.flag, REQUIRED), "n": Key(s.several(s.integer(1)), REQUIRED),
        "m": Key(s.several(s.integer(1)), (1,)), "sparsities": Key(_SPARSITIES, (0.5,)),
        "budgets": Key(_BUDGETS, ("per_row",)),
        "correlation": Key(s.number(0, 1), 0.7), "damping": Key(s.number(0, open_ends=True), 1e-2),
        "per_row": Key(s.flag, False), "count": Key(s.integer(1, MOST), 1), "first": Key(s.integer(0), 0),
        **_COMMON,
    },
    "planted": {
        "planted": Key(s.flag, REQUIRED), "n": Key(s.several(s.integer(1)), REQUIRED),
        "m": Key(s.several(s.integer(1)), (1,)), "sparsities": Key(_SPARSITIES, (0.5,)),
        "budgets": Key(_BUDGETS, ("per_row",)),
        "margin": Key(s.number(0, 1), 0.9), "count": Key(s.integer(1, MOST), 1),
        "first": Key(s.integer(0), 0), **_COMMON,
    },
    "network": {
        "network": Key(s.text, REQUIRED), "layers": Key(s.texts), "rows": Key(s.integers),
        "sparsities": Key(_SPARSITIES, (0.5,)), "budgets": Key(_BUDGETS, ("per_row",)),
        "damping": Key(s.number(0, open_ends=True), 1e-2), "samples": Key(s.integer(1)),
        "seed": Key(s.integer(0), 0), "n": Key(s.span(s.integer(1))), "layer_rows": Key(s.integer(1)),
        "most": Key(s.integer(1)), **_COMMON,
    },
    "made": {"made": Key(s.text, REQUIRED), "parameters": Key(s.mapping, {})},
}  # fmt: skip
SOLVER = {
    "name": Key(s.text, REQUIRED), "label": Key(s.text), "options": Key(s.mapping, {}),
    "time_limits": Key(s.several(s.number(0, open_ends=True))), "certify": Key(s.flag, False),
    "optional": Key(s.flag, False),
    "seeds": Key(_SEEDS), "most_n": Key(s.integer(1)),
}  # fmt: skip
MODEL = {
    "name": Key(s.text, REQUIRED), "label": Key(s.text), "samples": Key(s.integer(1)),
    "test": Key(s.integer(1)),
    "layers": Key(s.texts), "seed": Key(s.integer(0), 0),
}  # fmt: skip
METHOD = {
    "name": Key(s.text, REQUIRED), "label": Key(s.text), "options": Key(s.mapping, {}),
    "sparsities": Key(_SPARSITIES, REQUIRED), "seeds": Key(_SEEDS), "models": Key(s.texts),
}  # fmt: skip
SCHEDULE = {"label": Key(s.text, REQUIRED), "options": Key(s.mapping, {})}
CALL = {
    "function": Key(s.text, REQUIRED), "grid": Key(s.mapping, {}), "label": Key(s.text),
    "cases": Key(s.cases), "revision": Key(s.integer(0), 0),
    "time_limit": Key(s.number(0, open_ends=True)),
}  # fmt: skip
TABLE = {
    "name": Key(s.text, REQUIRED), "title": Key(s.text), "rows": Key(s.texts), "columns": Key(s.texts),
    "value": Key(s.texts), "aggregate": Key(s.text, "mean"), "format": Key(s.text, ".3g"),
    "where": Key(s.mapping, {}),
    "function": Key(s.text), "into": Key(s.text), "each": Key(s.text),
    "best": Key(s.one_of("least", "greatest")),
}  # fmt: skip
TOP = {
    "name": Key(s.text, REQUIRED), "title": Key(s.text), "store": Key(s.text),
    "seeds": Key(_SEEDS, (0,)),
    "time_limits": Key(s.several(s.number(0, open_ends=True)), (None,)), "gap": Key(s.number(0), 1e-4),
    "memory": Key(s.integer(1)),
    "grace": Key(s.number(0, open_ends=True), 120.0), "threads": Key(s.integer(1), 1),
    "executor": Key(s.text),
    "machine": Key(s.text), "version": Key(s.text), "attempts": Key(s.integer(1), 3),
    **{name: Key(partial(s.tables, where=name), ()) for name in
       ("instances", "solvers", "models", "methods", "schedules", "calls", "tables")},
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """What a study's file says, checked but for what only the grid can tell.

    Attributes:
        path: of the file.
        top: what stands at its top: name, store, seeds, limits and so on.
        instances: where problems come from, with `source` naming which of `INSTANCES` it is.
        solvers: that solve them.
        models: networks.
        methods: that prune them.
        schedules: how; one without options if the file has none.
        calls: functions and their grids.
        tables: that `cbs study show` prints and writes.
    """

    path: Path
    top: Mapping[str, Any]
    instances: tuple[Mapping[str, Any], ...]
    solvers: tuple[Mapping[str, Any], ...]
    models: tuple[Mapping[str, Any], ...]
    methods: tuple[Mapping[str, Any], ...]
    schedules: tuple[Mapping[str, Any], ...]
    calls: tuple[Mapping[str, Any], ...]
    tables: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """Of the study."""
        return str(self.top["name"])

    @property
    def folder(self) -> Path:
        """Of the file, to which paths in it are relative."""
        return self.path.resolve().parent

    @property
    def store(self) -> str:
        """Path or URL of its store: `NAME.sqlite` beside the file, unless it says another."""
        said = self.top["store"]
        if said is not None and "://" in said:
            return str(said)
        return os.fspath(self.folder / (said or f"{self.name}.sqlite"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Study:
        """Read a study.

        Raises:
            ValueError: in one line that names the file, for what can't be read, unknown keys (with the
                nearest), or values that are not what they should be.
        """
        path = Path(path)
        head = f"study {str(path)!r}"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ValueError(f"{head} can't be read ({error.strerror})") from None
        try:
            tables = tomllib.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{head} is not TOML ({' '.join(str(error).split()) or type(error).__name__})"
            ) from None
        try:
            return cls.of(tables, path)
        except ValueError as error:
            raise ValueError(f"{head}: {error}") from None

    @classmethod
    def of(cls, tables: Mapping[str, Any], path: Path) -> Study:
        """A study from the tables of its file.

        Raises:
            ValueError: see `load`.
        """
        top = s.taken(tables, TOP, "the file")
        parts = {
            name: top.pop(name)
            for name in ("instances", "solvers", "models", "methods", "schedules", "calls")
        }
        tabled = top.pop("tables")
        study = cls(
            path, top, tuple(_source(table, i) for i, table in enumerate(parts["instances"])),
            _each(parts["solvers"], SOLVER, "solvers"), _each(parts["models"], MODEL, "models"),
            _each(parts["methods"], METHOD, "methods"),
            _each(parts["schedules"], SCHEDULE, "schedules") or ({"label": "", "options": {}},),
            _each(parts["calls"], CALL, "calls"), _each(tabled, TABLE, "tables"),
        )  # fmt: skip
        _require_pairs(study, parts)
        for what in ("solvers", "methods", "models", "schedules"):
            labels = [one["label"] or one.get("name", "") for one in getattr(study, what)]
            if double := next((label for label in labels if labels.count(label) > 1), None):
                raise ValueError(f"{what} has {double!r} twice; give one of them another label")
        return study


def _each(tables: Any, keys: Mapping[str, Key], what: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(s.taken(table, keys, f"[[{what}]] {i + 1}") for i, table in enumerate(tables))


def _source(table: Any, index: int) -> Mapping[str, Any]:
    where = f"[[instances]] {index + 1}"
    if not isinstance(table, Mapping):
        raise ValueError(f"{where} must be a table")
    named = [name for name in INSTANCES if name in table]
    if len(named) != 1:
        if not named and len(table) == 1:
            s.taken(table, dict.fromkeys(INSTANCES, Key(lambda value: value)), where)
        raise ValueError(
            f"{where} must name one of {', '.join(INSTANCES)}, got {' and '.join(named) or 'none'}"
        )
    found = s.taken(table, SOURCES[named[0]], where)
    if found[named[0]] is False:
        raise ValueError(f"{where}: {named[0]} must be true, or left out")
    return {**found, "source": named[0], "where": where}


def _require_pairs(study: Study, parts: Mapping[str, Any]) -> None:
    for one, other in (("instances", "solvers"), ("models", "methods")):
        for there, lacking in ((one, other), (other, one)):
            if parts[there] and not parts[lacking]:
                raise ValueError(f"there are [[{there}]] but no [[{lacking}]] to go with them")
    if parts["schedules"] and not parts["methods"]:
        raise ValueError("there are [[schedules]] but no [[methods]] to go with them")
    if not (study.instances or study.models or study.calls):
        raise ValueError(
            "there is nothing to do; give [[instances]] and [[solvers]], [[models]] and "
            "[[methods]], or [[calls]]"
        )
    for i, table in enumerate(study.tables):
        if not table["each"]:
            for name in (
                *(table["rows"] or ()),
                *(table["columns"] or ()),
                *(table["value"] or ()),
                *table["where"],
            ):
                if name.partition(".")[0] not in JSON:
                    check_name(f"[[tables]] {i + 1}: column", name, COLUMNS)
        if (table["function"] is None) == (table["value"] is None):
            raise ValueError(f"[[tables]] {i + 1} must have either value, or function")
