"""A stronger split for wide rows: `H = R + D`, `R >= 0`, with D block diagonal in small blocks.

Correlated inputs leave little on the diagonal. A group B of them keeps a block of its own, whose
`2^|B|` states are enumerated, so that for any u and any price t of keeping an entry

    q = b - R u,   h_S = 1/2 q_S' (D_SS)^-1 q_S
    LB(u) = constant - 1/2 u'Ru - [ sum_pool t keep + sum_B max_{S in B} (h_S - t |S|) ]

is a lower bound on a joint row: `1/2 v'Rv >= u'Rv - 1/2 u'Ru`, what is left is a sum over groups, and t
prices the budget. (As constraints, for pairs: Han, Gomez and Atamturk 2023.) In groups of whole pools only
the S that meet the pools' budgets count, at no price, and D has to be definite on these alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from solvers.bounds.evaluate import margin
from solvers.bounds.groups.states import Index, Pattern, States, StateSet, states_of
from solvers.bounds.secure import EPS
from solvers.form.blocks import Block
from solvers.hessian import Array


@dataclass(frozen=True)
class Family:
    """Groups of one size s.

    Attributes:
        members: `[B, s]` entries.
        D: `[B, s, s]` their blocks.
        pattern: of the pools that they are made of, see `solvers.bounds.groups.states.StateSet`; empty where
            they are parts of pools.
    """

    members: Index
    D: Array
    pattern: Pattern = ()

    @property
    def states(self) -> StateSet:
        """The states of its groups."""
        return states_of(self.members.shape[1], self.pattern)


@dataclass(frozen=True)
class GroupSplit:
    """D on one row's groups, the prices of its budget, and the point of its bound.

    Attributes:
        families: groups by size; every entry is in one.
        q: `[n]` residuals `b - R u`.
        t: `[pools]` prices of keeping an entry; zero for pools that are whole in a group.
    """

    families: tuple[Family, ...]
    q: Array
    t: Array

    def scaled(self, factor: float) -> GroupSplit:
        """With D multiplied by a factor."""
        families = tuple(replace(family, D=factor * family.D) for family in self.families)
        return replace(self, families=families)

    def remainder(self, H: Array) -> Array:
        """`R = H - D`."""
        R = H.copy()
        for family in self.families:
            R[family.members[:, :, None], family.members[:, None, :]] -= family.D
        return R


def secure_groups(H: Array, split: GroupSplit, slack: Array | None = None) -> GroupSplit:
    """Shrink D until `H - D` is positive semidefinite for certain; see `solvers.bounds.split.secure`.

    Args:
        H: `[n, n]`.
        split: the split.
        slack: `[n, n]` how far H may be from what it stands for.

    Raises:
        ValueError: if H itself is too close to singular to say so.
    """
    n = len(H)
    if slack is not None:
        H = H - 2.0 * np.diag(slack.sum(axis=1))
    scale = np.exp2(-np.round(0.5 * np.log2(np.maximum(np.diagonal(H), 1e-280))))
    margin = 4.0 * (n + 4) * EPS * float((scale**2 * np.diagonal(H)).sum())
    shrinks = [0.0, *(1e-12 * 2.0 ** np.arange(39)), *(1.0 - 0.5 ** np.arange(1, 40))]
    for shrink in shrinks:
        trial = split.scaled(1.0 - shrink)
        R = scale[:, None] * trial.remainder(H) * scale[None, :] + margin * (1e-3 - 1.0) * np.eye(n)
        _, info = scipy.linalg.lapack.dpotrf(R, lower=1)
        if info == 0:
            return trial
    raise ValueError("hessian is too close to singular for a certified split; add damping")


def group_bound(block: Block, split: GroupSplit) -> float:
    """`LB(u)` at `u = R^-1 (b - q)`, lowered by an estimate of the rounding in its own evaluation."""
    return float(max(block.floor, _look(block, split).lines(block, split, block.keep[None])[0]))


def group_curve(block: Block, split: GroupSplit) -> Array:
    """`[n + 1]` the bounds of every pruned count k of a row with one pool: the line `LB_0 + t k`."""
    lines = _look(block, split).lines(block, split, np.arange(block.n, -1, -1)[:, None])
    return np.asarray(np.maximum(block.floor, lines))


def bound_and_regrets(block: Block, split: GroupSplit) -> tuple[float, Array, Array]:
    """The bound, and `[n]` by how much it rises if an entry has to be kept, or to be pruned."""
    own = _look(block, split)
    low = own.lines(block, split, block.keep[None])[0]
    bound = max(block.floor, low)
    kept, pruned = np.empty(block.n), np.empty(block.n)
    for family, score in zip(split.families, own.scores, strict=True):
        at, best = family.members, score.max(axis=1)
        for k in range(at.shape[1]):
            inside = family.states.kept[:, k]
            kept[at[:, k]] = best - score[:, inside].max(axis=1)
            pruned[at[:, k]] = best - score[:, ~inside].max(axis=1)
    if bound > low:  # the rise begins at what the split itself shows
        kept, pruned = (np.maximum(rise - (bound - low), 0.0) for rise in (kept, pruned))
    return float(bound), kept, pruned


def regrets(block: Block, split: GroupSplit) -> tuple[Array, Array]:
    """`[n]` by how much the bound of a split rises if an entry has to be kept, or to be pruned."""
    return bound_and_regrets(block, split)[1:]


@dataclass(frozen=True)
class _Look:
    """What a bound is made of: its quadratic term, scores from above, and the size of all terms."""

    quadratic: float
    scores: list[Array]
    around: float

    def lines(self, block: Block, split: GroupSplit, keep: Index) -> Array:
        """`[K]` bounds for budgets that keep `keep [K, pools]`."""
        taken = sum(float(score.max(axis=1).sum()) for score in self.scores)
        rounding = 2.0 * margin(block.n) * (self.around + keep @ np.abs(split.t))
        return np.asarray(block.constant - self.quadratic - keep @ split.t - taken - rounding)


def _look(block: Block, split: GroupSplit) -> _Look:
    n, H, W, b = block.n, block.H[0], block.W[0, :, 0], block.B[0, :, 0]
    gamma = 2.0 * margin(n)
    R = split.remainder(H)
    u = relaxed(R, b - split.q)
    Ru, size = R @ u, np.abs(R) @ np.abs(u)
    own = np.abs(H) @ np.abs(W)
    scores, around = scores_above(split, b - Ru, gamma * (own + size), block.labels)
    around += 0.5 * float(np.abs(u) @ size) + block.constant + 0.5 * float(np.abs(W) @ own)
    return _Look(0.5 * float(u @ Ru), scores, around)


def scores_above(split: GroupSplit, q: Array, error: Array, labels: Index) -> tuple[list[Array], float]:
    """`h_S - t |S|` from above for q `[n]` within an error, `[B, K]` a family; the largest's size."""
    scores, around = [], 0.0
    for family in split.families:
        at = family.members
        h = worth_above(family, States.of(family.D, q[at], family.states), q[at], error[at])
        paid = split.t[labels[at[:, 0]]][:, None] * family.states.counts
        scores.append(h - paid)
        around += float((np.abs(h) + np.abs(paid)).max(axis=1).sum())
    return scores, around


def worth_above(family: Family, states: States, q: Array, error: Array) -> Array:
    """`[B, K]` `h_S` from above for residuals `q [B, s]` within an error; `states` are the groups' at q.

    For any w on S, `h_S = q'w - 1/2 w'Dw + 1/2 r'(D_SS)^-1 r` with `r = (q - Dw)_S`. In units in which the
    diagonal of D is one, the last term is at most `1/2 |r|^2` over the least eigenvalue, so that an inexact w
    costs little and no more is asked of it. Infinite where rounding hides whether a block is definite.
    """
    D, size, allowed = family.D, family.members.shape[1], family.states
    diagonal = np.diagonal(D, axis1=1, axis2=2)
    unit = 1.0 / np.sqrt(np.where(diagonal > 0.0, diagonal, 1.0))
    lowest = allowed.lowest(unit[:, :, None] * D * unit[:, None, :]) - 16.0 * size**2 * EPS
    if not ((lowest > 0.0).all() and np.isfinite(states.logdet)):
        return np.full(states.h.shape, np.inf)
    gamma = 2.0 * margin(size)
    w, own = states.w, q[:, None]
    Dw, reach = w @ D, np.abs(w) @ np.abs(D)
    slack = error[:, None] + gamma * (np.abs(own) + reach)
    r = (np.abs(own - Dw) + slack) * unit[:, None] * allowed.kept
    h = ((own - 0.5 * Dw) * w).sum(axis=2) + (np.abs(w) * slack).sum(axis=2)
    return np.asarray(h + 0.5 * (1.0 + gamma) * (r * r).sum(axis=2) / lowest)


def relaxed(R: Array, y: Array) -> Array:
    """`R^-1 y` where R has anything; zero on entries that R has nothing of."""
    size = np.diagonal(R)
    live = np.flatnonzero(size > 1e-13 * size.max(initial=0.0))
    u = np.zeros(len(R))
    if len(live):
        part = R[np.ix_(live, live)]
        part[np.diag_indices(len(live))] *= 1.0 + 1e-14
        u[live] = scipy.linalg.solve(part, y[live], assume_a="pos", check_finite=False)
    return u
