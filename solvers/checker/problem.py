"""The problem that a certificate is about, read from its instance file without the package that wrote it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.checker.archive import read_archive
from solvers.checker.rounding import Array

KINDS = ("per_row", "per_layer", "n_of_m", "columns")
CURVATURES = ({"hessian"}, {"factor"}, {"factor", "damping"})
OTHERS = {"weights", "gradient", "refit", "movable", "budget", "prune", "keep", "of"}


@dataclass(frozen=True)
class Problem:
    """The stored numbers of an instance; docs/instances.md says what they mean.

    Attributes:
        weights: `[m, n]`.
        hessian: `[n, n]` or `[m, n, n]`, or None where there is a factor.
        factor: `[N, n]`, or None.
        damping: added to the diagonal of `factor' factor / N`.
        gradient: `[m, n]`, or None.
        refit: the joint variant, or selection.
        movable: columns that are never pruned, rising.
        kind: of the budget.
        counts: pruned in each row, in the layer, or of the columns; for `n_of_m`, `keep` and `of`.
    """

    weights: Array
    hessian: Array | None
    factor: Array | None
    damping: float
    gradient: Array | None
    refit: bool
    movable: NDArray[np.int64]
    kind: str
    counts: NDArray[np.int64]

    @property
    def m(self) -> int:
        """Rows."""
        return len(self.weights)

    @cached_property
    def prunable(self) -> NDArray[np.int64]:
        """Columns that the budget counts."""
        return np.setdiff1d(np.arange(self.weights.shape[1]), self.movable)

    @property
    def n(self) -> int:
        """Decisions in a row."""
        return len(self.prunable)

    def pools(self) -> tuple[int, NDArray[np.int64]]:
        """Pools of equal size that follow one another in each row of decisions, and what each row's prune.

        Returns:
            The number of pools, and `[rows of decisions, pools]` pruned counts; -1 where rows share one.
        """
        if self.kind == "n_of_m":
            keep, of = self.counts.tolist()
            return self.n // of, np.full((self.m, self.n // of), of - keep)
        if self.kind == "per_row":
            return 1, self.counts[:, None]
        if self.kind == "columns":
            return 1, self.counts[None, :]
        return 1, np.full((self.m, 1), -1)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that defines the problem, in hexadecimal.

        Each field in the order below, as a line `name dtype shape`, then its bytes in C order: numbers as
        little-endian float64 and int64; a curvature as it is used, `(H + H') / 2`.
        """
        fields: dict[str, Any] = {
            "weights": self.weights, "hessian": self.hessian, "factor": self.factor,
            "damping": None if self.factor is None else np.array(self.damping),
            "gradient": self.gradient, "refit": np.array(int(self.refit)), "movable": self.movable,
            self.kind: self.counts,
        }  # fmt: skip
        state = hashlib.sha256(b"cbs problem 1\n")
        for name, array in fields.items():
            if array is not None:
                data = np.ascontiguousarray(array, dtype="<f8" if array.dtype.kind == "f" else "<i8")
                state.update(f"{name} {data.dtype.str} {list(array.shape)}\n".encode())
                state.update(data.tobytes())
        return state.hexdigest()


def read_problem(path: str | os.PathLike[str]) -> Problem:
    """Read an instance file.

    Raises:
        ValueError: one line that names the file and what is wrong with it.
    """
    fields = read_archive(path, "instance file")
    try:
        return parse_problem(fields)
    except (ValueError, KeyError, TypeError) as error:
        what = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"instance file {os.fspath(path)!r}: {what}") from None


def parse_problem(fields: Mapping[str, NDArray[Any]]) -> Problem:
    """A problem from the fields of an instance file.

    Raises:
        ValueError: if a field has the wrong type or shape, or the budget can't be met.
        KeyError: if a field is missing.
    """
    if fields.keys() - OTHERS not in CURVATURES:
        raise ValueError(
            f"need 'hessian', or 'factor' with or without 'damping', and no other fields than "
            f"{', '.join(sorted(OTHERS))}; got {', '.join(fields)}"
        )
    W = _numbers(fields["weights"], "weights", 2)
    m, n = W.shape
    H = X = G = None
    if "hessian" in fields:
        H = _numbers(fields["hessian"], "hessian", fields["hessian"].ndim)
        if H.shape not in ((n, n), (m, n, n)):
            raise ValueError(f"hessian has shape {H.shape}, the weights {W.shape}")
        H = 0.5 * (H + H.swapaxes(-1, -2))
    else:
        X = _numbers(fields["factor"], "factor", 2)
        if X.shape[1] != n or not len(X):
            raise ValueError(f"factor has shape {X.shape}, the weights {W.shape}")
    if "gradient" in fields:
        G = _numbers(fields["gradient"], "gradient", 2)
        if G.shape != W.shape:
            raise ValueError(f"gradient has shape {G.shape}, the weights {W.shape}")
    movable = np.sort(_integers(fields.get("movable", np.zeros(0, np.int64)), "movable").ravel())
    if len(np.unique(movable)) < len(movable) or ((movable < 0) | (movable >= n)).any():
        raise ValueError("movable must list distinct columns")
    kind = str(fields["budget"])
    problem = Problem(
        W, H, X, float(fields.get("damping", np.zeros(()))), G, bool(fields.get("refit", np.array(True))),
        movable, kind, _counts(fields, kind, m, n - len(movable)),
    )  # fmt: skip
    if not problem.n or not np.isfinite(problem.damping):
        raise ValueError("need a finite damping, and a column to prune")
    return problem


def _counts(fields: Mapping[str, NDArray[Any]], kind: str, m: int, n: int) -> NDArray[np.int64]:
    if kind not in KINDS:
        raise ValueError(f"budget is {kind!r}, not one of {', '.join(KINDS)}")
    if kind == "n_of_m":
        counts = np.array([int(_integers(fields[name], name)) for name in ("keep", "of")])
        met = 0 <= counts[0] <= counts[1] and counts[1] > 0 and n % counts[1] == 0
    else:
        size = m if kind == "per_row" else 1
        counts = np.broadcast_to(_integers(fields["prune"], "prune"), (size,)).copy()
        met = bool((counts >= 0).all() and (counts <= (m * n if kind == "per_layer" else n)).all())
    if not met:
        raise ValueError(f"budget {kind} of {counts.tolist()} can't be met by {m} rows of {n} columns")
    return counts


def _numbers(array: NDArray[Any], name: str, ndim: int) -> Array:
    if array.dtype.kind not in "fiu" or array.ndim != ndim or not np.isfinite(array).all():
        raise ValueError(f"{name} must be an array of finite numbers with {ndim} dimensions")
    return array.astype(np.float64)


def _integers(array: NDArray[Any], name: str) -> NDArray[np.int64]:
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold whole numbers")
    return array.astype(np.int64)
