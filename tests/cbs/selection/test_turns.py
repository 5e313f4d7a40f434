"""Who gets the time: counted by turns, on a watch whose clock only the turns move."""

import numpy as np
import pytest

from cbs.references import LayerBound
from cbs.selection.turns import LEAST, Turn, in_turns
from solvers import Budget, Solution, Status, SubsetProblem


class Clock:
    """The parts of a watch and its references that turns ask for."""

    def __init__(self, left, bounds):
        self.remaining, self.control, self.interrupted, self.executor = left, self, False, None
        self.bounds, self.known_, self.log = bounds, {}, []

    def tell(self, *where):
        pass

    def solve(self, problem, solver, *, layer, index, share, **rest):
        given = None if self.remaining is None else share * self.remaining
        self.log.append(("solve", layer, given))
        bound, needs = self.bounds[index].pop(0) if self.bounds[index] else (0.0, np.inf)
        if self.remaining is not None:
            self.remaining -= min(needs, given)
        mask = np.zeros(problem.W.shape, bool)
        return Solution(mask, problem.W, 1.0, bound, Status.TIME_LIMIT, 1.0, "auto")

    def learn(self, index, problem, solution):
        self.known_[index] = max(self.known_.get(index, 0.0), solution.bound)

    def known(self, index, budget):
        return LayerBound(self.known_.get(index, -np.inf))

    def relax(self, index, problem, watch, share):
        self.log.append(("relax", index))


def turns(*widths, weights=None, solver="auto"):
    problems = [SubsetProblem(np.ones((1, n)), np.eye(n), Budget.per_row(0)) for n in widths]
    weights = [1.0] * len(widths) if weights is None else weights
    pairs = zip(problems, weights, strict=True)
    return [Turn(i, f"{p.n}", p, solver, weight=w) for i, (p, w) in enumerate(pairs)]


def run(clock, found):
    in_turns(found, 1e-4, clock, clock)
    return [entry[1] for entry in clock.log if entry[0] == "solve"]


def test_easy_proofs_come_first_and_what_they_leave_goes_to_the_rest():
    clock = Clock(60.0, {0: [(0.5, np.inf), (1.0, 5.0)], 1: [(1.0, 0.7)]})
    assert run(clock, turns(100, 25)) == ["25", "100", "100"]
    (_, _, small), (_, _, first), _, (_, _, rest) = clock.log
    assert small == pytest.approx(15.0)
    assert first == pytest.approx(0.5 * 59.3)
    assert rest == pytest.approx(59.3 - first)
    assert clock.log[2] == ("relax", 0)


def test_the_widest_gap_is_next_by_its_weight_and_ends_when_it_gains_nothing():
    bounds = {0: [(0.2, 1.0), (0.2, 1.0)], 1: [(0.6, 1.0), (0.6, 1.0)]}
    assert run(Clock(60.0, bounds), turns(8, 9)) == ["8", "9", "8", "9"]
    bounds = {0: [(0.2, 1.0), (0.2, 1.0)], 1: [(0.6, 1.0), (0.6, 1.0)]}
    assert run(Clock(60.0, bounds), turns(8, 9, weights=[1, 9])) == ["8", "9", "9", "8"]


def test_turns_end_with_the_time():
    clock = Clock(60.0, {0: [(0.01 * i, np.inf) for i in range(50)], 1: [(0.5, np.inf)] * 50})
    run(clock, turns(8, 9))
    assert clock.remaining < LEAST * 60.0


def test_without_a_limit_every_layer_has_one_turn_in_order():
    clock = Clock(None, {0: [], 1: [], 2: []})
    assert run(clock, turns(9, 3, 5)) == ["9", "3", "5"]


def test_a_solver_that_proves_nothing_has_a_turn_by_the_layers_sizes():
    clock = Clock(60.0, {0: [], 1: []})
    assert run(clock, turns(30, 10, solver="tabu")) == ["30", "10"]
    assert clock.log[0][2] == pytest.approx(45.0)
