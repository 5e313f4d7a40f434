"""The numbers of the plain and the split-strengthened mixed-integer models, scaled to order one.

A foreign solver trusts absolute tolerances, so costs are divided by the incumbent's value and weights
by the distance that a mask no worse than the incumbent can move them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.form.blocks import Part
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem

TOLERANCE = 1e-9
"""Optimality tolerance asked of the foreign solvers, in units of the scaled objective."""
WIDENING = 1e-7
"""Least widening of a claimed bound, in units of the incumbent's value."""
TINY = 1e-12
"""Eigenvalues of a convex part below this, relative to the largest, are left out: a relaxation."""


@dataclass(frozen=True)
class BinaryQuadratic:
    """`min 1/2 x'Ax - c'x` over binary x (1 = pruned) with a count in every pool.

    `A` is block diagonal, one block for each row of decisions, so it is held as a stack: the
    objective is `sum_b 1/2 x_b' A_b x_b - c_b' x_b`. Pruning moves the weights by `-w`, so a row has
    `A = diag(w) H diag(w)` and `c = g o w`; with one mask shared by all rows these are summed over
    the rows (CBS-S, Yu et al. 2022, with a gradient and with pools).

    Attributes:
        A: `[b, n, n]`, symmetric positive semidefinite.
        c: `[b, n]`.
        labels: `[b, n]` pool of every decision.
        prune: `[pools]` decisions to prune.
        rounding: `[b, n]` with `sum_i rounding_i x_i` a bound on what rounding in A and c can do to
            the objective at x.
    """

    A: Array
    c: Array
    labels: NDArray[np.int64]
    prune: NDArray[np.int64]
    rounding: Array

    def value(self, x: Mask) -> float:
        """The objective at decisions `[b, n]`, True where pruned."""
        z = x.astype(np.float64)
        return float(0.5 * np.einsum("bi,bij,bj->", z, self.A, z) - (self.c * z).sum())


def binary_quadratic(problem: SubsetProblem) -> BinaryQuadratic:
    """The binary quadratic programme of a reduced selection problem; its decisions are the mask's.

    Raises:
        ValueError: for a problem whose survivors move.
    """
    if problem.refit:
        raise ValueError("binary_quadratic needs a selection problem, refit=False")
    m, pools, W = problem.m, problem.pools, problem.W
    A = np.stack([W[r][:, None] * problem.hessian.dense(r) * W[r][None, :] for r in range(m)])
    c = np.zeros(W.shape) if problem.G is None else problem.G * W
    size = 0.5 * np.abs(A).sum(axis=2) + np.abs(c)
    if pools.coupled:
        A, c, size = (B.sum(axis=0, keepdims=True) for B in (A, c, size))
    return BinaryQuadratic(A, c, pools.labels, pools.prune, (m + 4) * np.finfo(float).eps * size)


@dataclass(frozen=True)
class JointModel:
    """Surviving weights v, their squares s and indicators z (1 = kept), in scaled units.

    Minimise

        cost / unit = sum_r 1/2 (v_r - a_r)' R_r (v_r - a_r) + 1/2 sum_i d_i (s_i - 2 a_i v_i + a_i^2)
        low z <= v <= high z,   v_i^2 <= s_i z_i,   sum_pool z = keep

    With `d = 0` there is no s: the plain big-M model; with a split `H = R + diag(d)` it is the
    perspective model (Guenluek & Linderoth 2010). The variables are `v_i = weight_i / scale_i` with
    `scale_i^2 = unit [H^-1]_ii`. A row no dearer than the incumbent has

        |weight_i - w_i| <= sqrt(2 value [H^-1]_ii),   so   |v_i - a_i| <= sqrt 2   where unit = value,

    which gives valid `low` and `high`, and keeps every entry whose `|a_i|` is larger.

    Attributes:
        unit: cost of one unit of the scaled objective.
        scale: `[m, n]`.
        a: `[m, n]` scaled weights.
        R: `[m, n, n]` scaled convex part.
        d: `[m, n]` scaled split, 0 when plain.
        low: `[m, n]` least scaled weight of a survivor.
        high: `[m, n]` largest.
        kept: `[b, n]` entries that no mask better than the incumbent prunes.
        rounding: what rounding in the data can do to a cost, in units: `n eps cond`, of H at unit diagonal.
    """

    unit: float
    scale: Array
    a: Array
    R: Array
    d: Array
    low: Array
    high: Array
    kept: Mask
    rounding: float

    @property
    def reach(self) -> float:
        """Largest `(v_r - a_r)' R_r (v_r - a_r)` of a row no dearer than the incumbent."""
        return 2.0

    @property
    def largest_square(self) -> Array:
        """`[m, n]` upper bound of s."""
        return np.maximum(self.low**2, self.high**2)

    @property
    def widening(self) -> float:
        """What rounding, and tolerance times the variables' ranges, can move the solver's bound by."""
        ranges = (self.high - self.low).sum() + np.where(self.d > 0, self.largest_square, 0.0).sum()
        return self.unit * (WIDENING + self.rounding + TOLERANCE * float(ranges + 4.0 * self.a.size))


@dataclass(frozen=True)
class SelectionModel:
    """Binary x (1 = pruned) in scaled units; convex, since `x_i^2 = x_i` moves d to the linear term.

    Minimise

        cost / unit = sum_b 1/2 x_b' R_b x_b + linear_b . x_b,    sum_pool x = prune

    With `R = A` it is the plain model; with the best split `A = R + diag(d)`, d of any sign, it is the
    quadratic convex reformulation (Billionnet, Elloumi & Plateau 2009).

    Attributes:
        unit: cost of one unit of the scaled objective.
        R: `[b, n, n]`.
        linear: `[b, n]`.
        reach: largest `sum_b x_b' R_b x_b` of a mask no dearer than the incumbent.
        rounding: what rounding in the data can do to a cost.
    """

    unit: float
    R: Array
    linear: Array
    reach: float
    rounding: float

    @property
    def widening(self) -> float:
        """What the solver's tolerances and the data's rounding can move its bound by."""
        ranges = self.linear.size * float(1.0 + 2.0 * np.sqrt(self.reach) + self.reach)
        return self.rounding + self.unit * (WIDENING + TOLERANCE * ranges)


def joint_model(part: Part, d: Array | None) -> JointModel:
    """The joint model of a part, plain or with a split.

    Args:
        part: its value bounds the survivors' moves.
        d: `[m, n]` with `H_r - diag(d_r)` positive semidefinite and `d > 0`; None for the plain model.
    """
    problem = part.problem
    m, n = problem.W.shape
    H = np.stack([problem.hessian.dense(r) for r in range(m)])
    unit = max(part.value, WIDENING * problem.scale, np.finfo(float).tiny)
    size = np.sqrt(np.diagonal(H, axis1=1, axis2=2))
    balanced = (H / (size[:, :, None] * size[:, None, :]))[: 1 if problem.hessian.shared else m]
    inverse = np.linalg.inv(balanced)
    condition = float(
        (np.abs(balanced).sum(axis=1).max(axis=1) * np.abs(inverse).sum(axis=1).max(axis=1)).max()
    )
    variance = np.diagonal(inverse, axis1=1, axis2=2) / size**2
    scale = np.sqrt(unit * variance)
    split = np.zeros((m, n)) if d is None else d
    R = scale[:, :, None] * (H - split[:, :, None] * np.eye(n)) * scale[:, None, :] / unit
    a = problem.W / scale
    rounding = n * float(np.finfo(np.float64).eps) * condition
    radius = np.sqrt(2.0) * (1.0 + 1e-6 + rounding)
    kept = np.abs(a) > radius
    if problem.pools.coupled:
        kept = kept.any(axis=0, keepdims=True)
    return JointModel(unit, scale, a, R, split * scale**2 / unit, a - radius, a + radius, kept, rounding)


def selection_model(part: Part, d: Array | None) -> SelectionModel:
    """The selection model of a part, plain or with a split `d [b, n]` of its `A`."""
    quadratic = binary_quadratic(part.problem)
    unit = max(abs(part.value), WIDENING * part.problem.scale, np.finfo(float).tiny)
    split = np.zeros(quadratic.c.shape) if d is None else d
    R = quadratic.A - split[:, :, None] * np.eye(split.shape[1])
    linear = (0.5 * split - quadratic.c) / unit
    pools = part.problem.pools
    least, top = float(linear[pools.smallest(linear)].sum()), part.value / unit
    reach = 2.0 * (top - least) + 1e-6 * (1.0 + abs(top) + abs(least))
    return SelectionModel(unit, R / unit, linear, reach, float(quadratic.rounding.sum()))


def factor(R: Array) -> Array:
    """`L [k, n]` with `L'L = R` up to eigenvalues too small to matter, which are left out."""
    values, vectors = scipy.linalg.eigh(R)
    used = values > TINY * max(values[-1], 0.0)
    return np.asarray(np.sqrt(values[used])[:, None] * vectors[:, used].T)


def rounded(problem: SubsetProblem, pruned: NDArray[np.float64]) -> Mask:
    """The mask that meets the budget and prunes where the indicators `[b, n]` are largest."""
    return problem.pools.expand(problem.pools.smallest(-pruned), problem.m)
