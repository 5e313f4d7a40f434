import time

import pytest

from cbs.memo import Memo


def slow(seconds, value=None):
    time.sleep(seconds)
    return value


def test_values_are_computed_once_and_charged_to_everyone():
    memo, calls = Memo(), []
    for _ in range(3):
        memo.reset()
        assert memo.charge == 0
        assert memo("a", lambda: calls.append(1) or slow(0.02, 7)) == 7
        assert memo.charge >= 0.02
    assert len(calls) == 1
    assert 0.02 <= memo.spent < 0.04


def test_what_a_value_needs_is_charged_once():
    memo = Memo()

    def outer():
        memo("inner", lambda: slow(0.03))
        return slow(0.01)

    memo("outer", outer)
    assert 0.04 <= memo.charge < 0.06
    memo("inner", lambda: None)
    assert memo.charge < 0.06
    memo.reset()
    memo("inner", lambda: None)
    assert 0.03 <= memo.charge < 0.04
    memo.reset()
    memo("outer", lambda: None)
    assert memo.charge >= 0.04


def test_a_failure_is_not_kept():
    memo = Memo()
    with pytest.raises(ZeroDivisionError):
        memo("a", lambda: 1 / 0)
    assert memo("a", lambda: 5) == 5
