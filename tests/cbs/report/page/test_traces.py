import numpy as np
import pytest

from cbs.report.page.traces import Trace, gap_of, quartiles, times


def made():
    return Trace.of(
        {
            "trace_seconds": np.array([1.0, 2.0, 4.0]),
            "trace_value": np.array([np.inf, 4.0, 2.0]),
            "trace_bound": np.array([1.0, 1.0, 1.5]),
        },
        2.0,
        2.0,
        5.0,
    )


def test_gaps_at_times():
    trace = made()
    found = trace.at(np.array([0.5, 1.5, 2.0, 3.9, 4.0, 5.0, 99.0]), trace.gaps)
    assert found.tolist() == [1.0, 1.0, 0.75, 0.75, 0.25, 0.0, 0.0]


def test_the_primal_integral_is_an_area():
    trace = made()  # nothing until 2, then twice the best, (4 - 2) / 4, until 4
    assert trace.integral(2.0, 8.0) == pytest.approx((2 * 1.0 + 2 * 0.5) / 8)
    fine = np.linspace(0, 8, 80001)[:-1] + 5e-5
    assert trace.integral(2.0, 8.0) == pytest.approx(trace.at(fine, trace.excess(2.0)).mean(), abs=1e-6)


def test_histories_only_improve():
    trace = Trace.of({"trace_seconds": np.array([2.0, 1.0]), "trace_value": np.array([3.0, 2.0]),
                      "trace_bound": np.array([np.nan, 1.0])})  # fmt: skip
    assert trace.seconds.tolist() == [1.0, 2.0]
    assert trace.value.tolist() == [2.0, 2.0]
    assert trace.bound.tolist() == [1.0, 1.0]


def test_long_traces_keep_their_ends():
    rng = np.random.default_rng(0)
    seconds = np.sort(rng.exponential(size=5000))
    long = Trace(seconds, np.linspace(9, 1, 5000), np.linspace(0, 1, 5000))
    short = long.short(40)
    assert 10 < len(short.seconds) <= 40
    assert (short.seconds[0], short.value[-1]) == (seconds[0], 1.0)
    assert np.isin(short.seconds, seconds).all()
    assert made().short().seconds.tolist() == made().seconds.tolist()


def test_gaps_of_what_is_not_known():
    assert gap_of(np.array([np.inf, 1.0, 0.0, 1.0]), np.array([0.0, -np.inf, 0.0, 3.0])).tolist() == [
        1,
        1,
        0,
        0,
    ]


def test_quartiles_and_times():
    heights = [np.full(3, float(i)) for i in range(5)]
    assert [q[0] for q in quartiles(heights)] == [1.0, 2.0, 3.0]
    grid = times([made()])
    assert grid[0] == pytest.approx(1.0)
    assert grid[-1] == pytest.approx(5.0)


def test_arrays_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="2 times, 1 values"):
        Trace.of({"trace_seconds": np.ones(2), "trace_value": np.ones(1), "trace_bound": np.ones(2)})
