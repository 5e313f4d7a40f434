"""Who gets the time: easy proofs first, then the layer with the widest gap, again and again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cbs.references import References
from cbs.watch import Watch
from solvers import Solution, Solver, SubsetProblem, get_solver
from solvers.heuristics.published.saliency import Magnitude
from solvers.problem import Mask

FALLBACK = Magnitude()
"""What finishes the layers that an interrupted pruning had not come to."""
FIRST = 0.5
"""Of the time that a layer would get if all that wait got as much: what it may take at first."""
NEXT = 0.5
"""Of the time left: what the layer with the widest gap may take then."""
LEAST = 0.02
"""Share of the time limit that is too little for another turn."""


@dataclass
class Turn:
    """A problem of a layer, or of several, and what is known of it.

    Attributes:
        index: place of the layer.
        name: of the layer; None of several.
        problem: to be solved.
        solver: that solves it.
        start: a mask to start from, or None.
        weight: of its objective beside the other layers'.
        taken: told what was found, once it is; the turns after this one may depend on it.
        solution: the best so far, with the seconds of all turns.
        tired: whether its last turn gained nothing.
    """

    index: int
    name: str | None
    problem: SubsetProblem
    solver: str | Solver
    start: Mask | None = None
    weight: float = 1.0
    taken: Callable[[Solution], object] | None = None
    solution: Solution | None = None
    tired: bool = False

    @property
    def answer(self) -> Solution:
        """The best so far, once there is one."""
        assert self.solution is not None
        return self.solution

    def take(self, found: Solution) -> None:
        """Keep the better mask."""
        if self.solution is not None:
            better = found if found.value < self.solution.value else self.solution
            found = replace(better, seconds=self.solution.seconds + found.seconds)
        self.solution = found


def in_turns(turns: Sequence[Turn], gap: float, watch: Watch, references: References | None) -> None:
    """Solve all problems; what is found is in the turns, what is proven in the references.

    Without a time limit each is solved once. With one, narrow layers come first, as their proofs are quick.
    What none of them needs is shared by those after them; layers that stay open get the relaxation's bound,
    and then turns from their best masks, the widest gap first, until the time is up. Where nothing is proven
    that references hold, each has one turn, by its size.

    Args:
        turns: every layer's.
        gap: relative gap at which a layer needs no further turn.
        watch: of the run.
        references: of the network, where the problems are those that they bound; else None.
    """
    total = watch.control.remaining
    if total is None or references is None or get_solver(turns[0].solver).proves == "nothing":
        if watch.control.executor is not None and total is None:
            _at_once(turns, watch, references)
            turns = [turn for turn in turns if turn.solution is None]
        sizes = np.array([turn.problem.W.size for turn in turns], dtype=float)
        for i, turn in enumerate(turns):
            _solve(turn, watch, references, float(sizes[i] / sizes[i:].sum()))
        return
    waiting = sorted(turns, key=lambda turn: (turn.problem.n, turn.problem.W.size))
    for done, turn in enumerate(waiting):
        share = FIRST / (len(waiting) - done)
        _solve(turn, watch, references, share)
        if _open(turn, gap, references) and not watch.interrupted:
            references.relax(turn.index, turn.problem, watch, share)
    while True:
        live = [turn for turn in turns if not turn.tired and _open(turn, gap, references)]
        if not live or watch.interrupted or (watch.control.remaining or 0.0) < LEAST * total:
            return
        widest = max(live, key=lambda turn: _open(turn, gap, references))
        before = widest.answer.value, _bound(widest, references)
        _solve(widest, watch, references, NEXT if len(live) > 1 else 1.0)
        widest.tired = (widest.answer.value, _bound(widest, references)) == before


def _at_once(turns: Sequence[Turn], watch: Watch, references: References | None) -> None:
    """Solve problems of layers side by side on the watch's executor, unless they depend on each other."""
    if len(turns) < 2 or watch.interrupted or any(turn.taken is not None for turn in turns):
        return
    watch.tell("select")
    found = watch.solve_all(
        [turn.problem for turn in turns], [turn.solver for turn in turns], [turn.start for turn in turns]
    )
    for turn, solution in zip(turns, found, strict=True):
        if solution is None:
            continue
        if references is not None:
            references.learn(turn.index, turn.problem, solution)
        turn.take(solution)


def _solve(turn: Turn, watch: Watch, references: References | None, share: float) -> None:
    watch.tell("select", turn.name, turn.index)
    start = turn.start if turn.solution is None else turn.solution.mask
    solution = watch.solve(
        turn.problem, FALLBACK if watch.interrupted else turn.solver,
        stage="select", layer=turn.name, index=turn.index, share=share, warm_start=start,
    )  # fmt: skip
    if references is not None:
        references.learn(turn.index, turn.problem, solution)
    turn.take(solution)
    if turn.taken is not None:
        turn.taken(solution)


def _bound(turn: Turn, references: References) -> float:
    return references.known(turn.index, turn.problem.budget).bound


def _open(turn: Turn, gap: float, references: References) -> float:
    """The weighted width of what is not proven; 0 once the gap asked for is."""
    value, bound = turn.answer.value, _bound(turn, references)
    wide = value - bound > gap * abs(value)
    return turn.weight * (value - bound if math.isfinite(bound) else value) if wide else 0.0
