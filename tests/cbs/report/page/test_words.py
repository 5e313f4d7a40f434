import pytest

from cbs.report.page.words import left_out, listed, percent, seconds, several


def test_counts_and_lists():
    assert several(1, "cell") == "1 cell"
    assert several(1200, "entry", "entries") == "1,200 entries"
    assert listed([]) == ""
    assert listed(["a", "b"]) == "a and b"
    assert listed("abcdefgh") == "a, b, c, d, e and 3 more"
    assert left_out({"a": "slow", "b": "slow", "c": "lost"}) == " Left out: a and b (slow); c (lost)."


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.0123, "12.3 ms"),
        (1.5, "1.5 s"),
        (599.0, "599 s"),
        (900.0, "15 min"),
        (90000.0, "25 h"),
        (float("inf"), "-"),
    ],
)
def test_times(value, told):
    assert seconds(value) == told


def test_shares():
    assert percent(0.12345, 2) == "12.35%"
    assert percent(float("nan")) == "-"
