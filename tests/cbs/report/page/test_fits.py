import numpy as np
import pytest
from scipy.stats import linregress, t

from cbs.report.page.cells import prepared
from cbs.report.page.fits import fit, growth
from tests.cbs.report.page.cells_for_tests import frame, solve, study


@pytest.mark.parametrize("model", ["power", "exponential"])
def test_least_squares_are_scipys(model):
    rng = np.random.default_rng(0)
    n = rng.integers(8, 100, size=30).astype(float)
    seconds = np.exp(0.3 * np.log(n) + rng.normal(size=30))
    mine = fit(n, seconds, model)
    other = linregress(np.log(n) if model == "power" else n, np.log(seconds))
    assert mine.slope == pytest.approx(other.slope)
    assert mine.intercept == pytest.approx(other.intercept)
    reach = t.ppf(0.975, 28) * other.stderr
    assert (mine.low, mine.high) == pytest.approx((other.slope - reach, other.slope + reach))


def test_a_law_is_found_again():
    n = np.array([8.0, 16, 32, 64, 128])
    power, exponential = fit(n, 2e-3 * n**2, "power"), fit(n, 1e-2 * 1.1**n, "exponential")
    assert power.slope == pytest.approx(2.0)
    assert power.size_at(20.0) == pytest.approx(100.0)
    assert np.exp(exponential.slope) == pytest.approx(1.1)
    assert exponential.size_at(float(1e-2 * 1.1**200)) == pytest.approx(200.0)
    assert exponential.seconds(np.array([50.0])) == pytest.approx(1e-2 * 1.1**50)


def test_too_little_is_not_fitted():
    assert fit(np.array([8.0, 8, 16, 16, 16]), np.ones(5), "power") is None
    assert fit(np.array([8.0, 16, 32]), np.ones(3), "power") is None
    assert fit(np.array([8.0, 16, 32, 64, 128]), np.full(5, 1.0), "power").size_at(9.0) == np.inf


def test_capped_runs_are_left_out_and_counted():
    rows = [solve(f"p{n}", "exact", 1e-3 * n**2, bound=1.0, n=n) for n in (8, 12, 16, 24, 32)]
    rows.append(solve("big", "exact", 10.0, bound=0.1, status="time_limit", n=128))
    table, fits = growth(prepared(frame(*rows)))
    assert fits["exact"][0].slope == pytest.approx(2.0)
    assert table["capped"].tolist() == [1, 1]
    assert table.loc[table["model"] == "power", "limit_at_n"].item() == pytest.approx(100.0)
    assert table["better"].tolist() == [True, False]


def test_nothing_is_fitted_to_nothing():
    table, fits = growth(prepared(study()[0]).head(0))
    assert table.empty
    assert fits == {}
