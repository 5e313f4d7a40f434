"""The semidefinite relaxation in CVXPY with Clarabel: the best split and point in one programme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.allocation import allocation_value
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.node.newton import relaxed_shares
from solvers.bounds.split import Split
from solvers.bounds.trivial import ROUNDING
from solvers.control import Control
from solvers.foreign.in_turn import prepare_start
from solvers.form.blocks import Block, blocks
from solvers.heuristics.greedy import greedy_mask
from solvers.problem import Mask, SubsetProblem
from solvers.relaxations.programme import lowest_split, sdp_splits
from solvers.solution import Status
from solvers.solver import Outcome, Solver

POLISH = 1e-7
"""Relative distance from the relaxation's value at which a lone block's indicators are good enough."""


@dataclass(frozen=True)
class CvxpySdp(Solver):
    """The strongest split relaxation, see `solvers.relaxations.programme`, and the better of two masks.

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

    def prepare(self) -> None:
        """See `Solver.prepare`."""
        prepare_start()

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
