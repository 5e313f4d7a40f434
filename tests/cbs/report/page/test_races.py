import numpy as np
import pytest
from scipy.stats import gmean

from cbs.report.page.cells import prepared
from cbs.report.page.races import means, profile, race, shifted_mean
from tests.cbs.report.page.cells_for_tests import frame, solve, study


def small():
    """Two problems: `a` is quicker on the first, proves nothing on the second, where `b` does."""
    return prepared(
        frame(
            solve("p", "a", 1.0, bound=1.0),
            solve("p", "b", 4.0, bound=1.0),
            solve("q", "a", 10.0, bound=0.5, status="time_limit"),
            solve("q", "b", 2.0, bound=1.0),
            solve("p", "greedy", 0.1, bound=0.0, status="feasible"),
            solve("q", "greedy", 0.1, bound=0.0, status="feasible"),
        )
    )


def test_ratios_by_hand():
    found = race(small())
    assert found.labels == ["a", "b"]
    assert found.left_out == {"greedy": "gives no bound"}
    ratios = found.cells.set_index(["instance", "label"])["ratio"]
    assert ratios.to_dict() == {("p", "a"): 1.0, ("p", "b"): 4.0, ("q", "a"): np.inf, ("q", "b"): 1.0}


def test_profiles_count_shares():
    rng = np.random.default_rng(0)
    ratios = np.where(rng.random(50) < 0.2, np.inf, np.exp(rng.exponential(size=50)))
    ratios[:3] = 1.0
    steps, shares = profile(ratios)
    for tau in [1.0, 1.5, 3.0, 1e9]:
        reached = shares[np.searchsorted(steps, tau, side="right") - 1]
        assert reached == np.mean([r <= tau for r in ratios])
    assert shares[-1] < 1  # capped runs never get there
    assert profile(np.full(3, np.inf))[1].tolist() == [0.0]


def test_shifted_means_are_scipys():
    times = np.random.default_rng(1).exponential(size=20)
    for shift in (0.1, 1.0, 10.0):
        assert shifted_mean(times, shift) == pytest.approx(gmean(times + shift) - shift, rel=1e-12)


def test_capped_runs_count_their_cap():
    table = means(race(small()), 1.0).set_index("solver")
    assert table.loc["a", "mean_seconds"] == pytest.approx(np.sqrt(2 * 11) - 1)
    assert table.loc["b", "mean_seconds"] == pytest.approx(np.sqrt(5 * 3) - 1)
    assert table.loc["a", ["proven", "capped", "failed"]].tolist() == [1, 1, 0]
    assert table.loc["b", "ratio"] == 1.0


def test_a_failed_run_counts_its_limit():
    rows = [solve("p", "a", bound=1.0), solve("p", "b", bound=1.0), solve("q", "a", bound=1.0)]
    rows.append(solve("q", "b", None, None, state="failed", status=None))
    table = means(race(prepared(frame(*rows))), 1.0).set_index("solver")
    assert table.loc["b", "failed"] == 1
    assert table.loc["b", "mean_seconds"] == pytest.approx(np.sqrt(2 * 11) - 1)


def test_only_shared_tasks_are_compared():
    rows = [solve(p, s, bound=1.0) for p in "pqrst" for s in "ab" if (p, s) != ("t", "b")]
    rows.append(solve("p", "narrow", bound=1.0))
    found = race(prepared(frame(*rows)))
    assert len(found.tasks) == 4
    assert found.tasks_left_out == 1
    assert found.left_out == {"narrow": "ran on 1 of 5 tasks"}


def test_one_solver_is_no_race():
    assert race(prepared(frame(solve("p", "a", bound=1.0)))) is None
    assert race(prepared(frame(solve("p", "a", bound=1.0), solve("q", "b", bound=1.0)))) is None


def test_a_study():
    cells = prepared(study()[0])
    found = race(cells)
    assert found.labels == ["exact", "relaxation", "slow"]
    by = found.cells.groupby("label")["ratio"]
    assert (by.min()[["exact"]] == 1).all()
    assert np.isinf(by.min()["relaxation"])
