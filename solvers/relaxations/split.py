"""The perspective relaxation of a split, alone: a certified bound at any size, and the mask it rounds to."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache
from threading import Lock
from typing import Any, ClassVar

import numpy as np

from solvers.allocation import allocation_value
from solvers.bounds.curves import lower_curves
from solvers.bounds.evaluate import lower_bound, relaxed_point, sign_bound
from solvers.bounds.groups.central_path import CentralPath, grouped
from solvers.bounds.groups.conjugate import conjugate_step
from solvers.bounds.node.restriction import part_of, restrict
from solvers.bounds.secure import secure
from solvers.bounds.shared import relaxation
from solvers.bounds.shared.rows import SharedRows, alike, shareable
from solvers.bounds.split import WIDE, Split, split_blocks
from solvers.budget import GROUPS, KINDS, UNITS
from solvers.certificate import Proof, group_proof, root_proof
from solvers.control import Control
from solvers.form.blocks import Block, assemble, blocks
from solvers.heuristics.factor_search import FactorSearch
from solvers.heuristics.greedy import fits, greedy_mask, greedy_work, opening
from solvers.heuristics.units import unfit_for_units
from solvers.problem import Mask, SubsetProblem
from solvers.relaxations.lone_row import LoneRow
from solvers.relaxations.shared_rows import RaisedRows
from solvers.relaxations.turns import Turns
from solvers.relaxations.units import units_bound
from solvers.runtime.parallel import side_by_side
from solvers.runtime.rehearsal import compiling_is_told, rehearse, tiny_problems
from solvers.solution import RowBounds, Status
from solvers.solver import Outcome, Solver

GREEDY_WORK = 2e11
"""Multiplications that greedy's mask of a wide layer may take, where no other mask is at hand."""

ROUNDS = 8
"""Turns of a wide row at splits in blocks at most."""
OPENED = 10
"""Of the time for rows of one curvature, one part in so many is for where they begin."""
VAIN = 8
"""Rows that look for a better mask in vain, after which others don't."""
STEPS = 6
"""Newton steps that a wide row's turn is long enough for."""


@dataclass(frozen=True)
class Relaxation(Solver):
    """The perspective (joint) or convexified (selection) relaxation at its best split.

    With a time limit, lone joint rows that are wide get splits in blocks of their own
    (`solvers.bounds.groups`), for as long as it lasts and the widest gaps first: every row has its share of
    the time, and others later, when entries have been fixed, or to come nearer to its best split. No entries
    are fixed where a certificate is asked for.

    Attributes:
        group: inputs of a block at most, a power of two; 1 for diagonal splits only.
        wide: inputs above which rows of one curvature share a split.
        grouped: inputs up to which wide rows get splits in blocks.
    """

    group: int = 8
    wide: int = WIDE
    grouped: int = 1024

    name: ClassVar[str] = "relaxation"
    summary: ClassVar[str] = "certified bound of the split relaxation, and its rounded mask"
    proves: ClassVar[str] = "a bound"
    budgets: ClassVar[tuple[str, ...]] = (*KINDS, GROUPS, UNITS)

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        return unfit_for_units(problem)

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """See `Solver.prepare`."""
        rehearse(Relaxation(), like)
        if like is None or like.refit:
            compile_lone_rows()

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        if problem.hessian.implicit:
            return FactorSearch(patience=0).run(problem, control)
        if problem.pools.width > 1:
            return _units(problem, control)
        wide = problem.n > self.wide and shareable(problem) and problem.budget.kind != GROUPS
        outcome = (self._layer if wide else self._blocks)(problem, control)
        reason = control.stopped()
        if reason is None:
            return outcome
        return replace(outcome, bound=max(outcome.bound, sign_bound(problem)), reason=reason)

    def _blocks(self, problem: SubsetProblem, control: Control) -> Outcome:
        """Blocks with splits of their own."""
        greedy = opening(problem, control)
        control.report(problem.value(greedy), -np.inf, mask=greedy)
        if problem.budget.kind == "per_layer":
            return _by_curves(problem, control, greedy)
        found = blocks(problem)
        splits = split_blocks(found, device=control.device, stopped=control.stopped)
        bounds = [
            lower_bound(block, split.d, relaxed_point(block, split.d, split.z))
            for block, split in zip(found, splits, strict=True)
        ]
        rounded = assemble(problem, found, [round_off(b, s) for b, s in zip(found, splits, strict=True)])
        mask = min((greedy, rounded), key=problem.value)
        stats = {"split": "own", "steps": splits[0].steps}
        return self._finish(problem, control, mask, bounds, found, splits, stats)

    def _layer(self, problem: SubsetProblem, control: Control) -> Outcome:
        """Rows of one curvature too wide for splits of their own: all at once."""
        mask = control.warm_start
        if mask is None and greedy_work(problem) <= GREEDY_WORK and fits(problem, control):
            mask = greedy_mask(problem)
        if mask is not None:
            control.report(problem.value(mask), -np.inf, mask=mask)
        rows = SharedRows.of(problem, control.device)
        shared = relaxation.choose(rows, control.stopped)
        v, z = relaxation.relax(rows, shared, control.stopped)
        bounds = relaxation.bounds(rows, shared, v).tolist()
        shares = z.cpu().numpy()
        rounded = problem.pools.smallest(shares)
        mask = rounded if mask is None else min((mask, rounded), key=problem.value)
        stats: dict[str, Any] = {"split": "shared", "steps": shared.steps}
        if problem.refit and not rows.whole and not control.certify:
            control.report(problem.value(mask), sum(bounds), mask=mask)
            in_blocks = self.group if problem.n <= self.grouped else 1
            raising = RaisedRows(rows, shared, problem.row_values(mask), control, stats)
            bounds = raising.raised(np.array(bounds), in_blocks).tolist()
        if rows.whole:
            bound = float(bounds[0])
            control.report(problem.value(mask), bound, mask=mask)
            if problem.refit:
                values = problem.row_values(mask)
                bound = max(bound, RaisedRows.layer_bound(rows, shared, v, mask, values, control, stats))
                timed = control.deadline is not None and not control.stopped()
                if timed and self.group > 1 and problem.n <= self.grouped:
                    bound = max(bound, _by_curves(problem, control, mask).bound)
            control.report(problem.value(mask), bound, mask=mask)
            return Outcome(mask, bound, stats=stats)
        found: list[Block] = []
        splits: list[Split] = []
        if control.certify or (control.deadline is not None and problem.refit):
            found, d = blocks(problem), shared.d.cpu().numpy()
            for block, share in zip(found, shares, strict=True):
                own = d if problem.refit else secure(block.H[0], d * problem.W[block.rows[0]] ** 2, False)
                splits.append(Split(own[None], share, shared.steps))
        return self._finish(problem, control, mask, bounds, found, splits, stats)

    def _finish(
        self,
        problem: SubsetProblem,
        control: Control,
        mask: Mask,
        bounds: list[float],
        found: list[Block],
        splits: list[Split],
        stats: dict[str, Any],
    ) -> Outcome:
        """Lift wide rows while time lasts, and write proofs, from the blocks' splits."""
        bound = float(np.sum(bounds))
        control.report(problem.value(mask), bound, mask=mask)
        proofs = None
        if control.deadline is not None and self.group > 1 and self._groupable(found):
            rows = [
                LoneRow(block, split, mask[block.rows[0]], low)
                for block, split, low in zip(found, splits, bounds, strict=True)
            ]
            self._raise(rows, control)
            stats |= {"split": "blocks", "blocks_of": self.group}
            stats |= {
                "block_splits": sum(row.rounds > 0 for row in rows),
                "fixed": sum(r.fixed for r in rows),
            }
            bounds = [row.bound for row in rows]
            mask = min((mask, assemble(problem, found, [row.pruned for row in rows])), key=problem.value)
            bound = float(np.sum(bounds))
            control.report(problem.value(mask), bound, mask=mask)
            if control.certify:
                proofs = [_proof(*each) for each in zip(found, splits, rows, strict=True)]
        elif control.certify:
            proofs = [root_proof(block, split) for block, split in zip(found, splits, strict=True)]
        alone = None if problem.pools.coupled else RowBounds(np.array(bounds))
        return Outcome(mask, bound, stats=stats, proof=proofs, rows=alone)

    def _groupable(self, found: list[Block]) -> bool:
        """Whether blocks are lone joint rows too wide for the tree, and not for splits in blocks."""
        return bool(found) and all(
            b.refit and self.wide < b.n <= self.grouped and b.B.shape == (1, b.n, 1) for b in found
        )

    def _raise(self, rows: list[LoneRow], control: Control) -> None:
        """Lift rows' bounds, the widest gaps first, each in its share of the time left, in a few rounds."""
        opening, fixing = None, not control.certify
        if len(rows) > 1 and alike([row.block for row in rows]):
            until = time.perf_counter() + (control.remaining or 0.0) / OPENED
            opening = LoneRow.opening(
                rows, self.group, lambda: control.stopped() or time.perf_counter() >= until
            )
        reporting, polished = Lock(), list[bool]()
        for _ in range(ROUNDS):
            turns = Turns(control, len(rows), STEPS * opening.step if opening else 0.0)

            def lift(row: LoneRow, turns: Turns = turns) -> None:
                over = turns.over()
                value, bound = sum(each.value for each in rows), sum(each.bound for each in rows)
                with reporting:
                    control.report(value, bound)
                if bound >= control.target(value):
                    return
                before = row.rounds
                row.lift(self.group, over, fixing=fixing, opening=opening)
                if row.rounds > before and (len(polished) < VAIN or any(polished)):
                    polished.append(row.polish(control.stopped))

            side_by_side(lift, sorted(rows, key=lambda row: row.bound - row.value))
            control.report(sum(row.value for row in rows), sum(row.bound for row in rows))


@cache
def compile_lone_rows() -> None:
    """Have ready what is compiled for rows too wide for a tiny problem to come to it."""
    with compiling_is_told():
        for problem in tiny_problems(("joint",), ("per_row",)):
            found = blocks(problem)
            for block, split in zip(found, split_blocks(found), strict=True):
                row = LoneRow(block, split, round_off(block, split), block.floor)
                for _ in range(2):
                    row.lift(2, lambda: None)
                row.polish(lambda: None)
                path = CentralPath(block, grouped(block, split.d[0], split.z, 2), block.constant)
                if path.point is not None:
                    conjugate_step(path.system, path.point, path.dual, path.T)
                for dtype in (np.int64, np.int8):  # of fixings in rows, and in trees of groups
                    restrict(part_of(block), np.zeros(block.n, dtype))


def _units(problem: SubsetProblem, control: Control) -> Outcome:
    """Units of several columns: the relaxation with an indicator for each, and the better of two masks."""
    greedy = opening(problem, control)
    control.report(problem.value(greedy), -np.inf, mask=greedy)
    bound, rounded = units_bound(problem, control.stopped)
    mask = min((greedy, rounded), key=problem.value)
    control.report(problem.value(mask), bound, mask=mask)
    return Outcome(mask, bound, reason=control.stopped() or Status.FEASIBLE)


def _by_curves(problem: SubsetProblem, control: Control, mask: Mask) -> Outcome:
    """The bound of a layer's budget from its rows' curves."""
    curves = lower_curves(
        problem.W,
        problem.hessian,
        problem.G,
        refit=problem.refit,
        device=control.device,
        stopped=control.stopped,
        deadline=control.deadline,
    )
    bound = allocation_value(list(curves), int(problem.pools.prune[0]))
    control.report(problem.value(mask), bound, mask=mask)
    return Outcome(mask, bound)


def _proof(block: Block, split: Split, row: LoneRow) -> Proof:
    root = root_proof(block, split)
    if row.split is None or not any(len(family.D[0]) > 1 for family in row.split.families):
        return root
    return max(group_proof(block, split.d, row.split), root, key=lambda proof: proof.bound)


def round_off(block: Block, split: Split) -> Mask:
    """Prune the least relaxed indicators of every pool: `[n]`, True where pruned."""
    return block.smallest(split.z)
