"""A layer as tensors for searches of all rows at once: one curvature, scaled so that weights compare."""

from __future__ import annotations

from copy import copy
from functools import cached_property

import numpy as np

from solvers.problem import Mask, SubsetProblem
from solvers.runtime.tensors import Tensor, torch

JITTER = 1e-5
"""Added to the diagonal, relative, of a curvature that single precision can't tell from a singular one."""
FEW = 8
"""Entries of a group up to which comparing all pairs beats a partial sort."""


class Layer:
    """A joint problem with a shared curvature, in single precision on a device.

    With scales `s [n]` the weights are `w s` and the curvature `H / (s s')`, which leaves costs as they are.
    `s_j^2 = H_jj` by default: a unit diagonal. With `leveled`, `s_j^2 = H_jj / c_j^a`, where `c_j = H_jj
    [H^-1]_jj` and the exponent is such that `c_j^a` is, over a random set S of as many entries as a row
    keeps, on average (of logarithms) `H_jj [H_SS^-1]_jj`: then the cost of pruning one of S is about
    `(w_j s_j)^2 / 2`, whichever the entry.

    Args:
        problem: reduced, joint, with a shared Hessian.
        device: torch device.
        leveled: whether scales go by what pruning an entry costs, or by the diagonal.

    Attributes:
        H: `[n, n]`.
        W: `[m, n]`.
    """

    def __init__(self, problem: SubsetProblem, device: str = "cpu", *, leveled: bool = False) -> None:
        scale, unit = problem.hessian.unit
        self.pools, self.kind, self.of = problem.pools, problem.budget.kind, problem.budget.of
        self.device = torch.device(device)
        self.H = torch.tensor(unit, device=self.device)
        self.W = torch.as_tensor(problem.W / scale, dtype=torch.float32, device=self.device)
        self.m, self.n = self.W.shape
        self._prune = torch.as_tensor(self.pools.prune, device=self.device)
        self._alike = bool((self.pools.prune == self.pools.prune[0]).all())
        if leveled:
            L = cholesky(self.H)
            share = self.pools.keep.sum() / self.pools.labels.size
            factor = _leveling(self.H, L, share)
            self.H = self.H.div_(factor[:, None]).div_(factor)
            self.W = self.W * factor
            self.mean_eigenvalue = _mean_eigenvalue(L) / float((2.0 * factor.log().mean()).exp())

    def part(self, rows: slice) -> Layer:
        """Some rows of it, where pools lie within rows; all of it shares the curvature."""
        part = copy(self)
        part.W = self.W[rows]
        part.m = len(part.W)
        if self.kind == "per_row":
            part._prune = self._prune[rows]
        return part

    @cached_property
    def mean_eigenvalue(self) -> float:
        """Geometric mean of the eigenvalues of `H`."""
        return _mean_eigenvalue(cholesky(self.H))

    def inverse(self) -> Tensor:
        """`[n, n]` inverse of `H`."""
        return torch.cholesky_inverse(cholesky(self.H))

    def pick(self, scores: Tensor, rows: Tensor | None = None) -> Tensor:
        """`[m, n]` bool: the entries of least score of every pool, as many as it prunes.

        Args:
            scores: `[m, n]`; for budgets on columns the rows' are added up.
            rows: which rows `scores` has, where pools lie within rows; all by default.
        """
        count = int(self._prune[0])
        if self.kind == "columns":
            return _least(scores.sum(0, keepdim=True), count).expand_as(scores).contiguous()
        if self.kind == "per_layer":
            return _least(scores.reshape(1, -1), count).view_as(scores)
        if self.kind == "n_of_m":
            assert self.of is not None
            groups = scores.reshape(-1, self.of)
            return (_few_least if self.of <= FEW else _least)(groups, count).view_as(scores)
        if self._alike:
            return _least(scores, count)
        return least(scores, self._prune if rows is None else self._prune[rows])

    def mask(self, pruned: Tensor) -> Mask:
        """The mask as the problem takes it."""
        return np.array(pruned.cpu().numpy())

    def pruned(self, mask: Mask) -> Tensor:
        """A problem's mask on the device."""
        return torch.as_tensor(np.array(mask), device=self.device)


def suits(problem: SubsetProblem) -> str | None:
    """Why a problem is not a `Layer`, or None."""
    if not problem.hessian.shared:
        return "it works on all rows at once, and needs one hessian that they share"
    return None


def least(scores: Tensor, counts: Tensor) -> Tensor:
    """`[m, n]` bool: in every row the `counts[r]` entries of least score (ties: lowest index)."""
    order = scores.argsort(dim=1, stable=True)
    places = torch.arange(scores.shape[1], device=scores.device) < counts[:, None]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, places)


def cholesky(H: Tensor) -> Tensor:
    """The lower factor of a curvature; what rounding to single precision made indefinite gets a jitter.

    Raises:
        ValueError: if no jitter below the diagonal itself makes it definite, as with NaN.
    """
    L: Tensor
    jitter = JITTER
    L, failed = torch.linalg.cholesky_ex(H)
    while bool(failed):
        if jitter > 1.0:
            raise ValueError("hessian is too close to singular for single precision; add damping")
        H = H.clone()
        H.diagonal().mul_(1.0 + jitter)
        L, failed = torch.linalg.cholesky_ex(H)
        jitter *= 8.0
    return L


def _mean_eigenvalue(L: Tensor) -> float:
    return float((2.0 * L.diagonal().log().mean()).exp())


def _leveling(unit: Tensor, L: Tensor, share: float) -> Tensor:
    """The factors `c^(-a/2)` of a curvature with unit diagonal and factor L."""
    n = len(unit)
    inverse = torch.cholesky_inverse(L).diagonal()
    kept = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: max(1, round(share * n))]
    kept = kept.to(unit.device)
    own = torch.cholesky_inverse(cholesky(unit[kept][:, kept])).diagonal()
    whole = float(inverse[kept].log().sum())
    exponent = min(max(float(own.log().sum()) / whole, 0.0), 1.0) if whole > 0 else 0.0
    return inverse ** (-0.5 * exponent)


def _least(scores: Tensor, count: int) -> Tensor:
    """Exactly `count` least of every row of `scores`."""
    if count == 0 or count == scores.shape[1]:
        return torch.full_like(scores, count > 0, dtype=torch.bool)
    if scores.device.type == "cpu":  # NumPy's selection is several times torch's
        edge = np.partition(scores.numpy(), count - 1, axis=1)[:, count - 1 : count]
        chosen = scores <= torch.from_numpy(np.ascontiguousarray(edge))
        if int(chosen.sum()) == count * len(scores):
            return chosen
    index = scores.topk(count, dim=1, largest=False, sorted=False).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, index, True)


def _few_least(scores: Tensor, count: int) -> Tensor:
    """The same for rows of a few entries: those that fewer than `count` others come before."""
    columns = scores.unbind(1)
    chosen = torch.empty_like(scores, dtype=torch.bool)
    for i, own in enumerate(columns):
        before = torch.zeros_like(own, dtype=torch.int8)
        for j, other in enumerate(columns):
            if j != i:
                before += other <= own if j < i else other < own
        chosen[:, i] = before < count
    return chosen


def residual(H: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """`[m, n]` what is left to explain, `(w0 - w) H`; zero on the survivors of a refitted row.

    Args:
        H: `[n, n]`.
        target: `w0 [m, n]`.
        weights: `w [m, n]`.
    """
    return (target - weights) @ H


def row_costs(target: Tensor, weights: Tensor, left: Tensor) -> Tensor:
    """`[m]` costs `1/2 (w0 - w) H (w0 - w)'` of rows whose `residual` is `left`."""
    return 0.5 * ((target - weights) * left).sum(1)


def refit(
    H: Tensor, kept: Tensor, weights: Tensor, left: Tensor, *, steps: int, tolerance: float = 1e-4
) -> tuple[Tensor, Tensor]:
    """Move every row's survivors towards `min 1/2 (w0 - w) H (w0 - w)'`, all rows in one product a step.

    Conjugate gradients on `H_SS w_S = (H w0)_S`, S the survivors of the row (ALPS, Meng et al. 2024, section
    3.2). On a curvature of unit diagonal this is the method with Jacobi's preconditioner. The full residual
    follows from the same products, so that the pull on the pruned entries comes for nothing.

    Args:
        H: `[n, n]`, positive definite.
        kept: `[m, n]` bool.
        weights: `w [m, n]` to start from, zero where pruned.
        left: `residual` of `weights`.
        steps: most steps.
        tolerance: of the residual on the survivors, relative to the first one of the whole row.

    Returns:
        Weights and their `residual`.
    """
    on = kept.to(weights.dtype)
    gap = left * on
    direction = gap
    size = (gap * gap).sum(1, keepdim=True)
    goal = tolerance**2 * (left * left).sum(1, keepdim=True)
    for _ in range(steps):
        if bool((size <= goal).all()):
            break
        image = direction @ H
        along = (direction * image).sum(1, keepdim=True)
        step = torch.where(size > 0, size / along.clamp_min(torch.finfo(along.dtype).tiny), 0.0)
        weights = torch.addcmul(weights, step, direction)
        left = torch.addcmul(left, step, image, value=-1.0)
        gap = left * on
        before, size = size, (gap * gap).sum(1, keepdim=True)
        direction = torch.addcmul(gap, size / before.clamp_min(torch.finfo(before.dtype).tiny), direction)
    return weights, left
