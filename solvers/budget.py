"""Budgets: which entries of a mask are counted together, and how many of them must go."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = ("per_row", "per_layer", "n_of_m", "columns")
UNITS = "units"
"""The kind of a budget on groups of neighbouring columns, which few solvers do."""
GROUPS = "groups"
"""The kind of a budget with a number for every group of neighbours in a row."""
POOLS = "pools"
"""The kind of a budget with a number for every group of inputs, wherever in a row they are.

Solvers see it as `GROUPS`: `solvers.form.reduction` sorts the inputs.
"""
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
        got = np.bincount(self.labels[self.decisions(mask)], minlength=len(self.prune))
        if (got != self.prune).any():
            p = np.flatnonzero(got != self.prune)[0]
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

    Build one with `per_row`, `per_layer`, `n_of_m`, `pools`, `groups` or `columns`. Counts are exact: a mask
    that prunes more, or fewer, does not meet the budget.
    """

    kind: str
    prune: int | tuple[int, ...] | None = None
    keep: int | None = None
    of: int | None = None
    sizes: tuple[int, ...] | None = None
    labels: tuple[int, ...] | None = None
    shared: bool = False

    def __repr__(self) -> str:
        if self.kind == "n_of_m":
            return f"Budget.n_of_m({self.keep}, {self.of})"
        if self.kind == UNITS:
            return f"Budget.columns({self.prune}, width={self.of})"
        counts = self.prune
        if isinstance(counts, tuple) and len(counts) > SHOWN and self.kind != POOLS:
            return f"Budget.{self.kind}({len(counts)} counts from {min(counts)} to {max(counts)})"
        own = ", shared=True" if self.shared else ""
        if self.kind == POOLS:
            keep = _kept(self.labels or (), self.prune or ())  # type: ignore[arg-type]
            return f"Budget.pools({_shown(self.labels or ())}, {_shown(keep)}{own})"
        if self.kind == GROUPS:
            return f"Budget.groups({list(self.sizes or ())}, {list(counts)}{own})"  # type: ignore[arg-type]
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
    def pools(
        cls,
        labels: Sequence[Hashable] | NDArray[Any],
        keep: int | Mapping[Any, int] | Sequence[int] | NDArray[np.int64],
        *,
        shared: bool = False,
    ) -> Budget:
        """Every row falls into groups of inputs, wherever they are; each keeps its own number.

        Args:
            labels: `[n]` group of every input that may be pruned (movable columns have none): numbers or
                words, in any order.
            keep: how many inputs of each group stay: one number for all groups, a number for each label, or
                a sequence in the order of the sorted labels.
            shared: whether all rows have one mask, as under `columns`.

        Raises:
            ValueError: if a label has no number, a number has no label, or a group is smaller than that.
        """
        given = [x.item() if isinstance(x, np.generic) else x for x in labels]
        try:
            names = sorted(set(given))  # type: ignore[type-var]
        except TypeError:
            raise ValueError(
                "budget of pools: `labels` must be all numbers or all words, one for every input"
            ) from None
        if not names:
            raise ValueError("budget of pools: `labels` is empty; need one for every input")
        place = {name: p for p, name in enumerate(names)}
        found = tuple(place[name] for name in given)
        sizes = np.bincount(found)
        if isinstance(keep, Mapping):
            if set(keep) != set(names):
                odd = sorted(map(repr, set(keep) ^ set(names)))[0]
                which = "a number for" if odd in set(map(repr, keep)) else "no number for"
                raise ValueError(
                    f"budget of pools: `keep` has {which} label {odd}; labels are {_shown(names)}"
                )
            counts = [_count(keep[name], "keep") for name in names]
        elif np.ndim(keep):
            counts = [_count(k, "keep") for k in keep]  # type: ignore[union-attr]
        else:
            counts = [_count(keep, "keep")] * len(names)
        if len(counts) != len(names):
            raise ValueError(
                f"budget of pools: `keep` has {len(counts)} numbers for {len(names)} labels, {_shown(names)}"
            )
        for name, size, count in zip(names, sizes.tolist(), counts, strict=True):
            if count > size:
                raise ValueError(
                    f"budget of pools: `keep` is {count} for label {name!r}, which has only {size} inputs"
                )
        return cls(POOLS, prune=tuple((sizes - counts).tolist()), labels=found, shared=bool(shared))

    @classmethod
    def groups(cls, sizes: Sequence[int], prune: Sequence[int], *, shared: bool = False) -> Budget:
        """Every row falls into groups of neighbours, each of which prunes its own number of weights.

        Args:
            sizes: of the groups, which together are the row's inputs that may go; at least one each.
            prune: for every group how many of it.
            shared: whether all rows have one mask, as under `columns`.

        Raises:
            ValueError: if the two disagree.
        """
        sizes, prune = (tuple(_count(k, what) for k in v) for v, what in ((sizes, "sizes"), (prune, "prune")))
        if len(sizes) != len(prune) or not sizes or min(sizes) < 1:
            raise ValueError(
                "budget of groups: `sizes` and `prune` must have a number for every group, sizes at least "
                f"1, got {len(sizes)} sizes and {len(prune)} counts"
            )
        return cls(GROUPS, prune=prune, sizes=sizes, shared=bool(shared))

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

    def laid_over(self, m: int, n: int) -> Pools:
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
            within = np.repeat(np.arange(len(self.sizes or ())), self.sizes or ())
            return self._labelled(within, m, n, "sizes add up to")
        if self.kind == POOLS:
            return self._labelled(np.array(self.labels), m, n, "labels are")
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
            "labels": self.labels, "shared": self.shared or None,
        }  # fmt: skip
        return {name: value for name, value in fields.items() if value is not None}

    def _labelled(self, within: NDArray[np.int64], m: int, n: int, what: str) -> Pools:
        """The pools of groups within a row of decisions, by their labels `[n]`."""
        if len(within) != n:
            raise ValueError(f"budget of {self.kind}: {what} {len(within)}, but rows have {n} inputs")
        prune, rows = np.asarray(self.prune), 1 if self.shared else m
        labels = np.arange(rows)[:, None] * len(prune) + within[None, :]
        sizes = np.bincount(within, minlength=len(prune))
        return _checked(labels, np.tile(prune, rows), np.tile(sizes, rows), self.shared, "in a group")


def _units(prune: int, width: int, n: int) -> Pools:
    """One pool of columns of which `width` neighbours go together."""
    if n % width:
        raise ValueError(f"budget of columns in units: `width` = {width} does not divide {n} inputs")
    if prune * width > n:
        raise ValueError(f"budget prunes {prune} units, but there are only {n // width} of {width} columns")
    return Pools(np.zeros((1, n), np.int64), np.array([prune * width]), np.array([n]), True, width)


def _kept(labels: Sequence[int], prune: Sequence[int]) -> list[int]:
    """How many of every label stay."""
    return [int(k) for k in np.bincount(labels) - np.asarray(prune)]


def _shown(values: Sequence[Any]) -> str:
    """A list, or the start of a long one."""
    listed = list(values)
    if len(listed) <= 2 * SHOWN:
        return str(listed)
    return f"[{', '.join(map(repr, listed[:SHOWN]))}, ... {len(listed)} in all]"


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
