import signal
import threading
import time

import numpy as np
import pytest

from solvers import Bounds, Budget, Status, solve
from solvers.control import Control, interruptible
from tests.solvers.oracles import make_problem


def interrupt():
    signal.raise_signal(signal.SIGINT)


def test_nothing_stops_a_search_without_limits(clock):
    control = Control(started=clock.now)
    clock.advance(1e6)
    assert control.stopped() is None
    assert control.remaining is None
    assert control.seconds == pytest.approx(1e6)


def test_deadline(clock):
    control = Control(deadline=clock.now + 100.0)
    clock.advance(99.0)
    assert control.stopped() is None
    assert control.remaining == pytest.approx(1.0)
    clock.advance(2.0)
    assert control.stopped() is Status.TIME_LIMIT
    assert control.remaining == 0.0


def test_interruption_goes_before_the_deadline():
    control = Control(deadline=time.perf_counter() - 1.0, interrupted=True)
    assert control.stopped() is Status.INTERRUPTED


@pytest.mark.parametrize(
    ("value", "offset", "target"),
    [(10.0, 0.0, 9.0), (10.0, -30.0, 8.0), (-10.0, 0.0, -11.0), (5.0, -5.0, 5.0)],
)
def test_target_proves_the_value_in_the_original_problems_terms(value, offset, target):
    control = Control(gap=0.1, offset=offset)
    assert control.target(value) == pytest.approx(target, abs=1e-12)
    assert Bounds(target + offset, value + offset).gap <= 0.1 + 1e-12


def test_reports_are_lifted_and_shifted():
    seen = []
    control = Control(callback=seen.append, offset=-2.0, lift=lambda mask: np.pad(mask, ((0, 0), (0, 1))))
    control.report(5.0, 3.0, 7, np.ones((1, 2), dtype=bool))
    control.report(5.0, 6.0)
    assert [step.bounds for step in control.trace] == [Bounds(1.0, 3.0), Bounds(3.0, 3.0)]
    assert [step.nodes for step in seen] == [7, 0]
    assert seen[0].mask.tolist() == [[True, True, False]]
    assert seen[1].mask is None
    assert control.trace[0].mask is None
    assert control.stopped() is None


def test_told_bounds_are_widened_by_the_margin_and_kept_above_the_floor():
    control = Control(gap=0.1, offset=-2.0, margin=0.25, floor=0.0)
    control.report(5.0, 3.0)
    control.report(5.0, -np.inf)
    control.report(5.0, 6.0)
    assert [step.bounds for step in control.trace] == [
        Bounds(0.75, 3.25),
        Bounds(0.0, 3.25),
        Bounds(3.25, 3.25),
    ]


@pytest.mark.parametrize(("margin", "proven"), [(0.0, True), (0.25, True), (0.31, False)])
def test_a_target_is_above_the_value_where_the_margin_swallows_the_gap(margin, proven):
    control = Control(gap=0.1, offset=-2.0, margin=margin)
    assert (control.target(5.0) <= 5.0) == proven
    assert Bounds(control.told(control.target(5.0)), 3.0).gap == pytest.approx(0.1)
    assert control.worthwhile(5.0) >= 0.15


def test_a_true_answer_of_the_callback_stops():
    control = Control(callback=lambda step: step.nodes >= 2)
    control.report(1.0, 0.0, 1)
    assert control.stopped() is None
    control.report(1.0, 0.0, 2)
    assert control.stopped() is Status.INTERRUPTED


def test_a_quiet_control_obeys_the_same_limits_and_tells_nobody():
    seen = []
    parent = Control(gap=0.2, seed=4, callback=seen.append, deadline=time.perf_counter() + 100.0)
    child = parent.quiet(gap=0.1)
    assert (child.gap, parent.quiet().gap, child.seed, child.warm_start) == (0.1, 0.2, 4, None)
    child.report(1.0, 0.0)
    assert not seen
    assert not parent.trace
    assert 99.0 < child.remaining <= 100.0
    assert child.stopped() is None
    parent.interrupted = True
    assert child.stopped() is Status.INTERRUPTED
    assert child.quiet().stopped() is Status.INTERRUPTED


def test_the_first_interrupt_asks_and_the_second_insists():
    before = signal.getsignal(signal.SIGINT)
    control = Control()
    with interruptible(control):
        interrupt()
        assert control.stopped() is Status.INTERRUPTED
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_handler_is_put_back_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), interruptible(Control()):
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is before


def test_nested_controls_both_hear():
    outer, inner = Control(), Control()
    with interruptible(outer):
        with interruptible(inner):
            interrupt()
        assert inner.interrupted
        assert outer.interrupted


def test_other_threads_leave_signals_alone():
    handlers = []

    def work():
        with interruptible(Control()):
            handlers.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [before]


@pytest.mark.parametrize("solver", ["branch-and-bound", "local-search", "auto"])
def test_ctrl_c_during_a_solve_keeps_the_best_mask(solver, rng):
    problem = make_problem(rng, Budget.per_row(6), n=14)
    seen = []

    def callback(step):
        if not seen:
            interrupt()
        seen.append(step)

    solution = solve(problem, solver, gap=0.0, callback=callback)
    assert solution.status is Status.INTERRUPTED
    assert solution.value <= seen[0].bounds.upper * (1 + 1e-12)
    assert problem.pools.violation(solution.mask) is None
    assert solution.bound <= solution.value
