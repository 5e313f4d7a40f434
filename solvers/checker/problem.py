"""The problem that a certificate is about, read from its instance file without the package that wrote it."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solvers.checker.archive import Shaped, read_archive
from solvers.checker.rounding import Array

KINDS = ("per_row", "per_layer", "n_of_m", "columns", "groups", "pools")
CURVATURES = ({"hessian"}, {"factor"}, {"factor", "damping"})
OTHERS = {
    "weights", "gradient", "refit", "movable", "budget", "prune", "keep", "of", "sizes", "labels", "shared",
}  # fmt: skip
NUMBERS = ("weights", "hessian", "factor", "damping", "gradient")
INTEGERS = ("movable", "prune", "keep", "of", "sizes", "labels")
ONE = {
    "budget": "a string", "refit": "true or false (a bool)", "damping": "one number",
    "shared": "true or false (a bool)",
    "keep": "one whole number", "of": "one whole number",
}  # fmt: skip
LONGEST = 1 << 22
"""Rows, columns and samples that rounding errors are accounted for (`solvers.checker.rounding`)."""
ASYMMETRY = 1e-10
"""Largest asymmetry, relative to the diagonal, that is taken for rounding and averaged away."""


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
        counts: pruned in each row, in the layer, of the columns, or of each pool; for `n_of_m`, `keep` and
            `of`.
        labels: `[n]` for `groups` and `pools`: the pool of every column that is not movable; else None.
        shared: whether all rows have one mask, as under `columns`.
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
    labels: NDArray[np.int64] | None = None
    shared: bool = False

    @property
    def m(self) -> int:
        """Rows."""
        return len(self.weights)

    @cached_property
    def prunable(self) -> NDArray[np.int64]:
        """Columns that the budget counts, rising; but pool by pool, where pools need not be neighbours."""
        columns = np.setdiff1d(np.arange(self.weights.shape[1]), self.movable)
        return columns if self.labels is None else columns[np.argsort(self.labels, kind="stable")]

    @property
    def n(self) -> int:
        """Decisions in a row."""
        return len(self.prunable)

    def pools(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pools that follow one another in each row of decisions, and what each row's prune.

        Returns:
            `[pools]` sizes, and `[rows of decisions, pools]` pruned counts; -1 where rows share one.
        """
        whole = np.array([self.n])
        if self.labels is not None:
            return np.bincount(self.labels), np.tile(self.counts, (1 if self.shared else self.m, 1))
        if self.kind == "n_of_m":
            keep, of = self.counts.tolist()
            return np.full(self.n // of, of), np.full((self.m, self.n // of), of - keep)
        if self.kind == "per_row":
            return whole, self.counts[:, None]
        if self.kind == "columns":
            return whole, self.counts[None, :]
        return whole, np.full((self.m, 1), -1)

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
            self.kind: self.counts, "labels": self.labels,
            "shared": np.array(1) if self.shared and self.labels is not None else None,
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
    fields = read_archive(path, "instance file", check_declared)
    try:
        return parse_problem(fields)
    except ValueError as error:
        raise ValueError(f"instance file {os.fspath(path)!r}: {error}") from None


def check_declared(fields: Mapping[str, Shaped]) -> None:
    """See that the arrays of an instance file have the types and shapes of a problem.

    Args:
        fields: arrays by name, or what a file declares of them.

    Raises:
        ValueError: naming the field that is wrong.
    """
    if fields.keys() - OTHERS not in CURVATURES:
        raise ValueError(
            f"need 'hessian', or 'factor' with or without 'damping', and no other fields than "
            f"{', '.join(sorted(OTHERS))}; got {', '.join(map(repr, fields)):.200}"
        )
    for name in ("weights", "budget"):
        if name not in fields:
            raise ValueError(f"field {name!r} is missing")
    for name, kinds, what in (
        *((name, "fiu", "real numbers") for name in NUMBERS),
        *((name, "iu", "whole numbers") for name in INTEGERS),
    ):
        if name in fields and fields[name].dtype.kind not in kinds:
            raise ValueError(f"field {name!r} holds {fields[name].dtype}; it must hold {what}")
    shape = fields["weights"].shape
    if len(shape) != 2:
        raise ValueError(f"weights must be a matrix [m, n] with 2 dimensions, got shape {shape}")
    m, n = shape
    if not 0 < m <= LONGEST or not 0 < n <= LONGEST:
        raise ValueError(f"weights have shape {shape}; need 1 to {LONGEST} rows and inputs")
    if "factor" in fields:
        shape = fields["factor"].shape
        if len(shape) != 2 or not 0 < shape[0] <= LONGEST:
            raise ValueError(f"field 'factor' has shape {shape}; it must be a matrix [N, n]")
        if shape[1] != n:
            raise ValueError(f"factor has {shape[1]} columns, but the weights have {n} inputs")
    if "hessian" in fields and fields["hessian"].shape not in ((n, n), (m, n, n)):
        raise ValueError(
            f"hessian has shape {fields['hessian'].shape}, but weights [{m}, {n}] need ({n}, {n}) "
            f"or ({m}, {n}, {n})"
        )
    if "gradient" in fields and fields["gradient"].shape != (m, n):
        raise ValueError(f"gradient has shape {fields['gradient'].shape}, the weights {(m, n)}")
    if "movable" in fields and (len(fields["movable"].shape) != 1 or fields["movable"].shape[0] > n):
        raise ValueError(f"movable must list distinct columns, got shape {fields['movable'].shape}")
    for name in {"sizes", "labels"} & fields.keys():
        if len(fields[name].shape) != 1 or not 0 < fields[name].shape[0] <= n:
            raise ValueError(f"field {name!r} has shape {fields[name].shape}; it must list up to {n} numbers")
    grouped = not {"sizes", "labels"}.isdisjoint(fields)
    if grouped and "prune" in fields:
        if len(fields["prune"].shape) != 1 or not 0 < fields["prune"].shape[0] <= n:
            raise ValueError(f"field 'prune' has shape {fields['prune'].shape}: not a number for every group")
    elif "prune" in fields and fields["prune"].shape not in ((), (m,)):
        raise ValueError(
            f"field 'prune' has shape {fields['prune'].shape}: not one number, nor {m} row counts"
        )
    for name, what in ONE.items():
        if name in fields and math.prod(fields[name].shape) != 1:
            raise ValueError(f"field {name!r} has shape {fields[name].shape}; it must be {what}")


def parse_problem(fields: Mapping[str, NDArray[Any]]) -> Problem:
    """A problem from the fields of an instance file.

    Raises:
        ValueError: if a field is missing or unknown, has the wrong type or shape, holds numbers that are not
            finite, or that float64 can't hold; if a damping is negative, or the budget can't be met.
    """
    check_declared(fields)
    for name, what in ONE.items():
        kind = {"budget": "U", "refit": "b", "shared": "b"}.get(name, "fiu")
        if name in fields and (fields[name].ndim or fields[name].dtype.kind not in kind):
            raise ValueError(f"field {name!r} must be {what}")
    W = _numbers(fields, "weights")
    m, n = W.shape
    H = X = G = None
    if "hessian" in fields:
        H = _symmetric(_numbers(fields, "hessian"))
    else:
        X = _numbers(fields, "factor")
    if "gradient" in fields:
        G = _numbers(fields, "gradient")
    damping = float(_numbers(fields, "damping")) if "damping" in fields else 0.0
    if damping < 0.0:
        raise ValueError(f"damping is {damping!r}; it must not be negative")
    movable = np.zeros(0, np.int64)
    if "movable" in fields:
        movable = np.sort(exact_integers(fields["movable"], "movable"))
    if len(np.unique(movable)) < len(movable) or ((movable < 0) | (movable >= n)).any():
        raise ValueError(f"movable must list distinct columns between 0 and {n - 1}")
    if len(movable) == n:
        raise ValueError(f"movable lists all {n} columns; need a column to prune")
    kind = str(fields["budget"])
    refit = "refit" not in fields or bool(fields["refit"])
    if kind in ("groups", "pools"):
        labels, counts = _pools(fields, kind, n - len(movable))
        shared = "shared" in fields and bool(fields["shared"])
        return Problem(W, H, X, damping, G, refit, movable, kind, counts, labels, shared)
    counts = _counts(fields, kind, m, n - len(movable))
    return Problem(W, H, X, damping, G, refit, movable, kind, counts, shared=kind == "columns")


def _counts(fields: Mapping[str, NDArray[Any]], kind: str, m: int, n: int) -> NDArray[np.int64]:
    if kind not in KINDS:
        raise ValueError(f"budget is {kind!r:.40}, not one of {', '.join(KINDS)}")
    wants = ("keep", "of") if kind == "n_of_m" else ("prune",)
    for name in wants:
        if name not in fields:
            raise ValueError(f"field {name!r} is missing for budget {kind!r}")
    given = [exact_integers(fields[name], name) for name in wants]
    if kind == "n_of_m":
        keep, of = (int(count) for count in given)
        counts = np.array([keep, of])
        met = 0 <= keep <= of and of > 0 and n % of == 0
    else:
        size = m if kind == "per_row" else 1
        if given[0].ndim and kind != "per_row":
            raise ValueError(f"field 'prune' has shape {given[0].shape}; it must be one whole number")
        counts = np.broadcast_to(given[0], (size,)).copy()
        met = bool((counts >= 0).all() and (counts <= (m * n if kind == "per_layer" else n)).all())
    if not met:
        raise ValueError(f"budget {kind} of {counts.tolist()!s:.60} can't be met by {m} rows of {n} columns")
    for name in sorted({"prune", "keep", "of", "sizes", "labels", "shared"} & fields.keys() - set(wants)):
        raise ValueError(f"field {name!r} does not go with budget {kind!r}")
    return counts


def _pools(
    fields: Mapping[str, NDArray[Any]], kind: str, n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each decision's pool, and what every pool prunes."""
    wants = ("labels" if kind == "pools" else "sizes", "prune")
    for name in wants:
        if name not in fields:
            raise ValueError(f"field {name!r} is missing for budget {kind!r}")
    for name in sorted({"prune", "keep", "of", "sizes", "labels"} & fields.keys() - set(wants)):
        raise ValueError(f"field {name!r} does not go with budget {kind!r}")
    layout, counts = (exact_integers(fields[name], name) for name in wants)
    met = layout.ndim == counts.ndim == 1 and layout.size > 0 and layout.min() >= 0 and layout.max() <= n
    if met and kind == "groups":
        met = layout.min() > 0 and layout.sum() == n
    if met:
        labels = layout if kind == "pools" else np.repeat(np.arange(len(layout)), layout)
        met = len(labels) == n
    if met:
        sizes = np.bincount(labels)
        met = len(sizes) == len(counts) and bool(((sizes > 0) & (counts >= 0) & (counts <= sizes)).all())
    if not met:
        raise ValueError(
            f"budget {kind} of {counts.tolist()!s:.60} in {layout.tolist()!s:.60} can't be met by {n} columns"
        )
    return labels, counts


def exact_floats(array: NDArray[Any], name: str) -> Array:
    """As float64, exactly: what is solved and proven is about the numbers that the file holds.

    Raises:
        ValueError: if float64 can't hold one of them.
    """
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float64)
    same = np.abs(numbers) <= 2.0**53 if array.dtype.kind != "f" else (numbers == array) | np.isnan(array)
    if not same.all():
        raise ValueError(f"{name} holds numbers that float64 can't")
    return numbers


def exact_integers(array: NDArray[Any], name: str) -> NDArray[np.int64]:
    """As int64.

    Raises:
        ValueError: if int64 can't hold one of them.
    """
    if (array > np.iinfo(np.int64).max).any():
        raise ValueError(f"{name} holds a number that is too large")
    return array.astype(np.int64)


def _numbers(fields: Mapping[str, NDArray[Any]], name: str) -> Array:
    numbers = exact_floats(fields[name], name)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be an array of finite numbers")
    return numbers


def _symmetric(H: Array) -> Array:
    """`(H + H') / 2` of each matrix, where they differ by no more than rounding."""
    other = H.swapaxes(-1, -2)
    largest = np.abs(np.diagonal(H, axis1=-2, axis2=-1)).max(axis=-1)
    with np.errstate(over="ignore"):
        mean, apart = 0.5 * (H + other), np.abs(H - other).max(axis=(-2, -1))
    if not (np.isfinite(mean).all() and (apart <= ASYMMETRY * largest).all()):
        raise ValueError("hessian is asymmetric, or its numbers are too large to average; give (H + H.T) / 2")
    return mean
