"""Peers as solvers: k-sparse ridge regression, which the joint problem of a row is, by codes of others.

The joint problem of a row is `min 1/2 (b - w)'H(b - w)` over b with `keep` entries. With `X'X = H` and
`X'y = H w` that is the least-squares problem of best-subset selection, for which there are exact solvers
(OKRidge, L0BnB, El0ps) and heuristics (abess). A `per_layer` budget is one such problem whose H has the rows'
curvatures as its blocks.

What a peer says is not trusted. Its support becomes a mask whose value is recomputed. Its bound was computed
in floating point with tolerances of its own, and nothing here can check it: it is told in
`stats["claimed_bound"]`, and `Solution.bound` stays at zero, which nothing costs less than, so that no status
rests on it. With `trust=True` the claim is taken as those of the mixed-integer solvers are, widened by what
tolerances and rounding can have moved it by. A claim above the value of a mask is refuted, and counts for
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import scipy.linalg

from solvers.budget import Budget
from solvers.control import Control
from solvers.foreign.mixed_integer import SHARE
from solvers.foreign.models import WIDENING
from solvers.heuristics.greedy import greedy_mask
from solvers.heuristics.local_search import LocalSearch
from solvers.peers.environment import outdated, state
from solvers.peers.process import Overdue, PeerProcess, expiring, running
from solvers.problem import Mask, SubsetProblem
from solvers.solution import Status
from solvers.solver import Outcome, Solver

GRACE = 1.0
"""Seconds after its time limit at which a peer that goes on is killed."""
LIMIT = 2_000
"""Most inputs of a row, or weights of a layer with one budget: peers get a dense matrix."""
ROUNDING = 1e3
"""Machine precisions of `w'Hw` by which a trusted claim is widened: peers compute costs as differences."""


@dataclass(frozen=True)
class Peer(Solver):
    """A solver of others in an environment of its own, see `solvers.peers.environment`.

    Attributes:
        trust: whether the bound that it claims is taken as `Solution.bound`, widened; else it is only told in
            `stats`.
        memory: bytes that its search may take, where it can be told.
    """

    trust: bool = False
    memory: int = 4 << 30

    variants: ClassVar[tuple[str, ...]] = ("joint",)
    budgets: ClassVar[tuple[str, ...]] = ("per_row", "per_layer")
    priced: ClassVar[bool] = False
    """Whether it puts a price on every entry, instead of taking the number of entries."""
    least: ClassVar[int] = 1
    """Inputs that a row must have."""

    @classmethod
    def installed(cls) -> bool:
        """Whether its environment is there."""
        return state(cls.name) is not None

    @classmethod
    def install_hint(cls) -> str | None:
        """See `Solver.install_hint`."""
        return f"cbs peers install {cls.name}"

    def prepare(self, like: SubsetProblem | None = None) -> None:
        """See `Solver.prepare`: its process imports and compiles."""
        LocalSearch().prepare(like)
        with running(self.name) as process:
            process()

    def makes_tensors(self, problem: SubsetProblem, device: str) -> bool:
        """See `Solver.makes_tensors`."""
        return False

    def refuses(self, problem: SubsetProblem) -> str | None:
        """See `Solver.refuses`."""
        together = problem.budget.kind == "per_layer"
        n = problem.W.size if together else problem.n
        if n > LIMIT:
            what = "weights share one budget" if together else "inputs"
            return f"{n} {what}, more than {LIMIT}; try branch-and-bound or tabu"
        if n < self.least:
            return f"{n} inputs, and it needs {self.least}; try branch-and-bound"
        if not self.installed():
            again = " again: it is of another release" if outdated(self.name) else ""
            return f"it is not installed: {self.install_hint()}{again}"
        return None

    def run(self, problem: SubsetProblem, control: Control) -> Outcome:
        """See `Solver.run`.

        Raises:
            ChildProcessError: in one line, if the peer fails: its answers to other rows are lost then.
        """
        search = _Search(self, problem, control)
        with running(self.name) as process:
            search.run(process)
        return search.outcome()


@dataclass
class _Row:
    """A regression of its own: the rows of the problem that it stands for, and what is known of it."""

    rows: slice
    problem: SubsetProblem
    mask: Mask
    value: float
    claim: float = -math.inf
    answered: bool = False
    done: bool = False
    cut: bool = False

    @property
    def free(self) -> bool:
        """Whether there is anything to choose."""
        keep = int(self.problem.pools.keep[0])
        return 0 < keep < self.problem.n and bool(self.problem.W.any())


@dataclass
class _Search:
    """The rows of a problem in turn."""

    peer: Peer
    problem: SubsetProblem
    control: Control
    rows: list[_Row] = field(default_factory=list)
    version: str = ""
    seconds: float = 0.0
    nodes: int = 0
    killed: int = 0
    completed: int = 0

    def __post_init__(self) -> None:
        for rows, row in _regressions(self.problem):
            mask = greedy_mask(row)
            self.rows.append(_Row(rows, row, mask, row.value(mask)))
        for each in self.rows:
            if not each.free:
                each.answered = each.done = True
                each.claim = each.value

    @property
    def mask(self) -> Mask:
        """All rows' masks together."""
        shape = self.problem.W.shape
        return np.concatenate([row.mask.ravel() for row in self.rows]).reshape(shape)

    def run(self, process: Callable[..., PeerProcess]) -> None:
        """Every row that leaves a choice, each with its share of the time that is left."""
        waiting = [row for row in self.rows if not row.answered]
        for i, row in enumerate(waiting):
            left = self.control.remaining
            share = None if left is None else left / (len(waiting) - i)
            if self.control.stopped():
                return
            over = expiring(self.control.stopped, None if share is None else share + GRACE)
            try:
                asked = self._asked(row, share)
                at_work = process(over)
                self.version = at_work.version
                self._take(row, at_work.ask(asked, expiring(self._interrupted, share and share + GRACE)))
            except Overdue:
                self.killed += 1
                row.cut = True
            self._report()
        self._report()

    def outcome(self) -> Outcome:
        """What was found, and what the peer claims of it."""
        claim = sum(row.claim for row in self.rows) + self.control.offset
        value = sum(row.value for row in self.rows) + self.control.offset
        claims = math.isfinite(claim)
        reason = self.control.stopped() or Status.FEASIBLE
        if reason is Status.FEASIBLE and any(row.cut for row in self.rows):
            reason = Status.MEMORY_LIMIT if self.control.deadline is None else Status.TIME_LIMIT
        stats: dict[str, Any] = {
            "peer": f"{self.peer.name} {self.version}".strip(), "peer_seconds": self.seconds,
            "nodes": self.nodes, "claimed_bound": claim if claims else None,
            "claims_optimal": claims and value - claim <= self.control.gap * abs(value),
            "rows_answered": sum(row.answered for row in self.rows),
        }  # fmt: skip
        refuted = sum(row.claim > row.value + self._widening(row) for row in self.rows)
        noted = {
            "killed": self.killed, "completed": self.completed, "refuted": refuted,
            "trusted": self.peer.trust,
        }  # fmt: skip
        bound = sum(self._trusted(row) for row in self.rows) if self.peer.trust else -math.inf
        return Outcome(self.mask, bound, reason, stats | {key: told for key, told in noted.items() if told})

    def _interrupted(self) -> bool:
        """Whether to kill it before its time: not for the deadline, which it is given time to keep itself."""
        return self.control.stopped() not in (None, Status.TIME_LIMIT)

    def _asked(self, row: _Row, seconds: float | None) -> Mapping[str, Any]:
        """The row as the peer takes it."""
        problem = row.problem
        H, keep = problem.hessian.dense(0), int(problem.pools.keep[0])
        value = max(row.value, np.finfo(float).tiny)
        asked: dict[str, Any] = {
            "H": H, "w": problem.W[0], "keep": keep, "value": value,
            "gap": SHARE * max(self.control.gap, 1e-9),
            "seconds": 1e9 if seconds is None else seconds, "memory": float(self.peer.memory),
            "seed": self.control.seed,
        }  # fmt: skip
        if self.peer.priced:
            reach = np.abs(problem.W[0]) + np.sqrt(2.0 * value * np.diagonal(np.linalg.inv(H)))
            price = _price(problem, self.control)
            asked |= {"price": price, "reach": float(reach.max()), "start": ~row.mask[0]}
        return asked

    def _take(self, row: _Row, answer: Mapping[str, Any]) -> None:
        """An answer: its support as a mask of the budget, whose value is recomputed."""
        kept = np.zeros(row.problem.n, dtype=bool)
        kept[answer["support"]] = True
        keep = int(row.problem.pools.keep[0])
        self.completed += int(kept.sum()) != keep
        row.mask = ~_with_count(row.problem, kept, keep)[None]
        row.value = row.problem.value(row.mask)
        row.claim = answer["bound"]
        row.answered, row.done, row.cut = True, answer["done"], not answer["done"]
        self.seconds += answer["seconds"]
        self.nodes += answer["nodes"]

    def _report(self) -> None:
        bound = sum(self._trusted(row) for row in self.rows) if self.peer.trust else -math.inf
        self.control.report(sum(row.value for row in self.rows), bound, self.nodes, self.mask)

    def _trusted(self, row: _Row) -> float:
        """A claim as a bound: widened, and zero, which nothing costs less than, where it is refuted."""
        widening = self._widening(row)
        refuted = row.claim > row.value + widening
        return 0.0 if refuted or not row.answered else max(0.0, min(row.claim, row.value) - widening)

    @staticmethod
    def _widening(row: _Row) -> float:
        """What tolerances and rounding can have moved a claim by."""
        w = row.problem.W[0]
        scale = float(w @ row.problem.hessian.dense(0) @ w)
        return WIDENING * row.value + ROUNDING * float(np.finfo(float).eps) * scale


def _regressions(problem: SubsetProblem) -> list[tuple[slice, SubsetProblem]]:
    """The regressions of a reduced problem: one a row, or one with the rows' curvatures as blocks."""
    m, n = problem.W.shape
    if problem.budget.kind != "per_layer":
        return [(slice(r, r + 1), problem.row(r)) for r in range(m)]
    H = problem.hessian.dense(0)
    if m > 1:
        H = scipy.linalg.block_diag(*(problem.hessian.dense(r) for r in range(m)))
    prune = int(problem.pools.prune[0])
    return [(slice(0, m), SubsetProblem(problem.W.reshape(1, m * n), H, Budget.per_row(prune)))]


def _price(row: SubsetProblem, control: Control) -> float:
    """What one more kept entry must cost for `keep` entries to be the best choice, by local search.

    It is the slope of the row's curve there. Where the curve is not convex no price has `keep` entries as its
    best choice; the bound then stays below the optimum.
    """
    keep = int(row.pools.keep[0])
    costs = {}
    for count in {max(keep - 1, 0), min(keep + 1, row.n)}:
        problem = SubsetProblem(row.W, row.hessian, Budget.per_row(row.n - count))
        mask, _, _ = LocalSearch().improve(problem, greedy_mask(problem), control.stopped)
        costs[count] = problem.value(mask)
    fewest, most = min(costs), max(costs)
    return float((costs[fewest] - costs[most]) / max(most - fewest, 1))


def _with_count(row: SubsetProblem, kept: Mask, keep: int) -> Mask:
    """A support of `keep` entries from a peer's: greedily without what is too much, or with what is missing.

    With P pruned and `M = ([H^-1]_PP)^-1`, `u = M w_P`, restoring i lowers the cost by `u_i^2 / (2 M_ii)`;
    pruning goes by the greedy rule on the survivors, whose weights have moved.
    """
    kept = kept.copy()
    H, w = row.hessian.dense(0), row.W[0]
    missing = keep - int(kept.sum())
    if missing < 0:
        S, P = np.flatnonzero(kept), np.flatnonzero(~kept)
        A = H[np.ix_(S, S)]
        moved = w[S] + np.linalg.solve(A, H[np.ix_(S, P)] @ w[P])
        rest = SubsetProblem(moved[None], A, Budget.per_row(-missing))
        kept[S[greedy_mask(rest)[0]]] = False
    inverse = np.asarray(np.linalg.inv(H)) if missing > 0 else H
    for _ in range(max(missing, 0)):
        P = np.flatnonzero(~kept)
        M = np.linalg.inv(inverse[np.ix_(P, P)])
        u = M @ w[P]
        kept[P[np.argmax(u * u / np.diagonal(M))]] = True
    return kept
