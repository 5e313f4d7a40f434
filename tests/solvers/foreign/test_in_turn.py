"""Parts solved one after the other: shared time and gap, news, and stopping, on made-up solvers."""

import threading
import time

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem
from solvers.control import Control
from solvers.foreign.in_turn import Event, in_turn
from tests.solvers.oracles import all_masks, make_problem, optimum


def three_rows(rng, **given):
    return make_problem(rng, Budget.per_row(3), m=3, **given)


def prove(part):
    part.found(min(all_masks(part.problem), key=part.problem.value))
    part.claim = part.value
    return False


def test_every_part_is_solved_once(rng):
    problem, control = three_rows(rng), Control()
    turns = in_turn(problem, control)
    seen = []

    def solve_part(part):
        seen.append(part.rows)
        return prove(part)

    assert turns.solve(solve_part) is Status.OPTIMAL
    assert seen == [slice(0, 1), slice(1, 2), slice(2, 3)]
    outcome = turns.outcome(Status.OPTIMAL)
    assert problem.value(outcome.mask) == pytest.approx(optimum(problem), rel=1e-12)
    assert outcome.bound == pytest.approx(optimum(problem), rel=1e-12)
    assert outcome.stats["parts"] == 3
    assert control.trace[-1].bounds.gap <= 1e-12


def test_parts_known_to_be_optimal_are_left_alone(rng):
    problem = three_rows(rng)
    floors = [optimum(piece.problem) for piece in in_turn(problem, Control()).parts]
    best = np.concatenate(
        [min(all_masks(p.problem), key=p.problem.value) for p in in_turn(problem, Control()).parts]
    )
    turns = in_turn(problem, Control(warm_start=best), floors)
    assert turns.solve(lambda part: pytest.fail("nothing is left to do")) is Status.OPTIMAL


def test_time_is_shared_and_given_back(rng, clock):
    control = Control(deadline=clock.now + 30.0)
    turns = in_turn(three_rows(rng), control)
    seconds = []

    def solve_part(part):
        seconds.append(part.seconds)
        return prove(part)

    turns.solve(solve_part)
    assert seconds == pytest.approx([10.0, 15.0, 30.0])


def test_a_part_cut_short_gets_the_time_that_others_left(rng):
    control = Control(deadline=time.perf_counter() + 30.0)
    turns = in_turn(three_rows(rng), control)
    calls = []

    def solve_part(part):
        calls.append(part.rows.start)
        if calls == [0]:
            return True
        return prove(part)

    assert turns.solve(solve_part) is Status.OPTIMAL
    assert calls == [0, 1, 2, 0]


def test_unproven_and_cut_short_is_a_time_limit(rng):
    turns = in_turn(three_rows(rng), Control(deadline=time.perf_counter() + 30.0))
    assert turns.solve(lambda part: True) is Status.TIME_LIMIT
    turns = in_turn(three_rows(rng), Control())
    assert turns.solve(lambda part: False) is Status.OPTIMAL


def test_gap_tightens_where_values_cancel():
    gradient = np.zeros((3, 6))
    gradient[0] = 2.0 + 0.01 * np.arange(6)
    problem = SubsetProblem(np.ones((3, 6)), np.eye(6), Budget.per_row(3), refit=False, gradient=gradient)
    turns = in_turn(problem, Control(gap=1e-3))
    values = np.array([part.value for part in turns.parts])
    np.testing.assert_allclose(values, [-4.62, 1.5, 1.5])
    asked = []

    def solve_part(part):
        asked.append(part.gap)
        return prove(part)

    turns.solve(solve_part)
    np.testing.assert_allclose(asked, 1e-3 * 1.62 / 7.62)


def watch(turns, solve, stopping):
    part = turns.parts[0]
    turns.watch(part, solve, stopping.set)
    return part


def test_news_arrive_in_the_calling_thread(rng):
    problem, where = three_rows(rng), []
    control = Control(callback=lambda step: where.append(threading.current_thread()))
    turns = in_turn(problem, control)
    best = min(all_masks(turns.parts[0].problem), key=turns.parts[0].problem.value)

    def solve(report):
        report(Event(best, -1.0, 7))
        report(Event(None, 1e-9, 9))

    turns.parts[0].value = np.inf
    part = watch(turns, solve, threading.Event())
    np.testing.assert_array_equal(part.mask, best)
    assert part.value == part.problem.value(best)
    assert part.claim == 1e-9
    assert part.nodes == 9
    assert set(where) == {threading.main_thread()}


def test_a_stop_reaches_the_solver(rng):
    stopping, heard = threading.Event(), []
    turns = in_turn(three_rows(rng), Control())
    turns.control.deadline = time.perf_counter() + 0.1
    watch(turns, lambda report: heard.append(stopping.wait(20.0)), stopping)
    assert heard == [True]
    assert turns.control.stopped() is Status.TIME_LIMIT


def test_failures_of_the_solver_are_raised(rng):
    def solve(report):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        watch(in_turn(three_rows(rng), Control()), solve, threading.Event())


def test_a_failing_callback_stops_the_solver(rng):
    stopping, ended = threading.Event(), []
    turns = in_turn(three_rows(rng), Control())

    def callback(step):
        raise KeyError("user")

    def solve(report):
        report(Event(next(all_masks(turns.parts[0].problem)), 0.0, 1))
        ended.append(stopping.wait(20.0))

    turns.control.callback = callback
    turns.parts[0].value = np.inf
    with pytest.raises(KeyError, match="user"):
        watch(turns, solve, stopping)
    assert ended == [True]
