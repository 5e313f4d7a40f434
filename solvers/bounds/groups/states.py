"""All states of small groups at once: what keeping any part of a group is worth.

A state S of a group with block D and residuals q scores `h_S - t |S|`, `h_S = 1/2 q_S' w_S`, with
`w_S = (D_SS)^-1 q_S` and t the price of keeping an entry. Where a group is part of a pool, every S may occur.
Where it is made of whole pools, as those of an N:M budget, only those do that meet the pools' budgets, and no
price is needed: a pool of 2:4 has 6 states, two of them have 36, four 1,296.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.groups.kernels import open_states
from solvers.hessian import Array

Index = NDArray[np.int64]
Pattern = tuple[tuple[int, int], ...]
"""Entries, and entries to keep, of every pool that a group is made of, in the order of its entries."""


@dataclass(frozen=True, eq=False)
class StateSet:
    """The states that groups of s entries have, in the order of the numbers whose bits are kept entries.

    Attributes:
        pattern: of the pools that the groups are made of; empty where they are parts of pools.
        kept: `[K, s]` which entries every state keeps.
        counts: `[K]` how many.
        chain: `[C, 4]` how every state follows from one before, by its highest entry: that one's place, the
            entry, the place of what follows, and whether that leads to a state in `largest`. Places from K on
            are of sets that are no states; the one that keeps nothing comes first, at 0 or K.
        largest: `[K]` weights, s in all when each counts for the entries it keeps, of the states that no
            other holds: D has to be definite on these.
    """

    pattern: Pattern
    kept: NDArray[np.bool_]
    counts: Array
    chain: Index
    largest: Array

    @classmethod
    def of(cls, pattern: Pattern, kept: NDArray[np.bool_]) -> StateSet:
        """From the states: all that there are, or such as keep equally many entries."""
        size, count = kept.shape[1], kept.sum(axis=1)
        top = count == count.max()
        numbers = kept @ (1 << np.arange(size))
        needed = _prefixes(numbers[top].tolist())
        place = {number: k for k, number in enumerate(numbers.tolist())}
        place |= {number: len(place) + k for k, number in enumerate(sorted(needed - place.keys()))}
        chain = [
            (place[number ^ 1 << entry], entry, place[number], int(number in needed))
            for number, entry in ((number, number.bit_length() - 1) for number in sorted(place) if number)
        ]
        largest = top * (size / (float(count.max()) * top.sum()))
        return cls(pattern, kept, count.astype(np.float64), np.array(chain, np.int64), largest)

    @property
    def weight(self) -> float:
        """Of each state in the barrier: a group of s entries counts for s + 1 constraints."""
        states, size = self.kept.shape
        return float((size + 1.0) / states)

    def lowest(self, D: Array) -> Array:
        """`[B, K]`, or `[B, 1]` for all states, a least eigenvalue of the blocks `D_SS` of `D [B, s, s]`."""
        if not self.pattern:
            return np.asarray(np.linalg.eigvalsh(D)[:, :1])
        at = np.nonzero(self.kept)[1].reshape(len(self.kept), -1)
        return np.asarray(np.linalg.eigvalsh(D[:, at[:, :, None], at[:, None, :]])[:, :, 0])


def _prefixes(numbers: Iterable[int]) -> set[int]:
    """Sets by number, and all that is left of them as their highest entries leave one by one."""
    found = {0}
    for number in numbers:
        while number not in found:
            found.add(number)
            number ^= 1 << number.bit_length() - 1
    return found


@cache
def every_state(size: int) -> StateSet:
    """All `2^s` states of a part of a pool; a state's number is its place."""
    return StateSet.of((), kept_by(size))


@cache
def whole_pools(pattern: Pattern) -> StateSet:
    """The states of whole pools that keep what each pool has to keep."""
    masks = kept_by(sum(size for size, _ in pattern))
    met, first = np.ones(len(masks), dtype=bool), 0
    for size, keep in pattern:
        met &= masks[:, first : first + size].sum(axis=1) == keep
        first += size
    return StateSet.of(pattern, masks[met])


def states_of(size: int, pattern: Pattern) -> StateSet:
    """The states of groups of whole pools, or of parts of pools where the pattern is empty."""
    return whole_pools(pattern) if pattern else every_state(size)


@dataclass(frozen=True)
class States:
    """The K states of B groups of one size s.

    Attributes:
        inverse: `[B, K, s, s]` of `(D_SS)^-1`, zero outside S.
        w: `[B, K, s]` of `(D_SS)^-1 q_S`, zero outside S.
        h: `[B, K]` of `1/2 q_S' w_S`.
        logdet: sum of `log det D_SS` over the groups and their largest states, by weight; minus infinity
            unless D is positive definite on all of these.
    """

    inverse: Array
    w: Array
    h: Array
    logdet: float

    @classmethod
    def of(cls, D: Array, q: Array, states: StateSet | None = None) -> States:
        """The states, by default all, of blocks `D [B, s, s]` at residuals `q [B, s]`.

        Each state comes from one before, an entry k joining, by the bordered inverse: with
        `x = (D_SS)^-1 D_Sk` and `r = D_kk - D_kS x`, the new inverse adds `(x, -1)(x, -1)' / r`.
        """
        B, size = q.shape
        states = every_state(size) if states is None else states
        K = len(states.kept)
        inverse, w, h = np.zeros((B, K, size, size)), np.zeros((B, K, size)), np.zeros((B, K))
        D, q = np.ascontiguousarray(D), np.ascontiguousarray(q)
        logdet = open_states(D, q, states.chain, states.largest, inverse, w, h)
        return cls(inverse, w, h, float(logdet))

    def at(self, q: Array) -> States:
        """The same blocks at other residuals `[B, s]`."""
        B, size = q.shape
        w = (self.inverse.reshape(B, -1, size) @ q[:, :, None]).reshape(self.w.shape)
        return States(self.inverse, w, 0.5 * (w @ q[:, :, None])[..., 0], self.logdet)


@cache
def kept_by(size: int) -> NDArray[np.bool_]:
    """`[2^s, s]` which entries every state keeps."""
    return (np.arange(1 << size)[:, None] >> np.arange(size) & 1).astype(bool)


@cache
def counts(size: int) -> Array:
    """`[2^s]` entries that every state keeps."""
    return np.asarray(kept_by(size).sum(axis=1), dtype=np.float64)


@cache
def entries(size: int) -> tuple[Index, Index, Array]:
    """Rows and columns of a block's lower half, diagonal first, and 1/2 on the diagonal, else 1."""
    i, j = np.tril_indices(size, -1)
    diagonal = np.arange(size)
    half = np.where(np.arange(size + len(i)) < size, 0.5, 1.0)
    return np.concatenate([diagonal, j]), np.concatenate([diagonal, i]), half
