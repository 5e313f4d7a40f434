"""Columns in units of their own, and what is said of them: how many are selected, and which always."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.budget import Budget
from solvers.hessian import Array

WHOLE = (int, np.integer)
REAL = (int, float, np.integer, np.floating)
CONSTANT = 1e-13
"""Spread of a column, relative to its largest entry, below which it counts as constant."""


@dataclass(frozen=True)
class Columns:
    """`Z = (X - mean) / scale`: columns of weighted mean 0 and mean square 1; without an intercept mean is 0.

    Attributes:
        Z: `[N, p]`, zero where a column is constant.
        mean: `[p]`.
        scale: `[p]`, 1 where a column is constant.
        weight: `[N]` of the samples, positive.
        penalty: `[p]` weights of the ridge `alpha sum_j penalty_j v_j^2` on the coefficients `v = scale w`.
    """

    Z: Array
    mean: Array
    scale: Array
    weight: Array
    penalty: Array

    @classmethod
    def of(cls, X: Array, weight: Array, *, intercept: bool, standardize: bool) -> Columns:
        """Columns of X, whose samples of weight 0 are gone.

        Args:
            X: `[N, p]`.
            weight: `[N]`.
            intercept: whether a constant is fitted, so that columns are centred.
            standardize: whether the ridge is on `v`, the same in any units; else on the coefficients of X.
        """
        total = weight.sum()
        largest = np.abs(X).max(axis=0)
        unit = np.exp2(np.ceil(np.log2(np.where(largest > 0.0, largest, 1.0))))
        Z = X / unit  # so that no square overflows; powers of two round nothing
        mean = np.zeros(X.shape[1])
        for _ in range(2 if intercept else 0):  # the second time takes the rounding of the first
            shift = weight @ Z / total
            Z, mean = Z - shift, mean + shift
        spread = np.sqrt(weight @ Z**2 / total)
        flat = spread <= CONSTANT
        scale = np.where(flat, 1.0, spread)
        Z = np.where(flat, 0.0, Z / scale)
        size = np.where(flat, 1.0, scale * unit)
        with np.errstate(over="ignore"):
            penalty = np.ones(X.shape[1]) if standardize else 1.0 / size**2
        return cls(Z, mean * unit, size, weight, penalty)

    def original(self, v: Array) -> Array:
        """Coefficients of X from those of Z, in the last axis."""
        return v / self.scale


def definite_solve(A: Array, B: Array) -> Array:
    """`A^-1 B` of a positive definite matrix whose diagonal may span many orders of magnitude."""
    size = np.sqrt(np.diagonal(A))
    unit = scipy.linalg.solve(A / size / size[:, None], (B.T / size).T, assume_a="pos")
    return np.asarray((unit.T / size).T)


def selected(count: Any, p: int) -> int:
    """`n_features_to_select` as a number of p columns: half of them for None, a share for a float.

    Raises:
        ValueError: in one line, for what is no number of columns.
    """
    if count is None:
        return max(1, p // 2)
    if isinstance(count, bool) or not isinstance(count, REAL):
        raise ValueError(
            f"n_features_to_select must be a number of features, a share of them, or None, got {count!r}"
        )
    if isinstance(count, WHOLE):
        if not 1 <= count <= p:
            raise ValueError(f"n_features_to_select={count} must lie between 1 and {p}, the features of X")
        return int(count)
    if not 0.0 < count <= 1.0:
        raise ValueError(f"n_features_to_select={count} must be a share > 0 and <= 1, or a whole number")
    return max(1, int(count * p))


def always(keep: Sequence[Any] | None, p: int, names: Sequence[str] | None) -> NDArray[np.int64]:
    """The columns of `always_keep`, rising, from indices, names, or a mask.

    Raises:
        ValueError: in one line, for a column that is not there.
    """
    given = [] if keep is None else [keep] if isinstance(keep, str) else list(keep)
    if len(given) == p and all(isinstance(each, bool | np.bool_) for each in given):
        return np.flatnonzero(given)
    found: set[int] = set()
    for each in given:
        if isinstance(each, str):
            if names is None or each not in list(names):
                known = "X has no names" if names is None else f"known: {', '.join(map(str, names)):.200}"
                raise ValueError(f"always_keep names {each!r}, which is no feature of X; {known}")
            found.add(list(names).index(each))
        elif isinstance(each, WHOLE) and not isinstance(each, bool) and -p <= each < p:
            found.add(int(each) % p)
        else:
            raise ValueError(f"always_keep has {each!r}; give indices from 0 to {p - 1}, or names")
    return np.array(sorted(found), dtype=np.int64)


def budget_of(
    count: Any, groups: Sequence[Any] | None, kept: NDArray[np.int64], p: int, *, shared: bool
) -> Budget:
    """How many of the columns that may go are to go, in groups if there are any.

    Columns that are always kept count among those that are selected.

    Args:
        count: `n_features_to_select`: as in `selected`; with groups a number for each, or one for all.
        groups: `[p]` labels, or None.
        kept: columns that are always kept.
        p: columns.
        shared: whether several rows of coefficients select the same columns.

    Raises:
        ValueError: in one line, if that can't be.
    """
    free = np.setdiff1d(np.arange(p), kept)
    if groups is None:
        if isinstance(count, Mapping):
            raise ValueError("n_features_to_select has a number for each group, but there are no groups")
        keep = selected(count, p) - len(kept)
        if keep < 0:
            raise ValueError(
                f"n_features_to_select is {keep + len(kept)}, but always_keep has {len(kept)} features"
            )
        prune = len(free) - keep
        return Budget.columns(prune) if shared else Budget.per_row(prune)
    labels = [label.item() if isinstance(label, np.generic) else label for label in groups]
    if len(labels) != p:
        raise ValueError(f"groups must have a label for each of the {p} features of X, got {len(labels)}")
    if isinstance(count, Mapping):
        if odd := sorted(set(map(repr, count)) ^ set(map(repr, labels))):
            raise ValueError(f"n_features_to_select and groups do not have the same labels: see {odd[0]}")
        wanted = dict(count)
    elif isinstance(count, WHOLE) and not isinstance(count, bool):
        wanted = dict.fromkeys(labels, int(count))
    elif count is None or isinstance(count, REAL):
        wanted = {label: selected(count, labels.count(label)) for label in set(labels)}
    else:
        raise ValueError(
            f"n_features_to_select must be a number for each group, or one for all, got {count!r}"
        )
    for label, number in wanted.items():
        inside = [i for i, each in enumerate(labels) if each == label]
        least = len(set(inside) & set(kept.tolist()))
        whole = isinstance(number, WHOLE) and not isinstance(number, bool)
        if not whole or not least <= number <= len(inside):
            raise ValueError(
                f"n_features_to_select is {number!r} for group {label!r}, which has {len(inside)} features, "
                f"{least} of them always kept"
            )
        wanted[label] = int(number) - least
    left = [labels[i] for i in free.tolist()]
    return Budget.pools(left, {label: wanted[label] for label in set(left)}, shared=shared)
