"""Cells: single pieces of a study's work, told apart by a digest of all that their results depend on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("solve", "prune", "call")
"""One problem by one solver, one network by one method, one call of a function."""


@dataclass(frozen=True)
class Cell:
    """One piece of work of a study.

    Attributes:
        kind: of `KINDS`.
        instance: name of the problem, the network, or the function's case.
        digest: of the problem's numbers, or of network and data; empty for a call.
        solver: label of the solver, of the method, or of the function. Those of solvers and methods are for
            people: what identifies them is in `parameters`.
        options: of the solver or method, ready for JSON.
        time_limit: seconds that the solver is given, or None.
        gap: relative gap asked for, or None.
        seed: of every random choice.
        parameters: what else tells the cell from others, ready for JSON.
        facts: columns that describe the cell and do not identify it: `family`, `m`, `n`, `variant`, `budget`,
            `sparsity`.
        payload: makes what the worker is sent, when it is its turn; None for a cell that was read from a
            store.
    """

    kind: str
    instance: str
    digest: str
    solver: str
    options: Mapping[str, Any] = field(default_factory=dict)
    time_limit: float | None = None
    gap: float | None = None
    seed: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    payload: Callable[[], Mapping[str, Any]] | None = field(default=None, repr=False, compare=False)

    def identity(self, version: str, machine: str) -> dict[str, Any]:
        """What the result depends on.

        Args:
            version: of the code that computes it.
            machine: on which, as the study calls it.
        """
        return {
            "kind": self.kind, "digest": self.digest, "solver": self.solver if self.kind == "call" else "",
            "options": dict(self.options), "time_limit": self.time_limit, "gap": self.gap,
            "seed": self.seed, "parameters": dict(self.parameters), "version": version, "machine": machine,
        }  # fmt: skip

    def key(self, version: str, machine: str) -> str:
        """The key of the table of cells: SHA-256 of `identity` as canonical JSON, hexadecimal."""
        return hashlib.sha256(canonical(self.identity(version, machine)).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What a cell gave.

    Attributes:
        columns: by name of the table's result columns: `status`, `value`, `bound`, `gap`, `seconds`, `nodes`,
            `accuracy`, `loss`, `certified`, and facts that only the work could tell, such as `n`.
        result: what has no column of its own, ready for JSON.
        arrays: traces, masks and the like.
    """

    columns: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def canonical(data: Any) -> str:
    """JSON with sorted keys and no spaces: equal data give equal text."""
    return json.dumps(plain(data), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def written(text: str) -> str:
    """A text that can be written anywhere: NUL and halves of characters, as file names have, as escapes."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def plain(data: Any) -> Any:
    """Data as JSON has it: NumPy's numbers as Python's, what is not finite as null, keys as text.

    Raises:
        TypeError: for what is no data.
    """
    if isinstance(data, Mapping):
        return {written(str(key)): plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    if isinstance(data, np.ndarray | np.generic):
        return plain(data.tolist())
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, str):
        return written(data)
    if data is None or isinstance(data, bool | int):
        return data
    raise TypeError(f"{type(data).__name__} is no data that JSON has: {data!r:.60}")
