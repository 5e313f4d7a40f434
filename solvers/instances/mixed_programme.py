"""Mixed-integer quadratic programmes as files of others have them, and when one is a selection problem.

Minimise (or maximise)

    1/2 x'Qx + c.x + constant    over    row_lower <= A x + 1/2 x'Q_r x <= row_upper,   lower <= x <= upper

with some variables whole numbers. A programme over binary variables alone, with a convex objective and rows
that count the variables of disjoint pools, is a selection problem: `x = 1` prunes a weight of 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

from solvers.budget import Budget
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem

MOST = 20_000
"""Variables of a programme of which a problem is made: its curvature is a dense matrix."""


@dataclass(frozen=True, eq=False)
class MixedProgramme:
    """A mixed-integer programme with a quadratic objective.

    Attributes:
        name: of the programme.
        Q: `[N, N]` symmetric; the objective has half of it.
        c: `[N]`.
        constant: of the objective.
        A: `[rows, N]`.
        row_lower: `[rows]`, minus infinity where there is no limit.
        row_upper: `[rows]`.
        lower: `[N]`.
        upper: `[N]`.
        whole: `[N]` True where a variable is a whole number.
        maximise: whether the objective is to be large.
        quadratic: `Q_r` of rows that have a quadratic part, by row.
        start: `[N]` the starting point.
        names: of the variables.
    """

    name: str
    Q: sp.csr_array = field(repr=False)
    c: Array = field(repr=False)
    constant: float
    A: sp.csr_array = field(repr=False)
    row_lower: Array = field(repr=False)
    row_upper: Array = field(repr=False)
    lower: Array = field(repr=False)
    upper: Array = field(repr=False)
    whole: Mask = field(repr=False)
    maximise: bool = False
    quadratic: dict[int, sp.csr_array] = field(default_factory=dict, repr=False)
    start: Array | None = field(default=None, repr=False)
    names: tuple[str, ...] = field(default=(), repr=False)

    def objective(self, x: Array) -> float:
        """`1/2 x'Qx + c.x + constant` at `x [N]`."""
        return float(0.5 * (x @ (self.Q @ x)) + self.c @ x + self.constant)

    def rows(self, x: Array) -> Array:
        """`[rows]` what the constraints say at `x [N]`."""
        values = np.asarray(self.A @ x, dtype=np.float64)
        for row, Q in self.quadratic.items():
            values[row] += 0.5 * float(x @ (Q @ x))
        return values

    def violation(self, x: Array) -> float:
        """By how much `x [N]` misses a limit, a row or a whole number, at most; 0 if it is feasible."""
        values = self.rows(x)
        misses = [
            np.zeros(1), self.lower - x, x - self.upper, self.row_lower - values, values - self.row_upper,
            np.abs(x - np.round(x))[self.whole],
        ]  # fmt: skip
        return float(max(np.max(miss, initial=0.0) for miss in misses))

    def selection(self) -> SubsetProblem:
        """The selection problem that this programme is, in the units of its objective but for a constant.

        Variables that are fixed are put in. Weights are 1, so that `problem.value(mask)` is the objective at
        `x = mask`, in the order of the variables, less the objective at zero. One pool is a budget of a row,
        several are one of pools.

        Raises:
            ValueError: in one line, what keeps it from being one.
        """
        if self.maximise:
            raise ValueError(f"{self._what}: it maximises; a selection problem minimises")
        if self.quadratic:
            raise ValueError(f"{self._what}: it has quadratic constraints")
        fixed = self.lower == self.upper
        free = ~fixed
        if not free.any():
            raise ValueError(f"{self._what}: all of its variables are fixed")
        if not (self.whole & (self.lower == 0.0) & (self.upper == 1.0))[free].all():
            odd = int(np.flatnonzero(free & ~(self.whole & (self.lower == 0.0) & (self.upper == 1.0)))[0])
            raise ValueError(
                f"{self._what}: variable {self._named(odd)} is not binary, without the weights of an instance"
            )
        if free.sum() > MOST:
            raise ValueError(f"{self._what}: it has {free.sum()} variables; at most {MOST} are taken")
        at = np.where(fixed, self.lower, 0.0)
        H = sp.csr_array(self.Q)[free][:, free].toarray()
        c = (self.c + self.Q @ at)[free]
        labels, counts = self._pools(free, at)
        n = int(free.sum())
        gradient = -c[None] if c.any() else None
        try:
            return SubsetProblem(np.ones((1, n)), H, _budget(labels, counts), refit=False, gradient=gradient)
        except ValueError as error:
            raise ValueError(f"{self._what}: {error}") from None

    def _pools(self, free: Mask, at: Array) -> tuple[Array, list[int]]:
        """The pool of every free variable, and how many of each are 1."""
        A = sp.csr_array(self.A)
        labels = np.full(len(self.c), -1)
        counts: list[int] = []
        for row in range(A.shape[0]):
            part = slice(*A.indptr[row : row + 2])
            used = A.indices[part][(A.data[part] != 0.0) & free[A.indices[part]]]
            values = A.data[part][(A.data[part] != 0.0) & free[A.indices[part]]]
            spent = float(A[[row]].toarray()[0] @ at)
            low, high = self.row_lower[row] - spent, self.row_upper[row] - spent
            if not len(used):
                if low > 1e-9 or high < -1e-9:
                    raise ValueError(f"{self._what}: row {row + 1} can't be met")
                continue
            count = low / values[0]
            if low != high or (values != values[0]).any() or not float(count).is_integer():
                raise ValueError(
                    f"{self._what}: row {row + 1} does not count the variables of a pool; it must be a sum "
                    "of variables that equals a whole number"
                )
            if (labels[used] >= 0).any():
                raise ValueError(
                    f"{self._what}: row {row + 1} shares variables with another; pools are apart"
                )
            if not 0 <= count <= len(used):
                raise ValueError(f"{self._what}: row {row + 1} asks for {count:g} of {len(used)} variables")
            labels[used] = len(counts)
            counts.append(int(count))
        if (lone := free & (labels < 0)).any():
            raise ValueError(
                f"{self._what}: no row counts variable {self._named(int(np.flatnonzero(lone)[0]))}; a "
                "budget counts all"
            )
        return labels[free], counts

    @property
    def _what(self) -> str:
        return f"programme {self.name!r} is no subset-selection problem"

    def _named(self, index: int) -> str:
        return repr(self.names[index]) if self.names else f"x{index + 1}"


def _budget(labels: Array, counts: list[int]) -> Budget:
    if len(counts) == 1:
        return Budget.per_row(counts[0])
    sizes = np.bincount(labels)
    return Budget.pools(labels.tolist(), (sizes - np.array(counts)).tolist())
