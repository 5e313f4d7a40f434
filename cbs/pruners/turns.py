"""Who gets the time: easy proofs first, then the layer with the widest gap, again and again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cbs.references import References
from cbs.request import Request
from cbs.watch import Watch
from solvers import Solution, SubsetProblem, get_solver
from solvers.heuristics.magnitude import Magnitude
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
    """A layer's problem, and what is known of it.

    Attributes:
        index: place of the layer.
        name: of the layer.
        problem: to be solved.
        start: a mask to start from, or None.
        weight: of its objective beside the other layers'.
        solution: the best so far, with the seconds of all turns.
        tired: whether its last turn gained nothing.
    """

    index: int
    name: str
    problem: SubsetProblem
    start: Mask | None
    weight: float
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


def in_turns(turns: Sequence[Turn], request: Request, watch: Watch, references: References) -> None:
    """Solve all layers; what is found is in the turns, what is proven in the references.

    Without a time limit each is solved once. With one, narrow layers come first, as their proofs are quick.
    What none of them needs is shared by those after them; layers that stay open get the relaxation's bound,
    and then turns from their best masks, the widest gap first, until the time is up. A solver that proves
    nothing has one turn for each layer, by its size.

    Args:
        turns: every layer's.
        request: what was asked.
        watch: of the run.
        references: of the network.
    """
    solver = get_solver(request.solver)
    total = watch.control.remaining
    if total is None or solver.proves == "nothing":
        sizes = np.array([turn.problem.W.size for turn in turns], dtype=float)
        for i, turn in enumerate(turns):
            _solve(turn, request, watch, references, float(sizes[i] / sizes[i:].sum()))
        return
    waiting = sorted(turns, key=lambda turn: (turn.problem.n, turn.problem.W.size))
    for done, turn in enumerate(waiting):
        share = FIRST / (len(waiting) - done)
        _solve(turn, request, watch, references, share)
        if _gap(turn, request, references) and not watch.interrupted:
            references.relax(turn.index, turn.problem, watch, share)
    while True:
        live = [turn for turn in turns if not turn.tired and _gap(turn, request, references)]
        if not live or watch.interrupted or (watch.control.remaining or 0.0) < LEAST * total:
            return
        widest = max(live, key=lambda turn: _gap(turn, request, references))
        before = widest.answer.value, _bound(widest, references)
        _solve(widest, request, watch, references, NEXT if len(live) > 1 else 1.0)
        widest.tired = (widest.answer.value, _bound(widest, references)) == before


def _solve(turn: Turn, request: Request, watch: Watch, references: References, share: float) -> None:
    watch.tell("select", turn.name, turn.index)
    start = turn.start if turn.solution is None else turn.solution.mask
    solution = watch.solve(
        turn.problem, FALLBACK if watch.interrupted else request.solver,
        stage="select", layer=turn.name, index=turn.index, share=share, warm_start=start,
    )  # fmt: skip
    references.learn(turn.index, turn.problem, solution)
    turn.take(solution)


def _bound(turn: Turn, references: References) -> float:
    return references.known(turn.index, turn.problem.budget).bound


def _gap(turn: Turn, request: Request, references: References) -> float:
    """The weighted width of what is not proven; 0 once the gap asked for is."""
    value, bound = turn.answer.value, _bound(turn, references)
    open_ = value - bound > request.gap * abs(value)
    return turn.weight * (value - bound if math.isfinite(bound) else value) if open_ else 0.0
