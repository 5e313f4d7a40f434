"""The semidefinite relaxation in CVXPY with Clarabel: the best split and point in one programme."""

from __future__ import annotations

import importlib
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from solvers.allocation import allocation_value
from solvers.bounds.evaluate import ROUNDING, lower_bound, relaxed_point
from solvers.bounds.node.newton import relaxed_shares
from solvers.bounds.secure import secure
from solvers.bounds.split import Split
from solvers.control import Control
from solvers.form.blocks import Block, blocks
from solvers.hessian import Array
from solvers.heuristics.greedy import greedy_mask
from solvers.heuristics.local_search import LocalSearch
from solvers.problem import Mask, SubsetProblem
from solvers.relaxations.split import Relaxation
from solvers.solution import Status
from solvers.solver import Outcome, Solver

POLL = 0.02
"""Seconds between two looks at `stopped` while Clarabel runs."""
POLISH = 1e-7
"""Relative distance from the relaxation's value at which a lone block's indicators are good enough."""


@dataclass(frozen=True)
class CvxpySdp(Solver):
    """The strongest split relaxation, see `sdp_splits`, and the better of two masks.

    The programme only proposes: its split is repaired until it is valid for certain, and the bound is
    evaluated in closed form at its indicators. They also round to a mask, which competes with greedy.

    Attributes:
        limit: most inputs, and right-hand sides, of one matrix inequality; time grows with its 6th
            power, and 64 inputs take seconds.
    """

    limit: int = 100

    name: ClassVar[str] = "cvxpy-sdp"
    summary: ClassVar[str] = "semidefinite relaxation in CVXPY with Clarabel, and its rounded mask"
    proves: ClassVar[str] = "a bound"
    requires: ClassVar[tuple[str, ...]] = ("cvxpy", "clarabel")

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """See `Solver.prepare`."""
        for solver in (LocalSearch(), Relaxation()):
            solver.prepare(like)

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        coupled = problem.refit and problem.pools.coupled and problem.hessian.shared
        size = problem.n + (problem.m if coupled else 1)
        if size > self.limit:
            return f"its matrix inequality has size {size}, more than {self.limit}; try relaxation"
        return None

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        mask = greedy_mask(problem) if control.warm_start is None else control.warm_start
        groups = _groups(problem)
        bounds = [group.bound([lowest_split(block) for block in group.found]) for group in groups]
        z = np.zeros(problem.pools.labels.shape)
        statuses: list[str] = []
        control.report(problem.value(mask), sum(bounds), mask=mask)
        for i, group in enumerate(groups):
            if control.stopped():
                break
            left = control.remaining
            splits, status = group.relax(mask, left and left / (len(groups) - i), control)
            statuses.append(status)
            for block, split in zip(group.found, splits, strict=True):
                z[0 if problem.pools.coupled else block.rows] = split.z
            bounds[i] = max(bounds[i], group.bound(splits))
            control.report(problem.value(mask), sum(bounds), i + 1, mask)
        stop = control.stopped()
        if not stop:
            rounded = problem.pools.expand(problem.pools.smallest(z), problem.m)
            mask = min((mask, rounded), key=problem.value)
            control.report(problem.value(mask), sum(bounds), len(groups), mask)
        stats = {"programmes": len(statuses), "statuses": sorted(set(statuses))}
        return Outcome(mask, sum(bounds), stop or Status.OPTIMAL, stats)


@dataclass(frozen=True)
class _Group:
    """Blocks whose decisions share pools: one block, or every row of a layer.

    Attributes:
        found: the blocks.
        labels: `[blocks, n]` pool of every decision.
        keep: `[pools]` decisions to keep.
    """

    found: Sequence[Block]
    labels: NDArray[np.int64]
    keep: NDArray[np.int64]

    @property
    def prune(self) -> NDArray[np.int64]:
        """`[pools]` decisions to prune."""
        return np.bincount(self.labels.ravel(), minlength=len(self.keep)) - self.keep

    @property
    def decided(self) -> bool:
        """Whether only one mask meets the pools."""
        return bool(((self.keep == 0) | (self.prune == 0)).all())

    def bound(self, splits: Sequence[Split]) -> float:
        """A valid bound at the splits: `LB(u)`, or the best allocation over the rows' curves of it."""
        refit = self.found[0].refit
        if self.decided:
            pruned = (self.keep == 0)[self.labels]
            return sum(
                block.value(row) - ROUNDING * block.scale if row.any() else 0.0
                for block, row in zip(self.found, pruned, strict=True)
            )
        points = [
            relaxed_point(block, split.d, split.z) for block, split in zip(self.found, splits, strict=True)
        ]
        if len(self.found) == 1:
            bound = lower_bound(self.found[0], splits[0].d, points[0])
        else:
            curves = [
                np.array(
                    [
                        lower_bound(replace(block, keep=np.array([block.n - k])), split.d, u)
                        for k in range(block.n + 1)
                    ]
                )
                for block, split, u in zip(self.found, splits, points, strict=True)
            ]
            bound = float(allocation_value(curves, int(self.prune[0])))
        return max(bound, 0.0) if refit else bound

    def relax(self, mask: Mask, seconds: float | None, control: Control) -> tuple[list[Split], str]:
        """The best splits, at the scale of a mask's cost, and what became of the programme."""
        if self.decided:
            return [lowest_split(block) for block in self.found], "decided"
        unit = abs(sum(block.value(mask[block.rows[0]]) for block in self.found))
        unit = max(unit, 1e-9 * sum(block.scale for block in self.found), float(np.finfo(float).tiny))
        splits, status = sdp_splits(
            self.found, self.labels, self.keep, unit, seconds=seconds, stopped=control.stopped
        )
        if len(self.found) == 1:
            shares = relaxed_shares(self.found[0], splits[0].d, splits[0].z, tolerance=POLISH)
            splits = [replace(splits[0], z=shares)]
        return splits, status


def _groups(problem: SubsetProblem) -> list[_Group]:
    if problem.budget.kind == "per_layer":
        share = np.full(problem.m, int(problem.pools.prune[0]) // problem.m)
        return [_Group(blocks(problem, share), problem.pools.labels, problem.pools.keep)]
    return [_Group([block], block.labels[None], block.keep) for block in blocks(problem)]


def import_cvxpy() -> Any:
    """CVXPY, without the HiGHS that its first import would load.

    The wheels of highspy and OR-Tools each hold a `libhighs.so.1`, and a process can load only one:
    after highspy, OR-Tools fails to import. CP-SAT needs OR-Tools; Clarabel needs neither. With OR-Tools
    first, CVXPY complains on standard error, so while it is first imported highspy is not there.
    """
    if "cvxpy" in sys.modules or "highspy" in sys.modules:
        return importlib.import_module("cvxpy")
    sys.modules["highspy"] = None  # type: ignore[assignment]  # the way to say that it can't be imported
    try:
        return importlib.import_module("cvxpy")
    finally:
        del sys.modules["highspy"]


def sdp_splits(
    found: Sequence[Block],
    labels: NDArray[np.int64],
    keep: NDArray[np.int64],
    unit: float,
    *,
    seconds: float | None = None,
    stopped: Callable[[], object] = lambda: None,
) -> tuple[list[Split], str]:
    """The splits that maximise the root bound of blocks which share pools.

    With `p = R u`, joint (`R = H - diag(d)`, `d >= 0`):

        max  1/2 w'Hw - 1/2 tau - sum over pools of the `keep` largest (b - p)_i^2 / (2 d_i)

    and selection (`R = A - diag(d)`):

        max  -1/2 tau + sum over pools of the `prune` smallest (p + d/2 - c)_i

    subject to `[[R, p], [p', tau]] >= 0`. The answer is a proposal: every d is made `secure`, and a
    programme that fails, or is stopped, leaves the split at the smallest eigenvalue.

    Args:
        found: the blocks, all of one variant.
        labels: `[blocks, n]` pool of every decision.
        keep: `[pools]` decisions to keep.
        unit: cost of the order of the optimum.
        seconds: wall time for Clarabel, or None.
        stopped: polled while it runs; a true answer leaves it behind.

    Returns:
        A split for every block, and what became of the programme, in a word.
    """
    cp = import_cvxpy()
    crude = [lowest_split(block) for block in found]
    programme = (
        _Programme.joint(found, labels, keep, unit)
        if found[0].refit
        else _Programme.selection(found, labels, keep, unit)
    )
    limits = {} if seconds is None else {"time_limit": max(1e-3, seconds)}
    failures: list[Exception] = []

    def solve() -> None:
        try:
            programme.problem.solve(solver=cp.CLARABEL, **limits)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=solve, name="clarabel", daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        thread.start()
        while thread.is_alive() and not stopped():
            thread.join(POLL)
    if thread.is_alive():
        return crude, "abandoned"
    if failures and not isinstance(failures[0], cp.error.SolverError):
        raise failures[0]
    if failures or not programme.solved:
        return crude, "failed"
    try:
        return programme.splits(found), str(programme.problem.status)
    except ValueError:
        return crude, "not repaired"


def lowest_split(block: Block) -> Split:
    """The split at the smallest eigenvalue, and equal indicators: what a generic solver has."""
    d = [secure(H, np.full(block.n, scipy.linalg.eigvalsh(H)[0]), block.refit) for H in block.H]
    return Split(np.stack(d), np.full(block.n, float(block.keep.sum()) / block.n), 0)


@dataclass(frozen=True)
class _Programme:
    """A semidefinite programme, where its answer stands, and how to scale it back.

    Attributes:
        problem: the CVXPY problem.
        d: one split for every matrix of every block.
        scales: what to multiply them by.
        shares: the constraint whose multipliers are the relaxed indicators.
    """

    problem: Any
    d: Sequence[Any]
    scales: Sequence[Array]
    shares: Any

    @classmethod
    def joint(
        cls, found: Sequence[Block], labels: NDArray[np.int64], keep: NDArray[np.int64], unit: float
    ) -> _Programme:
        """Weights are scaled by `(unit [H^-1]_ii)^1/2`, so that `0 <= d <= 1`."""
        cp = import_cvxpy()

        constraints, splits, scales, scores = [], [], [], []
        value: Any = sum(block.constant for block in found) / unit
        for block in found:
            score = []
            for H, B in zip(block.H, block.B, strict=True):
                n, c = B.shape
                s = np.sqrt(np.diagonal(np.linalg.inv(H)))
                d, P = cp.Variable(n, nonneg=True), cp.Variable((n, c))
                part, T = cp.Variable(n), cp.Variable((c, c), symmetric=True)
                constraints.append(_definite(s[:, None] * H * s[None, :], d, P, T))
                Q = s[:, None] * B / np.sqrt(unit) - P
                rows = cp.vstack([np.sqrt(2.0) * Q.T, cp.reshape(d - part, (1, n), order="C")])
                constraints.append(cp.SOC(d + part, rows, axis=0))
                value -= 0.5 * cp.trace(T)
                splits.append(d)
                scales.append(1.0 / s**2)
                score.append(part)
            scores.append(sum(score))
        E = (labels.ravel()[:, None] == np.arange(len(keep))).astype(np.float64)
        level, above = cp.Variable(len(keep)), cp.Variable(labels.size, nonneg=True)
        shares = cp.hstack(scores) - E @ level <= above
        value -= keep @ level + cp.sum(above)
        return cls(cp.Problem(cp.Maximize(value), [*constraints, shares]), splits, scales, shares)

    @classmethod
    def selection(
        cls, found: Sequence[Block], labels: NDArray[np.int64], keep: NDArray[np.int64], unit: float
    ) -> _Programme:
        """Costs are divided by the unit; d may have any sign."""
        cp = import_cvxpy()

        prune = np.bincount(labels.ravel(), minlength=len(keep)) - keep
        constraints, splits, scales, scores = [], [], [], []
        value: Any = 0.0
        for block in found:
            n = block.n
            d, P, T = cp.Variable(n), cp.Variable((n, 1)), cp.Variable((1, 1), symmetric=True)
            constraints.append(_definite(block.H[0] / unit, d, P, T))
            value -= 0.5 * T[0, 0]
            splits.append(d)
            scales.append(np.full(n, unit))
            scores.append(P[:, 0] + 0.5 * d - block.B[0, :, 0] / unit)
        E = (labels.ravel()[:, None] == np.arange(len(keep))).astype(np.float64)
        level, below = cp.Variable(len(keep)), cp.Variable(labels.size, nonneg=True)
        shares = E @ level - cp.hstack(scores) <= below
        value += prune @ level - cp.sum(below)
        return cls(cp.Problem(cp.Maximize(value), [*constraints, shares]), splits, scales, shares)

    @property
    def solved(self) -> bool:
        """Whether the solver left an answer, however good."""
        return self.shares.dual_value is not None and all(d.value is not None for d in self.d)

    def splits(self, found: Sequence[Block]) -> list[Split]:
        """The secured splits and the relaxed indicators.

        Raises:
            ValueError: if a proposed d can't be repaired.
        """
        shares = np.clip(self.shares.dual_value, 0.0, 1.0).reshape(len(found), -1)
        proposals = iter([d.value * scale for d, scale in zip(self.d, self.scales, strict=True)])
        out = []
        for block, share in zip(found, shares, strict=True):
            d = []
            for H in block.H:
                proposal = next(proposals)
                if block.refit:
                    proposal = np.maximum(proposal, 1e-12 * np.diagonal(H))
                d.append(secure(H, proposal, block.refit))
            out.append(Split(np.stack(d), share if block.refit else 1.0 - share, 0))
        return out


def _definite(H: Array, d: Any, P: Any, T: Any) -> Any:
    """`[[H - diag(d), P], [P', T]] >= 0`."""
    cp = import_cvxpy()
    return cp.bmat([[H - cp.diag(d), P], [P.T, T]]) >> 0
