"""Outer approximation with OR-Tools CP-SAT as the master: cuts in rounds, until no better mask is left.

The master has a binary indicator for every decision, the budget's pools, and an integer epigraph variable
for every row of weights; it looks for a mask that all cuts so far allow at a cost below a level. A mask that
it finds is answered by tangents of the relaxed cost (Bertsimas & Van Parys 2020): at the mask itself, whose
exact refit they reproduce, and at fractional points of the relaxation between that mask and all others.
A level at which CP-SAT finds none is a bound (logic-based Benders decomposition).
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.node.newton import relaxed_shares
from solvers.bounds.node.oracle import model_of
from solvers.bounds.split import split_blocks
from solvers.foreign.conflicts import neighbour, regrets, shrink
from solvers.foreign.in_turn import Event, InTurn
from solvers.foreign.mixed_integer import SHARE, Foreign
from solvers.foreign.tangents import IntegerCut, Layer, in_integers, layer
from solvers.form.blocks import Part, blocks
from solvers.hessian import Array
from solvers.problem import DIGITS, Mask, SubsetProblem
from solvers.runtime.rehearsal import compiling_is_told, tiny_problems

LEVELS = (0.5, 0.8, 1.0)
"""Levels that are ruled out one after the other, from the root's bound to what proves the gap."""
NEAREST = 1e-9
"""Share of a cost below which two costs are not told apart."""
NEIGHBOURS = 24
"""Masks that are answered between two calls of the master, at most."""
WINDOW = 4
"""Tangents of a row that stay in the master beside the first: the clauses remember the others."""
BUMP = 0.05
"""What being part of a clause adds to an entry's weight in later ones."""


@dataclass(frozen=True)
class OuterApproximation(Foreign):
    """CP-SAT on the joint and on the selection variant, given the costs by tangents, one worker.

    Attributes:
        limit: most decisions of one master.
    """

    limit: int = 400

    name: ClassVar[str] = "outer-approximation"
    summary: ClassVar[str] = "OR-Tools CP-SAT as master, tangents of the relaxed cost as cuts"

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        count = problem.n * (problem.m if problem.budget.kind == "per_layer" else 1)
        if count > self.limit:
            return f"its master has {count} decisions, more than {self.limit}; try branch-and-bound"
        try:
            importlib.import_module("ortools.sat.python.cp_model")
        except ImportError:
            return "OR-Tools can't be imported after highspy (both bring a libhighs); import ortools first"
        return None

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """See `Solver.prepare`."""
        super().prepare(like)
        with compiling_is_told():
            for problem in tiny_problems(("joint", "selection"), ("per_row",)):
                for block, split in zip(found := blocks(problem), split_blocks(found), strict=True):
                    model, halt = model_of(block, split.d), np.zeros(1, np.bool_)
                    relaxed_shares(block, split.d, split.z)
                    fix = np.where(np.arange(block.n) < block.keep[0], 1, -1).astype(np.int8)
                    shares = shrink(model, block.keep, fix, np.arange(block.n), np.inf, halt)
                    neighbour(model, block.keep, fix, shares, halt)

    def solve_part(self, part: Part, turns: InTurn, d: Array | None) -> bool:
        """See `Foreign.solve_part`."""
        assert d is not None
        search = Search(part, layer(part.problem, d), turns.control.seed)
        turns.widening = max(turns.widening, search.lost)
        cut_short = turns.watch(part, search.solve, search.stop)
        for name, value in search.tally.items():
            turns.notes[name] = turns.notes.get(name, 0) + value
        turns.notes["scale"] = max(turns.notes.get("scale", 0.0), search.scale)
        return cut_short


@dataclass
class Search:
    """Rounds of one part: the cuts so far, and what they prove.

    Attributes:
        part: what is solved, its incumbent, and how much time it may take.
        layer: its decisions and their split.
        seed: of the master.
    """

    part: Part
    layer: Layer
    seed: int
    tally: dict[str, int] = field(default_factory=lambda: {"rounds": 0, "cuts": 0, "clauses": 0})
    clauses: list[NDArray[np.int8]] = field(default_factory=list)
    cuts: list[list[IntegerCut]] = field(default_factory=list)

    def __post_init__(self) -> None:
        block = self.layer.whole
        self.value, self.mask = self.part.value, self.part.mask
        self.excluded = math.inf
        """No mask that a clause excludes costs less."""
        unit = max(abs(self.value), NEAREST * self.part.problem.scale, float(np.finfo(float).tiny))
        self.scale = self.layer.scale(unit)
        self.lost = len(self.layer.rows) * (block.n + 1) / self.scale
        self._model = model_of(block, self.layer.d)
        self._halt = np.zeros(1, np.bool_)
        since = time.perf_counter()
        self._deadline = math.inf if self.part.seconds is None else since + self.part.seconds
        even = (block.keep / np.bincount(block.labels))[block.labels]
        self._root = relaxed_shares(block, self.layer.d, even)
        self._weight = 0.5 - np.abs(self._root - 0.5)
        self._master: Any = None

    @property
    def target(self) -> float:
        """The bound that proves the incumbent."""
        return self.value - max(SHARE * self.part.gap, NEAREST) * abs(self.value)

    def stop(self) -> None:
        """Ask `solve` to return soon."""
        self._halt[0] = True
        if self._master is not None:
            self._master.stop_search()

    def solve(self, report: Callable[[Event], None]) -> bool:
        """Rounds until the gap is proven; whether time, or `stop`, cut them short."""
        self._cut(self._root)
        start = max(self.part.floor, self._root_bound())
        self._tell(report, start)
        for share in LEVELS:
            while True:
                level = start + share * (self.target - start)
                if level <= start and share < 1.0:
                    break
                kept, finished = self._call(level)
                if kept is None:
                    if not finished:
                        return True
                    self._tell(report, min(level, self.excluded))
                    break
                for mask in self._answer(kept):
                    report(Event(mask, -math.inf, self.tally["rounds"]))
        return False

    def _tell(self, report: Callable[[Event], None], bound: float) -> None:
        report(Event(None, bound, self.tally["rounds"]))

    def _root_bound(self) -> float:
        return lower_bound(self.layer.whole, self.layer.d, self._point(self._root))

    def _point(self, shares: Array) -> Array:
        return relaxed_point(self.layer.whole, self.layer.d, shares)

    def _over(self) -> bool:
        return bool(self._halt[0]) or time.perf_counter() >= self._deadline

    def _cut(self, shares: Array) -> Array:
        """Add the tangents at a point, and keep the first and the last ones: the point's u."""
        u = self._point(shares)
        found = [in_integers(cut, self.scale) for cut in self.layer.tangents(u)]
        if all(found):
            self.cuts.append([cut for cut in found if cut is not None])
            self.tally["cuts"] += len(found)
        if len(self.cuts) > 1 + WINDOW:
            del self.cuts[1]
        return u

    def _answer(self, kept: Mask) -> list[Mask]:
        """Clauses against a mask and against some that lie beside it; better masks that were met."""
        block, better = self.layer.whole, []
        todo, made = [kept], 0
        while todo and made < NEIGHBOURS and not self._over():
            kept = todo.pop()
            if any(((fix >= 0) | ~kept).all() and ((fix <= 0) | kept).all() for fix in self.clauses):
                continue
            mask = self._mask(kept)
            value = self.part.problem.value(mask)
            if value < self.value:
                self.value, self.mask = value, mask
                better.append(mask)
            fix = self._clause(kept, value)
            made += 1
            beside = np.zeros(block.n, np.int8)
            for i in sorted(np.flatnonzero(fix).tolist(), key=lambda i: -self._weight[i]):
                beside[i] = -fix[i]
                near = self._rounded(beside)
                if near is not None:
                    todo.append(near)
                beside[i] = fix[i]
        return better

    def _clause(self, kept: Mask, value: float) -> NDArray[np.int8]:
        """Exclude a mask and many others, none of which costs less than `excluded`: the fixings of all."""
        block, exact = self.layer.whole, kept.astype(np.float64)
        u = self._cut(exact)
        scores = sum_of_scores(self.layer, u)
        lost = regrets(scores, block.labels, block.keep, kept)
        best, where = None, exact
        for order in (np.argsort(lost, kind="stable"), np.lexsort((lost, self._weight))):
            fix = np.where(kept, 1, -1).astype(np.int8)
            shares = shrink(self._model, block.keep, fix, order, self.target, self._halt)
            bound = lower_bound(block, self.layer.d, self._point(shares), kept=fix > 0, pruned=fix < 0)
            if (fix != 0).all():
                bound = max(bound, value - self.part.problem.rounding - DIGITS * abs(value))
            if best is not None and (fix == best).all():
                continue
            self.clauses.append(fix)
            self.tally["clauses"] += 1
            self.excluded = min(self.excluded, bound)
            if best is None or np.count_nonzero(fix) < np.count_nonzero(best):
                best, where = fix, shares
        assert best is not None
        self._cut(where)
        self._weight[best != 0] += BUMP
        return best

    def _rounded(self, fix: NDArray[np.int8]) -> Mask | None:
        """`[n]` kept: what the relaxation under fixings rounds to; None where no mask has them."""
        block = self.layer.whole
        kept = np.bincount(block.labels, weights=fix > 0, minlength=len(block.keep))
        gone = np.bincount(block.labels, weights=fix < 0, minlength=len(block.keep))
        if (kept > block.keep).any() or (gone > block.prune).any():
            return None
        shares = neighbour(self._model, block.keep, fix, self._root, self._halt)
        shares = np.where(fix > 0, 2.0, np.where(fix < 0, -1.0, shares))
        found = np.zeros(block.n, np.bool_)
        for p, count in enumerate(block.keep.tolist()):
            pool = np.flatnonzero(block.labels == p)
            found[pool[np.argsort(-shares[pool], kind="stable")[:count]]] = True
        return found

    def _mask(self, kept: Mask) -> Mask:
        problem = self.part.problem
        return problem.pools.expand(~kept.reshape(problem.pools.labels.shape), problem.m)

    def _call(self, level: float) -> tuple[Mask | None, bool]:
        """A mask that the cuts allow below a level, or None; and whether the master finished."""
        from ortools.sat.python import cp_model

        left = self._deadline - time.perf_counter()
        if self._halt[0] or left <= 0.0:
            return None, False
        self.tally["rounds"] += 1
        block, joint = self.layer.whole, self.layer.whole.refit
        model = cp_model.CpModel()
        one = [model.new_bool_var("") for _ in range(block.n)]  # kept (joint), or pruned (selection)
        count = block.keep if joint else block.prune
        hint = self.part.problem.pools.decisions(self.mask).ravel() != joint
        for p, total in enumerate(count.tolist()):
            pool = np.flatnonzero(block.labels == p).tolist()
            model.add(cp_model.LinearExpr.sum([one[i] for i in pool]) == total)
        for variable, value in zip(one, hint.tolist(), strict=True):
            model.add_hint(variable, value)
        top = math.ceil(self.scale * max(sum(row.scale for row in self.layer.rows), abs(self.value))) + 1
        eta = [model.new_int_var(0 if joint else -top, top, "") for _ in self.layer.rows]
        model.add(cp_model.LinearExpr.sum(eta) <= math.floor(self.scale * level))
        for cuts in self.cuts:
            for variable, span, cut in zip(eta, self.layer.spans, cuts, strict=True):
                model.add(variable + cp_model.LinearExpr.weighted_sum(one[span], cut.scores) >= cut.base)
        for fix in self.clauses:
            model.add_bool_or(
                [~one[i] if (fix[i] > 0) == joint else one[i] for i in np.flatnonzero(fix).tolist()]
            )
        solver = cp_model.CpSolver()
        parameters = solver.parameters
        parameters.num_workers, parameters.linearization_level = 1, 0
        parameters.random_seed, parameters.catch_sigint_signal = self.seed % 2**31, False
        if math.isfinite(left):
            parameters.max_time_in_seconds = left
        self._master = solver
        status = solver.solve(model)
        self._master = None
        if status == cp_model.INFEASIBLE:
            return None, True
        if status == cp_model.MODEL_INVALID:
            raise RuntimeError(f"CP-SAT takes the master for invalid: {model.validate()}")
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None, False
        return np.array([solver.boolean_value(variable) for variable in one]) == joint, True


def sum_of_scores(layer: Layer, u: Array) -> Array:
    """`[n]` what an entry takes off the bound at a point when it is kept."""
    scores = np.concatenate([cut.scores for cut in layer.tangents(u)])
    return scores if layer.whole.refit else -scores
