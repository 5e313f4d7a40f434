import numpy as np
import pandas as pd
import pytest

from cbs.report.page.cells import bounding, prepared, solved
from tests.cbs.report.page.cells_for_tests import frame, prune, solve


def test_outcomes():
    cells = prepared(
        frame(
            solve("a", "exact", bound=1.0),
            solve("a", "slow", bound=0.5, status="time_limit"),
            solve("a", "greedy", status="feasible"),
            solve("a", "broken", state="failed", error="ValueError: no"),
            solve("a", "late", state="planned"),
            solve("a", "close", bound=0.99995, status="feasible"),  # within the gap asked, whatever it says
            prune("joint", 0.5, 0.9),
        )
    )
    assert cells["outcome"].tolist() == [
        "proven",
        "capped",
        "unproven",
        "failed",
        "missing",
        "proven",
        "done",
    ]


def test_labels_tell_options_apart():
    cells = prepared(
        frame(
            solve("a", "scip", options={"threads": 1, "cuts": True}),
            solve("a", "scip", options={"threads": 2, "cuts": True}),
            solve("a", "greedy", options={"passes": 3}),
            solve("a", "tabu", options='{"label": "tabu, long"}'),
        )
    )
    assert cells["label"].tolist() == ["scip (threads=1)", "scip (threads=2)", "greedy", "tabu, long"]


def test_the_latest_of_equal_tasks_counts():
    old, new = (
        solve("a", "scip", seconds=s, finished=f, version=v) for s, f, v in ((9, 5.0, "1"), (2, 9.0, "2"))
    )
    cells = solved(prepared(frame(new, old, solve("b", "scip"))))
    assert cells["seconds"].tolist() == [2.0, 1.0]


def test_missing_columns_and_text_are_made_numbers():
    cells = prepared(pd.DataFrame({"kind": ["solve"], "solver": ["x"], "state": ["done"], "n": ["12"]}))
    assert cells["n"].tolist() == [12.0]
    assert np.isnan(cells["value"]).all()
    assert cells["problem"].tolist() == ["row-0"]


def test_times_are_read_in_either_form():
    cells = prepared(frame(solve("a", "x", started=0.0, finished="2026-01-02T03:04:05")))
    assert cells.loc[0, "started"] == "1970-01-01 00:00:00"
    assert cells.loc[0, "finished"] == "2026-01-02 03:04:05"


def test_gaps_are_filled_from_value_and_bound():
    cells = prepared(
        frame(solve("a", "x", value=2.0, bound=1.0, gap=None), solve("b", "x", value=2.0, gap=np.inf))
    )
    assert cells["gap"].tolist()[0] == 0.5
    assert np.isnan(cells["gap"].tolist()[1])


def test_a_bound_of_nothing_bounds_nothing():
    cells = prepared(
        frame(solve("a", "exact", bound=1.0), solve("a", "greedy", bound=0.0, status="feasible"))
    )
    assert bounding(cells) == ["exact"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"kind": "solve", "state": "done", "solvr": "x"}, "no column 'solver'.*did you mean its 'solvr'"),
        ({"kind": "solv", "state": "done", "solver": "x"}, "column 'kind' has 'solv'; it may have solve"),
        ({"kind": "solve", "state": "over", "solver": "x"}, "column 'state' has 'over'"),
    ],
)
def test_tables_that_are_none_are_refused(row, told):
    with pytest.raises(ValueError, match=told):
        prepared(frame(row))
