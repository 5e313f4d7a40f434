"""Budgets: which entries of a mask are counted together, and how many of them must go."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("per_row", "per_layer", "n_of_m", "columns")
UNITS = "units"
"""The kind of a budget on groups of neighbouring columns, which few solvers do."""
GROUPS = "groups"
"""The kind of a budget with a number for every group of neighbours in a row, which few solvers do."""
SHOWN = 8
"""Rows whose counts are all shown when a budget is printed."""


@dataclass(frozen=True)
class Pools:
    """A budget laid over a mask: a partition of its entries, with a pruned count for every part.

    Attributes:
        labels: `[m, n]` pool of every entry; `[1, n]` when one mask is shared by all rows.
        prune: `[pools]` number of entries to prune in every pool.
        sizes: `[pools]` number of entries in every pool.
        coupled: whether one row of decisions is shared by all rows of the weights.
        width: neighbouring entries that go together or not at all.
    """

    labels: NDArray[np.int64]
    prune: NDArray[np.int64]
    sizes: NDArray[np.int64]
    coupled: bool
    width: int = 1

    @property
    def keep(self) -> NDArray[np.int64]:
        """`[pools]` number of entries to keep in every pool."""
        return self.sizes - self.prune

    def decisions(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The mask's decisions: the mask itself, or its first row when the rows are coupled."""
        return mask[:1] if self.coupled else mask

    def expand(self, decisions: NDArray[np.bool_], m: int) -> NDArray[np.bool_]:
        """The `[m, n]` mask of decisions (a copy)."""
        return np.repeat(decisions, m, axis=0) if self.coupled else decisions.copy()

    def violation(self, mask: NDArray[np.bool_]) -> str | None:
        """What is wrong with a mask, in words, or None when it meets every pool exactly."""
        if self.coupled and (mask != mask[:1]).any():
            return "rows of the mask differ, but the budget prunes whole columns"
        if self.width > 1:
            units = mask[0].reshape(-1, self.width)
            if split := np.flatnonzero((units != units[:, :1]).any(axis=1)).tolist():
                return f"it prunes a part of unit {split[0]}, of {self.width} neighbouring columns"
        got = np.bincount(
            self.labels.ravel(), weights=self.decisions(mask).ravel(), minlength=len(self.prune)
        )
        wrong = np.flatnonzero(got != self.prune)
        if wrong.size:
            p = wrong[0]
            return f"pool {p} prunes {int(got[p])} of {self.sizes[p]} entries, not {self.prune[p]}"
        return None

    def smallest(self, scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Decisions that prune the entries of smallest score in every pool (ties: lowest index).

        The score of entries that go together is their sum.
        """
        if self.width > 1:
            units = scores.reshape(-1, self.width).sum(axis=1)
            gone = np.zeros(len(units), dtype=bool)
            gone[np.argsort(units, kind="stable")[: self.prune[0] // self.width]] = True
            return np.repeat(gone, self.width).reshape(self.labels.shape)
        flat = scores.ravel()
        labels = self.labels.ravel()
        order = np.lexsort((flat, labels))
        rank = np.arange(flat.size) - np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
        chosen = np.zeros(flat.size, dtype=bool)
        chosen[order] = rank < self.prune[labels[order]]
        return chosen.reshape(self.labels.shape)


@dataclass(frozen=True)
class Budget:
    """How many weights go, and where: a partition of the mask's entries into pools.

    Build one with `per_row`, `per_layer`, `n_of_m`, `groups` or `columns`. Counts are exact: a mask that
    prunes more, or fewer, does not meet the budget.
    """

    kind: str
    prune: int | tuple[int, ...] | None = None
    keep: int | None = None
    of: int | None = None
    sizes: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        if self.kind == "n_of_m":
            return f"Budget.n_of_m({self.keep}, {self.of})"
        if self.kind == UNITS:
            return f"Budget.columns({self.prune}, width={self.of})"
        counts = self.prune
        if isinstance(counts, tuple) and len(counts) > SHOWN:
            return f"Budget.{self.kind}({len(counts)} counts from {min(counts)} to {max(counts)})"
        if self.kind == GROUPS:
            return f"Budget.groups({list(self.sizes or ())}, {list(counts)})"  # type: ignore[arg-type]
        return f"Budget.{self.kind}({list(counts) if isinstance(counts, tuple) else counts})"

    @classmethod
    def per_row(cls, prune: int | Sequence[int]) -> Budget:
        """Every row prunes `prune` weights; a sequence gives every row its own number."""
        if isinstance(prune, Sequence) or (isinstance(prune, np.ndarray) and prune.ndim):
            return cls("per_row", prune=tuple(_count(k, "prune") for k in prune))
        return cls("per_row", prune=_count(prune, "prune"))

    @classmethod
    def per_layer(cls, prune: int) -> Budget:
        """The layer prunes `prune` weights, wherever in it."""
        return cls("per_layer", prune=_count(prune, "prune"))

    @classmethod
    def n_of_m(cls, keep: int, of: int) -> Budget:
        """Of every `of` neighbours in a row exactly `keep` stay, e.g. 2 of 4."""
        keep, of = _count(keep, "keep"), _count(of, "of")
        if of <= 0 or keep > of:
            raise ValueError(f"budget keeps {keep} of {of}: `keep` must lie between 0 and `of` >= 1")
        return cls("n_of_m", keep=keep, of=of)

    @classmethod
    def groups(cls, sizes: Sequence[int], prune: Sequence[int]) -> Budget:
        """Every row falls into groups of neighbours, each of which prunes its own number of weights.

        Args:
            sizes: of the groups, which together are the row's inputs that may go; at least one each.
            prune: for every group how many of it.

        Raises:
            ValueError: if the two disagree.
        """
        sizes, prune = (tuple(_count(k, what) for k in v) for v, what in ((sizes, "sizes"), (prune, "prune")))
        if len(sizes) != len(prune) or not sizes or min(sizes) < 1:
            raise ValueError(
                "budget of groups: `sizes` and `prune` must have a number for every group, sizes at least "
                f"1, got {len(sizes)} sizes and {len(prune)} counts"
            )
        return cls(GROUPS, prune=prune, sizes=sizes)

    @classmethod
    def columns(cls, prune: int, width: int = 1) -> Budget:
        """One mask for all rows: `prune` columns (input neurons) go from every row.

        Args:
            prune: how many.
            width: neighbouring columns that make one unit, such as the places of a convolution's kernel
                that one channel feeds; `prune` is then a number of units.
        """
        if (width := _count(width, "width")) < 1:
            raise ValueError("budget: `width` must be at least 1, got 0")
        prune = _count(prune, "prune")
        return cls("columns", prune=prune) if width == 1 else cls(UNITS, prune=prune, of=width)

    def pools(self, m: int, n: int) -> Pools:
        """Lay the budget over a mask `[m, n]`.

        Raises:
            ValueError: if the budget cannot be met by a mask of that shape.
        """
        if self.kind == "per_row":
            counts = (
                np.broadcast_to(np.asarray(self.prune, dtype=np.int64), (m,))
                if (isinstance(self.prune, int) or len(self.prune or ()) == m)
                else None
            )
            if counts is None:
                raise ValueError(f"budget gives {len(self.prune)} row counts for {m} rows")  # type: ignore[arg-type]
            labels = np.repeat(np.arange(m), n).reshape(m, n)
            return _checked(labels, counts.copy(), np.full(m, n), False, "in a row")
        if self.kind == "per_layer":
            return _checked(
                np.zeros((m, n), np.int64), np.array([self.prune]), np.array([m * n]), False, "in the layer"
            )
        if self.kind == "columns":
            return _checked(
                np.zeros((1, n), np.int64),
                np.array([self.prune]),
                np.array([n]),
                True,
                "columns in the layer",
            )
        if self.kind == GROUPS:
            return _groups(self.sizes or (), self.prune or (), m, n)  # type: ignore[arg-type]
        assert self.of is not None
        if self.kind == UNITS:
            return _units(int(self.prune or 0), self.of, n)  # type: ignore[arg-type]
        assert self.keep is not None
        if n % self.of:
            raise ValueError(
                f"budget of {self.keep} of {self.of}: `of` = {self.of} does not divide {n} inputs"
            )
        groups = n // self.of
        labels = (np.arange(m)[:, None] * groups + np.arange(n)[None, :] // self.of).astype(np.int64)
        sizes = np.full(m * groups, self.of)
        return _checked(labels, sizes - self.keep, sizes, False, "in a group")

    def describe(self) -> dict[str, Any]:
        """The budget as the fields of an instance file: `budget` with `prune`, or `keep` and `of`."""
        fields = {
            "budget": self.kind, "prune": self.prune, "keep": self.keep, "of": self.of, "sizes": self.sizes,
        }  # fmt: skip
        return {name: value for name, value in fields.items() if value is not None}


def _units(prune: int, width: int, n: int) -> Pools:
    """One pool of columns of which `width` neighbours go together."""
    if n % width:
        raise ValueError(f"budget of columns in units: `width` = {width} does not divide {n} inputs")
    if prune * width > n:
        raise ValueError(f"budget prunes {prune} units, but there are only {n // width} of {width} columns")
    return Pools(np.zeros((1, n), np.int64), np.array([prune * width]), np.array([n]), True, width)


def _groups(sizes: Sequence[int], prune: Sequence[int], m: int, n: int) -> Pools:
    """Neighbours of every row in groups of their own sizes."""
    if sum(sizes) != n:
        raise ValueError(f"budget of groups: sizes add up to {sum(sizes)}, but rows have {n} inputs")
    within = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.arange(m)[:, None] * len(sizes) + within[None, :]
    return _checked(labels, np.tile(prune, m), np.tile(sizes, m), False, "in a group")


def _count(value: Any, name: str) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        raise ValueError(f"budget: `{name}` must be a whole number, not {value!r}") from None
    if count < 0:
        raise ValueError(f"budget: `{name}` must not be negative, got {count}")
    return count


def _checked(
    labels: NDArray[np.int64], prune: NDArray[np.int64], sizes: NDArray[np.int64], coupled: bool, where: str
) -> Pools:
    if (prune > sizes).any():
        worst = int(np.argmax(prune - sizes))
        raise ValueError(f"budget prunes {prune[worst]} weights, but there are only {sizes[worst]} {where}")
    return Pools(labels, prune.astype(np.int64), sizes.astype(np.int64), coupled)
