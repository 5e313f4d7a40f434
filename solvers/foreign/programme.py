"""The plain and the strengthened model as matrices, which is how most foreign solvers and files take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from solvers.foreign.models import JointModel, SelectionModel, factor, rounded
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem

TOUCH = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Where the first tangents touch, from the scaled weight; survivors lie within sqrt 2 of it."""
SHORT = 1e-8
"""How much too small a square may be in a solution that is accepted."""
LEAST = 1e-3
"""Smaller indicators give no tangents."""


@dataclass(frozen=True)
class Programme:
    """A mixed-integer programme over `x [N]`, convex but for its integers.

    Minimise `1/2 x'Qx + c.x + constant` over

        A x = b on the first `equalities` rows, A x <= b on the others,   lower <= x <= upper,
        x_v^2 <= x_s x_z for every cone (v, s, z),   x_i binary for i < decisions.size

    Attributes:
        Q: `[N, N]` symmetric.
        c: `[N]`.
        constant: what the objective is at the origin.
        A: `[rows, N]`.
        b: `[rows]`.
        equalities: number of equality rows.
        lower: `[N]`.
        upper: `[N]`.
        cones: `[K, 3]` variables (v, s, z), the rotated cones of the perspective; `[0, 3]` if plain.
        centres: `[K]` the middle of what v may be where z is 1.
        decisions: `[b, n]` the binary variables, which are the first ones.
        sign: 1 if the decisions say pruned, -1 if they say kept.
        start: `[N]` the incumbent.
        names: of the variables: `z`, `v`, `s` or `x`, row and column, and `y` of a factored programme.
    """

    Q: sp.csr_array
    c: Array
    constant: float
    A: sp.csr_array
    b: Array
    equalities: int
    lower: Array
    upper: Array
    cones: NDArray[np.int64]
    centres: Array
    decisions: NDArray[np.int64]
    sign: int
    start: Array
    names: tuple[str, ...]

    @property
    def binary(self) -> NDArray[np.bool_]:
        """`[N]` which variables are binary."""
        return np.arange(len(self.c)) < self.decisions.size

    def tangents(self, x: Array) -> tuple[sp.csr_array, Array]:
        """Rows `A x <= b` that hold on every cone and cut off a point `x [N]` beyond it.

        They are the perspective's tangents, `s >= 2 t v - t^2 z` at `t = v / z` (Frangioni & Gentile
        2006). Given the cones themselves, Gurobi 13 and CPLEX 22 claimed bounds up to 1e-3 above the
        optimum of small problems; given tangents, at most 1e-9.
        """
        V, S, Z = x[self.cones].T
        t = V / np.maximum(Z, LEAST)
        short = (2.0 * t * V - t * t * Z - S > SHORT) & (Z >= LEAST)
        return self._touching(np.flatnonzero(short), t[short])

    def first_tangents(self) -> tuple[sp.csr_array, Array]:
        """A few tangents of every cone, spread over where its weight may lie; as `tangents`."""
        every = np.arange(len(self.cones))
        rows = [self._touching(every, self.centres + offset) for offset in TOUCH]
        return sp.csr_array(sp.vstack([A for A, _ in rows])), np.concatenate([b for _, b in rows])

    def _touching(self, cones: NDArray[np.int64], t: Array) -> tuple[sp.csr_array, Array]:
        values = np.stack([2.0 * t, -np.ones(len(t)), -t * t], axis=1)
        row = np.repeat(np.arange(len(t), dtype=np.int32), 3)
        where = (row, self.cones[cones].ravel().astype(np.int32))
        return sp.csr_array((values.ravel(), where), shape=(len(t), len(self.c))), np.zeros(len(t))

    def mask(self, problem: SubsetProblem, x: Array) -> Mask:
        """The mask of the budget that is nearest to a point `x [N]`."""
        return rounded(problem, self.sign * x[self.decisions])


def programme(
    model: JointModel | SelectionModel, problem: SubsetProblem, incumbent: Mask, *, factored: bool = False
) -> Programme:
    """The matrices of a model's numbers, with the incumbent to start from.

    Args:
        model: of `problem`, see `solvers.foreign.models`.
        problem: one part, which gives the pools.
        incumbent: `[m, n]` a mask of its budget, and the one that the model was scaled by.
        factored: whether `Q` is made an identity by variables `y = L (v - a)` with `L'L = R`: more
            variables and rows, but no differences of large numbers in the objective.
    """
    if isinstance(model, JointModel):
        matrices = _joint(model, problem, incumbent)
        blocks = [(factor(R), a) for R, a in zip(model.R, model.a, strict=True)]
        first = matrices.decisions.size
    else:
        matrices = _selection(model, problem, incumbent)
        blocks = [(factor(R), np.zeros(len(R))) for R in model.R]
        first = 0
    return _factored(matrices, blocks, first) if factored else matrices


def size(
    problem: SubsetProblem, strengthened: bool, *, factored: bool = False, tangents: bool = False
) -> tuple[int, int]:
    """The most variables, and the most rows and cones, of a part's programme, without building it.

    Args:
        problem: the whole problem.
        strengthened: whether its model has a split.
        factored: as in `programme`.
        tangents: whether the first tangents take the place of cones.
    """
    together = problem.budget.kind == "per_layer" or problem.pools.coupled
    pools = len(problem.pools.prune) if together else -(-len(problem.pools.prune) // problem.m)
    decisions = problem.n * (problem.m if problem.budget.kind == "per_layer" else 1)
    weights = problem.n * (problem.m if together else 1)
    extra = weights if factored else 0
    if not problem.refit:
        return decisions + min(extra, decisions), pools + min(extra, decisions)
    cones = (len(TOUCH) if tangents else 1) if strengthened else 0
    return (
        decisions + (2 if strengthened else 1) * weights + extra,
        pools + (2 + cones) * weights + extra,
    )


def _joint(model: JointModel, problem: SubsetProblem, incumbent: Mask) -> Programme:
    """Variables kept z, scaled weights v, and the squares s of the entries that have a split."""
    m, n = problem.W.shape
    pools = problem.pools
    z = np.arange(pools.labels.size).reshape(pools.labels.shape)
    v = z.size + np.arange(m * n).reshape(m, n)
    split = model.d > 0.0
    s = np.full((m, n), -1)
    s[split] = z.size + v.size + np.arange(split.sum())
    keep = np.broadcast_to(z, (m, n))
    N = int(z.size + v.size + split.sum())

    Q = sp.block_diag([sp.csr_array((z.size, z.size)), *model.R, sp.csr_array((split.sum(), split.sum()))])
    Q = 0.5 * (Q + Q.T)  # scaling has rounded the two halves apart
    c = np.zeros(N)
    c[v] = -np.einsum("rij,rj->ri", model.R, model.a) - model.d * model.a
    c[s[split]] = 0.5 * model.d[split]
    constant = 0.5 * float(np.einsum("ri,rij,rj->", model.a, model.R, model.a) + (model.d * model.a**2).sum())
    A = sp.vstack(
        [
            _counts(problem, z, N),
            _pairs(v, 1.0, keep, -model.high, N),  # v <= high z
            _pairs(v, -1.0, keep, model.low, N),  # v >= low z
        ]
    )
    b = np.concatenate([pools.keep.astype(np.float64), np.zeros(2 * v.size)])
    lower, upper = np.zeros(N), np.ones(N)
    lower[z] = model.kept
    lower[v], upper[v] = np.minimum(model.low, 0.0), np.maximum(model.high, 0.0)
    upper[s[split]] = model.largest_square[split]
    start = np.zeros(N)
    start[z] = ~pools.decisions(incumbent)
    start[v] = np.where(incumbent, 0.0, problem.weights(incumbent) / model.scale)
    start[s[split]] = start[v[split]] ** 2
    cones = np.stack([v[split], s[split], keep[split]], axis=1)
    return Programme(
        sp.csr_array(Q), c, constant, sp.csr_array(A), b, len(pools.keep), lower, upper,
        cones, model.a[split], z, -1, start,
        _named("z", np.ones(z.shape, bool)) + _named("v", np.ones((m, n), bool)) + _named("s", split),
    )  # fmt: skip


def _selection(model: SelectionModel, problem: SubsetProblem, incumbent: Mask) -> Programme:
    """Variables pruned x alone."""
    pools = problem.pools
    x = np.arange(pools.labels.size).reshape(pools.labels.shape)
    Q = sp.block_diag(list(model.R))
    return Programme(
        Q=sp.csr_array(0.5 * (Q + Q.T)),
        c=model.linear.ravel(),
        constant=0.0,
        A=_counts(problem, x, x.size),
        b=pools.prune.astype(np.float64),
        equalities=len(pools.prune),
        lower=np.zeros(x.size),
        upper=np.ones(x.size),
        cones=np.zeros((0, 3), dtype=np.int64),
        centres=np.zeros(0),
        decisions=x,
        sign=1,
        start=pools.decisions(incumbent).astype(np.float64).ravel(),
        names=_named("x", np.ones(x.shape, bool)),
    )


def _factored(matrices: Programme, blocks: Sequence[tuple[Array, Array]], first: int) -> Programme:
    """With each `1/2 (x_b - a_b)' L_b'L_b (x_b - a_b)`, blocks from variable `first` on, as `1/2 |y_b|^2`."""
    N = len(matrices.c)
    L = sp.csr_array(sp.block_diag([L for L, _ in blocks]))
    K, n = L.shape
    a = np.concatenate([a for _, a in blocks])
    where = slice(first, first + n)
    origin = np.zeros(N)
    origin[where] = a
    spread = sp.hstack([sp.csr_array((K, first)), L, sp.csr_array((K, N - first - n)), -sp.eye_array(K)])
    wider = sp.hstack([matrices.A, sp.csr_array((matrices.A.shape[0], K))]).tocsr()
    cut = matrices.equalities
    free = np.full(K, np.inf)
    return replace(
        matrices,
        Q=sp.csr_array(sp.block_diag([sp.csr_array((N, N)), sp.eye_array(K)])),
        c=np.concatenate([matrices.c + matrices.Q @ origin, np.zeros(K)]),
        constant=matrices.constant - 0.5 * float(origin @ (matrices.Q @ origin)),
        A=sp.csr_array(sp.vstack([wider[:cut], spread, wider[cut:]])),
        b=np.concatenate([matrices.b[:cut], L @ a, matrices.b[cut:]]),
        equalities=cut + K,
        lower=np.concatenate([matrices.lower, -free]),
        upper=np.concatenate([matrices.upper, free]),
        start=np.concatenate([matrices.start, L @ (matrices.start[where] - a)]),
        names=matrices.names + tuple(f"y_{k}" for k in range(K)),
    )


def _named(letter: str, entries: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(f"{letter}_{r}_{i}" for r, i in np.argwhere(entries).tolist())


def _counts(problem: SubsetProblem, decisions: NDArray[np.int64], N: int) -> sp.csr_array:
    """Rows `sum_pool decisions`, one a pool."""
    labels = problem.pools.labels
    shape = (len(problem.pools.prune), N)
    return sp.csr_array((np.ones(labels.size), (labels.ravel(), decisions.ravel())), shape=shape)


def _pairs(
    v: NDArray[np.int64], sign: float, z: NDArray[np.int64], slope: NDArray[np.float64], N: int
) -> sp.csr_array:
    """Rows `sign v_i + slope_i z_i`, one an entry."""
    rows = np.arange(v.size)
    values = np.concatenate([np.full(v.size, sign), slope.ravel()])
    where = (np.concatenate([rows, rows]), np.concatenate([v.ravel(), z.ravel()]))
    return sp.csr_array((values, where), shape=(v.size, N))
