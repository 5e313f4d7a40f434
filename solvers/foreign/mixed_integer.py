"""The adapter of foreign solvers: all that they do alike, so that their files hold only what is their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from typing import ClassVar, NamedTuple

import numpy as np

from solvers.allocation import allocate
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.split import split_blocks
from solvers.control import Control
from solvers.foreign.in_turn import Event, InTurn, in_turn, prepare_start
from solvers.foreign.models import joint_model, selection_model
from solvers.foreign.programme import Programme, programme, size
from solvers.form.blocks import Part, blocks
from solvers.greedy.curves import row_curves
from solvers.hessian import Array
from solvers.problem import SubsetProblem
from solvers.solver import Outcome, Solver

SHARE = 0.8
"""Share of the gap asked for that is asked of a foreign solver, whose values carry its tolerances."""
LIMIT = 20_000
"""Largest model under any licence."""
NONE = 1e20
"""A dual bound this large is none: no solver's infinity is smaller, and objectives are of order one."""


class Ended(Enum):
    """Why a foreign solver returned: every status that it may have is one of these."""

    DONE = "done"
    TIME = "time limit"
    STOPPED = "stopped from outside"
    FAILED = "gave up"


class Foreign(Solver):
    """A solver of others on every independent part in turn."""

    proves: ClassVar[str] = "optimality"

    @abstractmethod
    def solve_part(self, part: Part, turns: InTurn, d: Array | None) -> bool:
        """Work on a part within its `gap` and `seconds`.

        Args:
            part: what to work on.
            turns: takes the news, through `turns.watch`.
            d: `[rows, n]` the part's best split, or None for solvers that take none.

        Returns:
            Whether the time cut it short.
        """

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """See `Solver.prepare`."""
        prepare_start(like)

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`."""
        split = self.root(problem, control)
        turns = in_turn(problem, control, None if split is None else split.floors)
        reason = turns.solve(
            lambda part: self.solve_part(part, turns, None if split is None else split.d[part.rows])
        )
        return turns.outcome(reason)

    def root(self, problem: SubsetProblem, control: Control) -> Root | None:
        """The best split, from which every part has a bound before its search."""
        return root(problem, control.device)


@dataclass(frozen=True)
class Products(Foreign):
    """A solver of linear programmes, on selections with a variable for every product of two decisions.

    Attributes:
        limit: most products of one model.
    """

    limit: int

    variants: ClassVar[tuple[str, ...]] = ("selection",)

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        rows = problem.m if problem.budget.kind == "per_layer" else 1
        count = rows * (problem.n * (problem.n - 1) // 2)
        if count > self.limit:
            return f"its model has {count} products, more than {self.limit}; try branch-and-bound"
        return None


@dataclass(frozen=True)
class Job:
    """What a mixed-integer solver is asked.

    Attributes:
        matrices: the programme.
        gap: relative gap to stop at.
        seconds: wall time, or None.
        seed: for random choices, below 2^31.
        start: `[N]` the incumbent to start from, or None.
        reach: largest `(v - a)' R (v - a)` of a row's convex part that is worth a look.
    """

    matrices: Programme
    gap: float
    seconds: float | None
    seed: int
    start: Array | None
    reach: float


Tell = Callable[[Sequence[float] | Array | None, float, int], None]
"""Takes news from any thread: a point `[N]`, or its binary part; the dual bound; and the nodes so far."""


class Run(NamedTuple):
    """A model that is built.

    Attributes:
        solve: runs it, to be called once, with what takes the news.
        stop: asks it to return soon; may be called from another thread, and more than once.
    """

    solve: Callable[[Tell], Ended]
    stop: Callable[[], None]


@dataclass(frozen=True)
class MixedInteger(Foreign):
    """A solver of mixed-integer quadratic programmes.

    Attributes:
        strengthen: whether the model has the best split: the perspective (joint) or the convexification
            (selection). Without it the model is the plain one with big M, as a general solver would be given
            it; then `-plain` ends the name.
        informed: whether it gets the incumbent of our local search, and the ranges of weights that follow.
    """

    strengthen: bool = True
    informed: bool = True

    product: ClassVar[str]
    """What its makers call it."""
    free: ClassVar[int] = LIMIT
    """Largest model, as `measure` has it, under the licence that comes with its wheel."""
    factored: ClassVar[bool] = False
    """Whether its quadratic terms are sums of squares of variables, see `programme`."""
    tangents: ClassVar[bool] = False
    """Whether tangents take the place of cones, see `Programme.tangents`."""

    @property
    def name(self) -> str:  # type: ignore[override]
        """See `Solver.name`."""
        return self.product.lower() + ("" if self.strengthen else "-plain")

    @property
    def summary(self) -> str:  # type: ignore[override]
        """See `Solver.summary`."""
        model = "split-strengthened (perspective) model" if self.strengthen else "plain big-M model"
        return f"{self.product} on the {model}" + ("" if self.strengthen else ", for comparison")

    @abstractmethod
    def open(self, job: Job) -> AbstractContextManager[Run]:
        """Build a model, and let go of it in the end."""

    @staticmethod
    def measure(variables: int, rows: int) -> int:
        """What of a model's size its licence limits."""
        return max(variables, rows)

    @classmethod
    def probe(cls) -> bool:
        """Whether the licence at hand allows a model one larger than `free`; raises what else it says."""
        return True

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        variables, rows = size(problem, self.strengthen, factored=self.factored, tangents=self.tangents)
        most, reason = licence(type(self))
        if self.measure(variables, rows) <= most:
            return None
        return f"its model has {variables} variables and {rows} constraints; {reason}"

    def root(self, problem: SubsetProblem, control: Control) -> Root | None:
        """See `Foreign.root`."""
        return super().root(problem, control) if self.strengthen else None

    def solve_part(self, part: Part, turns: InTurn, d: Array | None) -> bool:
        """See `Foreign.solve_part`."""
        known = part if self.informed else replace(part, value=everything(part.problem))
        model = joint_model(known, d) if part.problem.refit else selection_model(part, d)
        turns.widening = max(turns.widening, model.widening)
        spent = model.widening / max(abs(part.value), np.finfo(float).tiny)
        matrices = programme(model, part.problem, part.mask, factored=self.factored)
        job = Job(
            matrices, SHARE * max(0.0, part.gap - spent), part.seconds, turns.control.seed % 2_000_000_000,
            matrices.start if self.informed else None, model.reach,
        )  # fmt: skip

        def solve(report: Callable[[Event], None]) -> Ended:
            def tell(x: Sequence[float] | Array | None, dual: float, nodes: int) -> None:
                mask = None if x is None else matrices.mask(part.problem, np.asarray(x))
                claim = model.unit * dual - model.widening if abs(dual) < NONE else -np.inf
                report(Event(mask, claim, nodes))

            return run.solve(tell)

        with self.open(job) as run:
            ended = turns.watch(part, solve, run.stop)
        if ended is Ended.STOPPED and not turns.control.stopped():
            turns.control.interrupted = True  # Ctrl-C came before Python's handler was back
        return ended is Ended.TIME


@cache
def licence(solver: type[MixedInteger]) -> tuple[int, str]:
    """The largest model under the licence at hand, 0 without any, and what to do about it."""
    try:
        full = solver.probe()
    except Exception as error:
        return 0, f"{solver.product} says: {' '.join(str(error).split())}"
    if full:
        return LIMIT, f"at most {LIMIT} are taken; try branch-and-bound"
    return solver.free, f"its free licence allows {solver.free}; give it a full one, or try branch-and-bound"


def everything(problem: SubsetProblem) -> float:
    """`1/2 sum_r w_r'H_r w_r`, what pruning everything costs: no joint optimum costs more."""
    H = [problem.hessian.dense(r) for r in range(problem.m)]
    return 0.5 * sum(float(w @ A @ w) for w, A in zip(problem.W, H, strict=True))


@dataclass(frozen=True)
class Root:
    """The best split of a problem and the bounds that it proves.

    Attributes:
        d: `[m, n]` split of the Hessians (joint), or `[b, n]` of the rows' `A` (selection).
        floors: a valid bound for every independent part, or None where the rows share one pool.
    """

    d: Array
    floors: Sequence[float] | None


def root(problem: SubsetProblem, device: str = "cpu") -> Root:
    """Split a reduced problem for its strengthened model, see `solvers.bounds.split`.

    Rows of a `per_layer` budget are split at the counts of a greedy allocation.
    """
    counts = None
    if problem.budget.kind == "per_layer":
        curves = row_curves(problem.W, problem.hessian, refit=problem.refit)
        counts = allocate(list(curves.values), int(problem.pools.prune[0]))
    found = blocks(problem, counts)
    splits = split_blocks(found, device=device)
    d = np.concatenate([split.d for split in splits])
    if counts is not None:
        return Root(d, None)
    floors = [
        lower_bound(block, split.d, relaxed_point(block, split.d, split.z))
        for block, split in zip(found, splits, strict=True)
    ]
    return Root(np.broadcast_to(d, problem.W.shape) if problem.refit else d, floors)
