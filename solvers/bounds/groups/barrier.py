"""The best split in blocks of a row as a barrier problem.

With q in the place of u, the bound of `solvers.bounds.groups.split` is concave in (q, D, t) together.
Its maxima over states become variables `tau_B` above every score, and what has to stay positive gets a
barrier:

    minimise  1/2 (b - q)'R^-1 (b - q) + t keep + sum_B tau_B
              - T [ log det R + log det D + sum_B a_B sum_S log s_BS ],     s_BS = tau_B - (h_S - t |S|)

with weights a_B that let a group of s entries count for s + 1 constraints, however many states it has. Where
groups are whole pools, log det D is the mean of those on their states, and t is no variable.

A step is primal-dual: in the matrix of Newton's method the multipliers `L ~ T R^-1` and `p_BS ~ a T / s_BS`
are variables of their own (the HKM form), so that long steps stay good ones as T falls.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from solvers.bounds.groups.kernels import family_sums, levels, mirror, slopes
from solvers.bounds.groups.reach import reach
from solvers.bounds.groups.split import GroupSplit
from solvers.bounds.groups.states import Index, States, entries
from solvers.form.blocks import Block
from solvers.hessian import Array
from solvers.runtime.unlocked import factored, inverted

SHORT = 1e-9
"""Share of a step of multipliers below which none is taken."""
INSIDE = 0.95
"""Share of the way to the boundary that multipliers may go."""


@dataclass(frozen=True)
class Point:
    """Variables inside the barrier, and what follows from them.

    Attributes:
        x: q, the diagonal of D, its other entries, prices.
        states: of every family.
        slack: `[B, K]` s of every family.
        S: `[n, n]` of `R^-1`.
        factor: `[n, n]` with the Cholesky factor of R in its lower half.
        y: `[n]` of `R^-1 (b - q)`.
        objective: without the barrier, and with the largest scores for tau: minus the bound.
        barrier: `log det R + log det D + sum log s`.
        excess: `sum (tau - largest score)`.
    """

    x: Array
    states: tuple[States, ...]
    slack: tuple[Array, ...]
    S: Array
    factor: Array
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
        states: theirs.
        columns: `[B, v]` places among the variables of their q, their entries of D, and their price, if any.
        weights: a of every family.
        first, second, half: `[E]` rows and columns of the entries of D, diagonal first, and 1/2 there.
        prices: place of the first price.
        priced: the pools that have one: those that are not whole in a group.
        keep: of these.
        size: the barrier's parameter, what T times it may keep from the bound.
    """

    def __init__(self, block: Block, split: GroupSplit, value: float, *, held: bool = False) -> None:
        self.value, self.n, self.held = value, block.n, held
        self.H, self.b = block.H[0] / value, block.B[0, :, 0] / value
        self.constant = block.constant / value
        self.families = [family.members for family in split.families]
        self.states = [family.states for family in split.families]
        pools = [block.labels[at[:, 0]] for at in self.families]
        parts = [pool for pool, states in zip(pools, self.states, strict=True) if not states.pattern]
        self.priced = np.unique(np.concatenate([*parts, np.zeros(0, np.int64)]))
        self.keep = block.keep[self.priced].astype(np.float64)
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
        self.columns: list[Index] = []
        for columns, pool, states in zip(own, pools, self.states, strict=True):
            price = place + np.searchsorted(self.priced, pool)[:, None]
            self.columns.append(np.concatenate(columns if states.pattern else [*columns, price], axis=1))
        self.first, self.second = np.concatenate(first), np.concatenate(second)
        self.half = np.where(self.first == self.second, 0.5, 1.0)
        self.weights = [states.weight for states in self.states]
        self.size = (0 if held else 2 * self.n) + sum(at.size + len(at) for at in self.families)
        self._held = [
            States.of(family.D / value, split.q[family.members] / value, family.states)
            for family in (split.families if held else ())
        ]
        self._rest = _inverse(split.remainder(block.H[0]) / value) if held else None

    @property
    def definite(self) -> bool:
        """Whether held blocks, and what they leave, are positive definite."""
        return self._rest is not None and all(np.isfinite(states.logdet) for states in self._held)

    def of_row(self, block: Block) -> GroupSystem:
        """The same blocks, held, for another row of the same curvature and budget."""
        other = copy(self)
        other.b, other.constant = block.B[0, :, 0] / self.value, block.constant / self.value
        return other

    def pack(self, split: GroupSplit) -> Array:
        """A split's variables."""
        x = np.empty(self.prices + len(self.keep))
        x[: self.n], x[self.prices :] = split.q, split.t[self.priced]
        for family, columns in zip(() if self.held else split.families, self.columns, strict=not self.held):
            i, j, _ = entries(family.members.shape[1])
            x[columns[:, family.members.shape[1] :][:, : len(i)]] = family.D[:, i, j]
        return np.asarray(x / self.value)

    def unpack(self, split: GroupSplit, x: Array) -> GroupSplit:
        """The split that variables stand for."""
        families = split.families
        if not self.held:
            families = tuple(
                replace(family, D=self.value * D)
                for family, D in zip(split.families, self.blocks(x), strict=True)
            )
        t = np.zeros(len(split.t))
        t[self.priced] = self.value * x[self.prices :]
        return replace(split, families=families, q=self.value * x[: self.n], t=t)

    def blocks(self, x: Array) -> list[Array]:
        """`[B, s, s]` blocks of D, or of a change of it, of every family."""
        out = []
        for at, columns in zip(self.families, self.columns, strict=True):
            i, j, _ = entries(at.shape[1])
            D = np.empty((len(at), at.shape[1], at.shape[1]))
            D[:, i, j] = D[:, j, i] = x[columns[:, at.shape[1] :][:, : len(i)]]
            out.append(D)
        return out

    def whole(self, x: Array) -> Array:
        """`[n, n]` D, or a change of it."""
        D = np.zeros((self.n, self.n))
        D[self.first, self.second] = D[self.second, self.first] = x[self.n : self.prices]
        return D

    def at(self, x: Array, T: float) -> Point | None:
        """The point at x, with the tau that is best at T, or None outside the barrier."""
        q = x[: self.n]
        states, slacks = [], []
        barrier = taken = excess = 0.0
        if self.held:
            known = [held.at(q[at]) for held, at in zip(self._held, self.families, strict=True)]
        else:
            each = zip(self.blocks(x), self.families, self.states, strict=True)
            known = [States.of(D, q[at], states) for D, at, states in each]
        for k, (found, columns, own) in enumerate(zip(known, self.columns, self.states, strict=True)):
            if not np.isfinite(found.logdet):
                return None
            scores = found.h if own.pattern else found.h - x[columns[:, -1]][:, None] * own.counts
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
        S, factor, logdet = rest
        barrier += logdet
        y = S @ (self.b - q)
        objective = (
            0.5 * float(y @ (self.b - q)) + float(x[self.prices :] @ self.keep) + taken - self.constant
        )
        return Point(x, tuple(states), tuple(slacks), S, factor, y, objective, barrier, excess)


def _inverse(R: Array) -> tuple[Array, Array, float] | None:
    """`R^-1`, R's Cholesky factor and `log det R`, or None if R is not positive definite."""
    factor = factored(R)
    if factor is None:
        return None
    logdet = 2.0 * float(np.log(np.diagonal(factor)).sum())
    S = inverted(factor)
    mirror(S)
    return S, factor, logdet


def central(scores: Array, T: float) -> Array:
    """`[B]` levels tau with `sum_S T / (tau - score_S) = 1`, by Newton's method from below."""
    tau = np.empty(len(scores))
    levels(scores, T, tau)
    return tau


@dataclass(frozen=True)
class Multipliers:
    """Multipliers of what has to stay positive.

    Attributes:
        L: `[n, n]` of the remainder, empty where blocks are held.
        p: `[B, K]` of every family's states.
        factor: `[n, n]` with the Cholesky factor of L in its lower half, where that is known.
    """

    L: Array
    p: tuple[Array, ...]
    factor: Array | None = None

    @classmethod
    def central(cls, system: GroupSystem, point: Point, T: float) -> Multipliers:
        """Those of a point of the central path."""
        L = np.zeros((0, 0)) if system.held else T * point.S
        return cls(L, tuple(a * T / s for a, s in zip(system.weights, point.slack, strict=True)))

    def moved(self, step: Multipliers) -> tuple[Multipliers, float]:
        """These and what of a step keeps them positive, with the share of it that was taken."""
        share = 1.0
        for old, change in zip(self.p, step.p, strict=True):
            falling = change < 0.0
            if falling.any():
                share = min(share, INSIDE * float((old[falling] / -change[falling]).min()))
        L, factor = self.L, None
        if len(L):
            known = factored(L) if self.factor is None else self.factor
            if known is None:  # rounding hides that these are definite
                return self, 0.0
            share = min(share, INSIDE * reach(known, step.L))
            while (factor := factored(L := self.L + share * step.L)) is None:
                share *= 0.8
                if not share > SHORT:
                    return self, 0.0
        p = tuple(old + share * change for old, change in zip(self.p, step.p, strict=True))
        return Multipliers(L, p, factor), share


class Step(NamedTuple):
    """A step of the variables and of their multipliers, and the merit's slope along it."""

    x: Array
    dual: Multipliers
    slope: float


class Share(NamedTuple):
    """What a family adds: slopes of its scores, their weights in the matrix, and the equation of tau.

    `tau` moves by `(lean . x - short) / total`.
    """

    slopes: Array
    weight: Array
    pull: Array
    lean: Array
    total: Array
    short: Array


class Sums(NamedTuple):
    """What a Newton step is made of, but for the remainder's part of its matrix.

    Attributes:
        gradient: `[N]`.
        curves: `[B, v, v]` of every family, lower halves of what it adds to the matrix.
        shares: of every family.
    """

    gradient: Array
    curves: list[Array]
    shares: list[Share]

    @classmethod
    def of(cls, system: GroupSystem, point: Point, dual: Multipliers, T: float) -> Sums:
        """Those at a point and its multipliers."""
        n, S, y, prices, held = system.n, point.S, point.y, system.prices, system.held
        gradient = np.empty(len(point.x))
        gradient[:n], gradient[prices:] = -y, system.keep
        if not held:
            first, second = system.first, system.second
            gradient[n:prices] = system.half * (y[first] * y[second] + 2.0 * T * S[first, second])
        curves, shares = [], []
        for k, columns in enumerate(system.columns):
            states, slack, p, a = point.states[k], point.slack[k], dual.p[k], system.weights[k]
            i, j, half = entries(states.w.shape[2])
            groups, v = columns.shape
            slope = np.empty((*states.h.shape, v))
            slopes(states.w, i, j, half, held, system.states[k].counts, slope)
            curve, rise = np.empty((groups, v, v)), np.empty((groups, v))
            lean, total, short = np.empty((groups, v)), np.empty(groups), np.empty(groups)
            family_sums(
                curve, rise, states.inverse, states.w, slope, slack, p, a, system.states[k].largest, T,
                i, j, half, held, lean, total, short,
            )  # fmt: skip
            np.add.at(gradient, columns, rise)
            curves.append(curve)
            shares.append(Share(slope, p / slack, a * T / slack, lean, total, short))
        return cls(gradient, curves, shares)

    def step(self, system: GroupSystem, point: Point, dual: Multipliers, T: float, dx: Array) -> Step:
        """The step that moves the variables by dx."""
        dp = []
        for k, share in enumerate(self.shares):
            own = dx[system.columns[k]]
            tau = (np.einsum("bv,bv->b", share.lean, own) - share.short) / share.total
            slack = tau[:, None] - np.einsum("bmv,bv->bm", share.slopes, own)
            dp.append(share.pull - dual.p[k] - share.weight * slack)
        slope = float(self.gradient @ dx)
        if system.held:
            return Step(dx, Multipliers(dual.L, tuple(dp)), slope)
        dL = np.empty_like(dual.L)
        for at, D in zip(system.families, system.blocks(dx), strict=True):
            dL[at] = D @ dual.L[at]
        dL = point.S @ dL
        return Step(dx, Multipliers(T * point.S - dual.L + 0.5 * (dL + dL.T), tuple(dp)), slope)
