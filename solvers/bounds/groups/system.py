"""The best split in blocks of a row as a barrier problem.

With q in the place of u, the bound of `solvers.bounds.groups.split` is concave in (q, D, t) together.
Its maxima over states become variables `tau_B` above every score, and what has to stay positive gets a
barrier:

    minimise  1/2 (b - q)'R^-1 (b - q) + t keep + sum_B tau_B
              - T [ log det R + log det D + sum_B a_B sum_S log s_BS ],     s_BS = tau_B - (h_S - t |S|)

with weights a_B that let a group of s entries count for s + 1 constraints, however many states it has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from solvers.bounds.groups.split import Family, GroupSplit
from solvers.bounds.groups.states import Index, States, counts, entries
from solvers.form.blocks import Block
from solvers.hessian import Array

lapack = scipy.linalg.lapack


@dataclass(frozen=True)
class Point:
    """Variables inside the barrier, and what follows from them.

    Attributes:
        x: q, the diagonal of D, its other entries, prices.
        states: of every family.
        slack: `[B, 2^s]` s of every family.
        S: `[n, n]` of `R^-1`.
        y: `[n]` of `R^-1 (b - q)`.
        objective: without the barrier, and with the largest scores for tau: minus the bound.
        barrier: `log det R + log det D + sum log s`.
        excess: `sum (tau - largest score)`.
    """

    x: Array
    states: tuple[States, ...]
    slack: tuple[Array, ...]
    S: Array
    y: Array
    objective: float
    barrier: float
    excess: float

    def merit(self, T: float) -> float:
        """The barrier problem's objective."""
        return self.objective + self.excess - T * self.barrier


class GroupSystem:
    """The barrier problem of one row in units of its value.

    Attributes:
        n: entries.
        held: whether the blocks stay as they are, so that only q and prices are variables.
        families: `[B, s]` members of the groups of every size.
        pools: `[B]` their pools.
        columns: `[B, v]` places among the variables of their q, their entries of D, and their price.
        weights: a of every family.
        first, second, half: `[E]` rows and columns of the entries of D, diagonal first, and 1/2 there.
        prices: place of the first price.
        keep: `[pools]`.
        size: the barrier's parameter, what T times it may keep from the bound.
    """

    def __init__(self, block: Block, split: GroupSplit, value: float, *, held: bool = False) -> None:
        self.value, self.n, self.held = value, block.n, held
        self.H, self.b = block.H[0] / value, block.B[0, :, 0] / value
        self.constant, self.keep = block.constant / value, block.keep.astype(np.float64)
        self.families = [family.members for family in split.families]
        self.pools = [block.labels[at[:, 0]] for at in self.families]
        first, second, own = [np.arange(self.n)], [np.arange(self.n)], []
        place = self.n if held else 2 * self.n
        for at in self.families:
            count, size = at.shape
            i, j, _ = entries(size)
            off = 0 if held else len(i) - size
            others = place + np.arange(count * off).reshape(count, off)
            place += others.size
            own.append([at, others] if held else [at, self.n + at, others])
            first.append(at[:, i[size:]].ravel())
            second.append(at[:, j[size:]].ravel())
        self.prices = place
        self.columns: list[Index] = [
            np.concatenate([*parts, place + pool[:, None]], axis=1)
            for parts, pool in zip(own, self.pools, strict=True)
        ]
        self.first, self.second = np.concatenate(first), np.concatenate(second)
        self.half = np.where(self.first == self.second, 0.5, 1.0)
        self.weights = [(at.shape[1] + 1.0) / (1 << at.shape[1]) for at in self.families]
        self.size = (0 if held else 2 * self.n) + sum(at.size + len(at) for at in self.families)
        self._states = [
            States.of(family.D / value, split.q[family.members] / value)
            for family in (split.families if held else ())
        ]
        self._rest = _inverse(split.remainder(block.H[0]) / value) if held else None

    def pack(self, split: GroupSplit) -> Array:
        """A split's variables."""
        x = np.empty(self.prices + len(self.keep))
        x[: self.n], x[self.prices :] = split.q, split.t
        for family, columns in zip(() if self.held else split.families, self.columns, strict=not self.held):
            i, j, _ = entries(family.members.shape[1])
            x[columns[:, family.members.shape[1] : -1]] = family.D[:, i, j]
        return np.asarray(x / self.value)

    def unpack(self, split: GroupSplit, x: Array) -> GroupSplit:
        """The split that variables stand for."""
        families = split.families
        if not self.held:
            families = tuple(
                Family(at, self.value * D) for at, D in zip(self.families, self.blocks(x), strict=True)
            )
        return replace(split, families=families, q=self.value * x[: self.n], t=self.value * x[self.prices :])

    def blocks(self, x: Array) -> list[Array]:
        """`[B, s, s]` blocks of D, or of a change of it, of every family."""
        out = []
        for at, columns in zip(self.families, self.columns, strict=True):
            i, j, _ = entries(at.shape[1])
            D = np.empty((len(at), at.shape[1], at.shape[1]))
            D[:, i, j] = D[:, j, i] = x[columns[:, at.shape[1] : -1]]
            out.append(D)
        return out

    def whole(self, x: Array) -> Array:
        """`[n, n]` D, or a change of it."""
        D = np.zeros((self.n, self.n))
        D[self.first, self.second] = D[self.second, self.first] = x[self.n : self.prices]
        return D

    def at(self, x: Array, T: float) -> Point | None:
        """The point at x, with the tau that is best at T, or None outside the barrier."""
        q, t = x[: self.n], x[self.prices :]
        states, slacks = [], []
        barrier = taken = excess = 0.0
        if self.held:
            known = [own.at(q[at]) for own, at in zip(self._states, self.families, strict=True)]
        else:
            known = [States.of(D, q[at]) for D, at in zip(self.blocks(x), self.families, strict=True)]
        for k, (found, pool) in enumerate(zip(known, self.pools, strict=True)):
            if not np.isfinite(found.logdet):
                return None
            scores = found.h - t[pool][:, None] * counts(found.w.shape[2])
            top = scores.max(axis=1)
            level = central(scores, self.weights[k] * T)
            slack = level[:, None] - scores
            states.append(found)
            slacks.append(slack)
            barrier += found.logdet + self.weights[k] * float(np.log(slack).sum())
            taken += float(top.sum())
            excess += float((level - top).sum())
        rest = self._rest if self.held else _inverse(self.H - self.whole(x))
        if rest is None:
            return None
        S, logdet = rest
        barrier += logdet
        y = S @ (self.b - q)
        objective = 0.5 * float(y @ (self.b - q)) + float(t @ self.keep) + taken - self.constant
        return Point(x, tuple(states), tuple(slacks), S, y, objective, barrier, excess)


def _inverse(R: Array) -> tuple[Array, float] | None:
    """`R^-1` and `log det R`, or None if R is not positive definite."""
    factor, info = lapack.dpotrf(R, lower=1, overwrite_a=1, clean=0)
    if info:
        return None
    logdet = 2.0 * float(np.log(np.diagonal(factor)).sum())
    S = lapack.dpotri(factor, lower=1, overwrite_c=1)[0]
    return np.ascontiguousarray(np.tril(S) + np.tril(S, -1).T), logdet


def central(scores: Array, T: float) -> Array:
    """`[B]` levels tau with `sum_S T / (tau - score_S) = 1`, by Newton's method from below."""
    tau = scores.max(axis=1) + T
    for _ in range(60):
        slack = tau[:, None] - scores
        step = ((T / slack).sum(axis=1) - 1.0) / (T / slack**2).sum(axis=1)
        tau = tau + step
        if (np.abs(step) <= 1e-10 * T).all():
            break
    return np.asarray(tau)
