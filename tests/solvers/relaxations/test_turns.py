"""Shares of what is left of a deadline."""

import time

import pytest

from solvers.control import Control
from solvers.relaxations.turns import Turns


@pytest.mark.parametrize("threads", ["1", "2"])
def test_everyone_who_waits_has_the_same_share_of_what_is_left(threads, monkeypatch):
    monkeypatch.setattr("solvers.relaxations.turns.workers", lambda: int(threads))
    turns = Turns(Control(deadline=time.perf_counter() + 1000.0), 4)
    shares = [turns.share() for _ in range(4)]
    per = [1000.0 * min(int(threads), k) / k for k in (4, 3, 2, 1)]
    assert shares == pytest.approx(per, rel=1e-2)


def test_with_less_than_a_turn_takes_for_all_the_first_get_that_much():
    turns = Turns(Control(deadline=time.perf_counter() + 10.0), 1000, 2.0)
    assert [turns.share() for _ in range(3)] == [2.0, 2.0, 2.0]


def test_a_turn_is_over_with_its_share_or_the_deadline_or_when_the_search_stops():
    control = Control(deadline=time.perf_counter() + 1000.0)
    over = Turns(control, 4).over()
    assert not over()
    control.interrupted = True
    assert over()
    assert Turns(Control(deadline=time.perf_counter()), 3).over()()
    assert Turns(Control(), 3).over()()
