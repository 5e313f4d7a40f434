import pytest

from cbs.memo import Memo


def test_values_are_computed_once_and_charged_to_everyone(clock):
    memo, calls = Memo(), []
    for _ in range(3):
        memo.reset()
        assert memo.charge == 0
        assert memo("a", lambda: calls.append(1) or clock.advance(20.0) or 7) == 7
        assert memo.charge == pytest.approx(20.0)
    assert len(calls) == 1
    assert memo.spent == pytest.approx(20.0)


def test_what_a_value_needs_is_charged_once(clock):
    memo = Memo()

    def outer():
        memo("inner", lambda: clock.advance(30.0))
        clock.advance(10.0)

    memo("outer", outer)
    assert memo.charge == pytest.approx(40.0)
    memo("inner", lambda: None)
    assert memo.charge == pytest.approx(40.0)
    memo.reset()
    memo("inner", lambda: None)
    assert memo.charge == pytest.approx(30.0)
    memo.reset()
    memo("outer", lambda: None)
    assert memo.charge == pytest.approx(40.0)


def test_a_failure_is_not_kept():
    memo = Memo()
    with pytest.raises(ZeroDivisionError):
        memo("a", lambda: 1 / 0)
    assert memo("a", lambda: 5) == 5
