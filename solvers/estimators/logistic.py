"""The logistic loss with a ridge: its fit by Newton's method, its quadratic model, a bound on all subsets.

For rows of coefficients v (one of two classes; one a class *against the rest* of more) with intercepts b,
signs `t_i = +-1`, standardized columns z_i and sample weights s_i:

    L(v, b) = sum_i s_i log(1 + exp(-t_i (z_i v + b))) + 1/2 sum_j r_j v_j^2,   r_j = alpha penalty_j > 0

Its second derivative `A'SDA + diag(r)` with `D = p (1 - p)` is that of *iteratively reweighted least
squares*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solvers.budget import Budget
from solvers.estimators.columns import Columns, definite_solve
from solvers.hessian import Array
from solvers.problem import EPS, Mask, SubsetProblem

STEPS = 100
"""Newton steps at most."""
SETTLED = 1e-12
"""Squared Newton decrement, relative to the loss, at which a fit has converged."""
FLAT = 1e-9
"""What is added to the second derivative in an intercept, as a share of the weights' sum: it may be zero
where all samples are far from the border."""
TURNS = 200
"""Turns of the relaxation of `loss_bound` at most."""


@dataclass(frozen=True)
class Logistic:
    """The loss of rows of coefficients.

    Attributes:
        columns: standardized.
        signs: `[m, N]`, 1 for a sample of the row's class, else -1.
        ridge: `[p]`, positive.
        intercept: whether rows have one.
    """

    columns: Columns
    signs: Array
    ridge: Array
    intercept: bool

    @property
    def inputs(self) -> Array:
        """`[N, p]`, or `[N, p + 1]` with a column of ones for the intercept."""
        Z = self.columns.Z
        return np.concatenate([Z, np.ones((len(Z), 1))], axis=1) if self.intercept else Z

    def _ridge(self) -> Array:
        return np.append(self.ridge, 0.0) if self.intercept else self.ridge

    def losses(self, theta: Array) -> Array:
        """`[m]` each row's loss at coefficients `[m, p (+ 1)]`."""
        margins = self.signs * (theta @ self.inputs.T)
        data = np.logaddexp(0.0, -margins) @ self.columns.weight
        return np.asarray(data + 0.5 * (theta**2 @ self._ridge()))

    def derivatives(self, row: int, theta: Array) -> tuple[Array, Array]:
        """`[p (+ 1)]` and its square: a row's first and second derivatives."""
        A, t, s = self.inputs, self.signs[row], self.columns.weight
        away = 0.5 * (1.0 - np.tanh(0.5 * t * (A @ theta)))  # the probability of the other class
        g = -A.T @ (s * t * away) + self._ridge() * theta
        H = (A.T * (s * away * (1.0 - away))) @ A
        H[np.diag_indices(len(H))] += self._ridge()
        if self.intercept:
            H[-1, -1] += FLAT * float(s.sum())
        return g, H

    def fit(self, support: Mask, start: Array | None = None) -> Array:
        """`[m, p (+ 1)]` the best coefficients with a support's columns alone, by damped Newton steps.

        Args:
            support: `[p]`, True where a column is selected.
            start: coefficients to start from, or None for zeros.
        """
        used = np.flatnonzero(np.append(support, True) if self.intercept else support)
        theta = np.zeros((len(self.signs), self.inputs.shape[1]))
        if start is not None:
            theta[:, used] = start[:, used]
        for row in range(len(theta)):
            here = float(self.losses(theta)[row])
            for _ in range(STEPS):
                g, H = self.derivatives(row, theta[row])
                step = np.zeros(theta.shape[1])
                step[used] = -definite_solve(H[np.ix_(used, used)], g[used])
                fall, share = -float(g @ step), 1.0
                if fall <= SETTLED * abs(here):
                    break
                trial = theta.copy()
                while share > 1e-10:
                    trial[row] = theta[row] + share * step
                    if (then := float(self.losses(trial)[row])) <= here - 1e-4 * share * fall:
                        break
                    share *= 0.5
                else:
                    break
                theta, here = trial.copy(), then
        return theta

    def problem(self, theta: Array, budget: Budget, kept: NDArray[np.int64]) -> SubsetProblem:
        """The quadratic model of the loss around coefficients, as a subset problem.

        Its values, and bounds, are on top of the loss at theta.

        Args:
            theta: `[m, p (+ 1)]`.
            budget: of the columns that may go.
            kept: columns that never go, beside the intercept.
        """
        found = [self.derivatives(row, each) for row, each in enumerate(theta)]
        G, H = np.stack([g for g, _ in found]), np.stack([H for _, H in found])
        small = np.abs(G) <= 1e-7 * np.sqrt(np.einsum("rii->ri", H) * self.losses(theta)[:, None])
        movable = [*kept.tolist(), *([theta.shape[1] - 1] if self.intercept else [])]
        return SubsetProblem(
            theta, H[0] if len(H) == 1 else H, budget, movable=movable, gradient=None if small.all() else G
        )

    def bound(self, free: NDArray[np.int64], groups: NDArray[np.int64], keep: NDArray[np.int64]) -> float:
        """A loss that no subset goes below: the perspective relaxation's, by its dual.

        For any `0 < mu_i < 1` with `sum_i s_i t_i mu_i = 0` where there is an intercept, and
        `c = sum_i s_i t_i mu_i z_i`, as `log(1 + e^-x) >= h(mu) - mu x` with the entropy h (Fenchel):

            L >= sum_i s_i h(mu_i) - sum over what is kept of c_j^2 / (2 r_j)

        of which the most that a subset can keep are the largest of each group. mu is that of the relaxation
        `min L with r_j v_j^2 / z_j for r_j v_j^2`, minimized over v and z in turn.

        Args:
            free: columns that may go.
            groups: `[free]` their groups, from 0.
            keep: `[groups]` how many of each stay.
        """
        p = len(self.ridge)
        shares = np.ones(p)
        shares[free] = (keep / np.bincount(groups, minlength=len(keep)))[groups]
        eased, theta, best = self, np.zeros((len(self.signs), self.inputs.shape[1])), -np.inf
        for turn in range(TURNS):
            alive = shares > 1e-8
            eased = Logistic(self.columns, self.signs, self.ridge / np.maximum(shares, 1e-8), self.intercept)
            theta = eased.fit(alive, theta)
            now = self._dual(theta, free, groups, keep)
            if turn > 3 and now <= best + 1e-6 * abs(best):
                best = max(best, now)
                break
            best = max(best, now)
            size = np.sqrt(self.ridge * (theta[:, :p] ** 2).sum(axis=0))
            for g, count in enumerate(keep.tolist()):
                mine = free[groups == g]
                shares[mine] = water(size[mine], count)
        return max(best, 0.0)

    def _dual(
        self, theta: Array, free: NDArray[np.int64], groups: NDArray[np.int64], keep: NDArray[np.int64]
    ) -> float:
        Z, s, p = self.columns.Z, self.columns.weight, len(self.ridge)
        total, size, score = 0.0, 0.0, np.zeros(p)
        for t, row in zip(self.signs, theta, strict=True):
            mu = np.clip(0.5 * (1.0 - np.tanh(0.5 * t * (self.inputs @ row))), 1e-300, 1.0 - EPS)
            if self.intercept:
                sides = [float((s * mu)[t > 0].sum()), float((s * mu)[t < 0].sum())]
                mu = mu * np.where(t > 0, min(1.0, sides[1] / sides[0]), min(1.0, sides[0] / sides[1]))
            entropy = -mu * np.log(mu) - (1.0 - mu) * np.log1p(-mu)
            total += float(s @ entropy)
            size += float(s.sum())
            score += ((s * t * mu) @ Z) ** 2 / (2.0 * self.ridge)
        fixed = np.ones(p, dtype=bool)
        fixed[free] = False
        taken = float(score[fixed].sum())
        for g, count in enumerate(keep.tolist()):
            taken += float(np.sort(score[free[groups == g]])[::-1][:count].sum())
        return total - taken - 64.0 * len(Z) * EPS * (size + taken)


def water(size: Array, count: int) -> Array:
    """Shares `min(1, size / level)` that add up to a count: the best z of `sum size_j^2 / z_j`."""
    if count >= len(size):
        return np.ones(len(size))
    if count == 0 or not size.any():
        return np.full(len(size), count / max(len(size), 1))
    order = np.argsort(-size, kind="stable")
    ranked = size[order]
    tails = np.cumsum(ranked[::-1])[::-1]
    for full in range(count):
        level = tails[full] / (count - full)
        if ranked[full] <= level:
            break
    else:  # fewer than `count` are not zero
        return np.where(size > 0.0, 1.0, 0.0)
    return np.minimum(1.0, size / level) if level > 0.0 else np.where(size > 0.0, 1.0, 0.0)
