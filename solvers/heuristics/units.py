"""Units of neighbouring columns that all rows keep or prune together: block pivots and block swaps.

A unit is one column, or the `width` columns that one neuron feeds: the places of a convolution's kernel, or
of a map that was flattened. The state is the inverse of the kept part of the curvature and the refitted
weights; a unit that goes or comes back changes both by a matrix of rank `width` (block elimination, Sherman,
Morrison and Woodbury), and the costs of all units, or of all swaps with one, come from these in closed form.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg

from solvers.budget import UNITS
from solvers.hessian import Array
from solvers.problem import Mask, SubsetProblem

FRESH = 60
"""Pivots between two fresh factorisations."""


def unsuitable(problem: SubsetProblem) -> str | None:
    """Why units of a reduced problem can't be searched with this state, or None."""
    if problem.hessian.implicit:
        return "its columns are too many for a matrix; take swapping"
    if not problem.refit:
        return "units of columns are pruned in the joint variant only, where survivors move"
    if not problem.hessian.shared:
        return "units of columns need one curvature that all rows share"
    return None


def unfit_for_units(problem: SubsetProblem) -> str | None:
    """`unsuitable`, of problems whose budget is in units wider than one column."""
    return unsuitable(problem) if problem.budget.kind == UNITS else None


class Units:
    """Kept and pruned units of a joint problem of one curvature, with what every move would cost.

    With S the kept columns, `K = (H_SS)^-1` (zero elsewhere) and refitted weights `V = K (H W')_S [n, m]`,

        prune the kept unit b      + 1/2 tr(V_b' K_bb^-1 V_b)
        restore the pruned unit a  - 1/2 tr(R' Z^-1 R),   R = (H W')_a - H_aS V,   Z = H_aa - H_aS K H_Sa

    for lone columns the saliencies of Hassibi & Stork (1992), summed over rows.

    Args:
        problem: reduced, joint, with one curvature and a budget of columns.
        pruned: `[n]` columns to start from, whole units.

    Attributes:
        gone: `[units]` True where pruned.
        cost: of the units that are gone.
        pivots: moves made.
    """

    def __init__(self, problem: SubsetProblem, pruned: Mask) -> None:
        self.width = problem.pools.width
        self.H, self.W = problem.hessian.dense(0), problem.W
        self.B = self.H @ self.W.T
        self._whole = 0.5 * float(np.einsum("rj,jr->", self.W, self.B))
        self.gone: Mask = pruned.reshape(-1, self.width)[:, 0].copy()
        self.pivots = 0
        self.refresh()

    @property
    def pruned(self) -> Mask:
        """`[n]` columns pruned now."""
        return np.repeat(self.gone, self.width)

    def refresh(self) -> None:
        """Compute the state from the data, dropping whatever rounding the pivots have gathered."""
        kept = np.flatnonzero(~self.pruned)
        self.K, self.V = np.zeros(self.H.shape), np.zeros(self.B.shape)
        if kept.size:
            factor = scipy.linalg.cho_factor(self.H[np.ix_(kept, kept)], lower=True)
            self.K[np.ix_(kept, kept)] = scipy.linalg.cho_solve(factor, np.eye(kept.size))
            self.V[kept] = scipy.linalg.cho_solve(factor, self.B[kept])
        self.cost = self._whole - 0.5 * float((self.B * self.V).sum())

    def prices(self) -> Array:
        """`[units]` what pruning each of the kept ones would cost; infinite for those that are gone."""
        found = np.full(len(self.gone), np.inf)
        kept = np.flatnonzero(~self.gone)
        if kept.size:
            K, V = self._diagonal(kept), self._weights(kept)
            found[kept] = _half_traces(K, V @ V.transpose(0, 2, 1))
        return found

    def gains(self) -> Array:
        """`[units]` what restoring each of the pruned ones would win; minus infinity for the kept."""
        found = np.full(len(self.gone), -np.inf)
        for a in np.flatnonzero(self.gone):
            _, inverse, R = self._restoring(int(a))
            found[a] = 0.5 * float((R * (inverse @ R)).sum())
        return found

    def prune(self, unit: int) -> None:
        """Prune a kept unit."""
        b = self._columns(unit)
        across = self.K[:, b].copy()
        step = scipy.linalg.solve(self.K[b, b], np.hstack([across.T, self.V[b]]), assume_a="pos")
        self.cost += 0.5 * float((self.V[b] * step[:, len(self.K) :]).sum())
        self.V -= across @ step[:, len(self.K) :]
        self.K -= across @ step[:, : len(self.K)]
        self.K[b], self.K[:, b], self.V[b] = 0.0, 0.0, 0.0
        self.gone[unit] = True
        self._count()

    def restore(self, unit: int) -> None:
        """Bring back a pruned unit."""
        a = self._columns(unit)
        Z, inverse, R = self._restoring(unit)
        self.cost -= 0.5 * float((R * (inverse @ R)).sum())
        self.K += Z @ inverse @ Z.T
        self.K[:, a], self.K[a] = -Z @ inverse, -inverse @ Z.T
        self.K[a, a] = inverse
        self.V -= Z @ (inverse @ R)
        self.V[a] = inverse @ R
        self.gone[unit] = False
        self._count()

    def prune_cheapest(self, count: int, stopped: Callable[[], object] = lambda: None) -> None:
        """Prune so many units in turn, each the cheapest; once stopped, the rest at once."""
        for left in range(count, 0, -1):
            prices = self.prices()
            if stopped():
                self.gone[np.argsort(prices, kind="stable")[:left]] = True
                self.refresh()
                return
            self.prune(int(prices.argmin()))

    def swap(self, candidates: int, gain: float, stopped: Callable[[], object] = lambda: None) -> bool:
        """Make the best swap of a kept unit for one of some pruned ones; whether it gains more than `gain`.

        Args:
            candidates: how many of the pruned units are tried, those that would win most if restored.
            gain: what a swap must gain.
            stopped: polled between them; a true answer ends the search.
        """
        wins, kept = self.gains(), np.flatnonzero(~self.gone)
        best, pair = -gain, None
        for a in np.argsort(-wins, kind="stable")[: min(candidates, int(self.gone.sum()))]:
            if stopped() or not kept.size:
                break
            changes = self._swaps(int(a), kept) - wins[a]
            if changes.min() < best:
                best, pair = float(changes.min()), (int(a), int(kept[changes.argmin()]))
        if pair is None:
            return False
        self.restore(pair[0])
        self.prune(pair[1])
        return True

    def descend(self, candidates: int, gain: float, stopped: Callable[[], object], most: int) -> int:
        """Swap until none gains more than `gain` of the cost, or so many were made; how many were."""
        made = 0
        while made < most and not stopped() and self.swap(candidates, gain * abs(self.cost), stopped):
            made += 1
        return made

    def _swaps(self, a: int, kept: np.ndarray) -> Array:
        """`[kept]` what pruning each of the kept units would cost after unit `a` has come back."""
        Z, inverse, R = self._restoring(a)
        block = Z.reshape(-1, self.width, self.width)[kept]
        Y = inverse @ R
        K = self._diagonal(kept) + block @ inverse @ block.transpose(0, 2, 1)
        V = self._weights(kept) - block @ Y
        return _half_traces(K, V @ V.transpose(0, 2, 1))

    def _restoring(self, unit: int) -> tuple[Array, Array, Array]:
        """`K H_Sa`, the inverse of the Schur complement `Z`, and the pull `R` of a pruned unit."""
        a = self._columns(unit)
        Z = self.K @ self.H[:, a]
        inverse = np.linalg.inv(self.H[a, a] - self.H[a] @ Z)
        return Z, 0.5 * (inverse + inverse.T), self.B[a] - self.H[a] @ self.V

    def _columns(self, unit: int) -> slice:
        return slice(unit * self.width, (unit + 1) * self.width)

    def _diagonal(self, units: np.ndarray) -> Array:
        """`[units, width, width]` diagonal blocks of K."""
        K = self.K.reshape(len(self.gone), self.width, len(self.gone), self.width)
        return np.asarray(K[units, :, units, :])

    def _weights(self, units: np.ndarray) -> Array:
        """`[units, width, m]` refitted weights."""
        return np.asarray(self.V.reshape(len(self.gone), self.width, -1)[units])

    def _count(self) -> None:
        self.pivots += 1
        if self.pivots % FRESH == 0:
            self.refresh()


def _half_traces(K: Array, squares: Array) -> Array:
    """`[units]` of `1/2 tr(K_b^-1 S_b)`."""
    if K.shape[-1] == 1:
        return np.asarray(0.5 * squares[:, 0, 0] / K[:, 0, 0])
    return np.asarray(0.5 * np.trace(np.linalg.solve(K, squares), axis1=1, axis2=2))


def greedy_curve(
    problem: SubsetProblem, keep: int = 0, stopped: Callable[[], object] = lambda: None
) -> Array:
    """`[units + 1 - keep]` what the greedy rule's units cost after each of them, from none pruned.

    Args:
        problem: as `Units` takes them; its count does not matter.
        keep: units that stay to the last.
        stopped: polled before each; once true, the units left are priced as they are at that point.
    """
    units = Units(problem, np.zeros(problem.n, dtype=bool))
    costs = [units.cost]
    while len(costs) < len(units.gone) + 1 - keep:
        prices = units.prices()
        if stopped():
            rest = np.sort(prices[np.isfinite(prices)])
            costs += (costs[-1] + np.cumsum(rest)).tolist()
            break
        units.prune(int(prices.argmin()))
        costs.append(units.cost)
    return np.asarray(np.maximum(costs[: len(units.gone) + 1 - keep], 0.0))
