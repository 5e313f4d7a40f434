import itertools

import numpy as np
import pytest

from cbs.report.page.cells import prepared
from cbs.report.page.optima import best_known, consistency, excess, excess_table
from tests.cbs.report.page.cells_for_tests import frame, solve, study


def test_excess_by_hand():
    cells = prepared(
        frame(
            solve("p", "exact", value=2.0, bound=2.0),
            solve("p", "greedy", value=2.5, status="feasible"),
            solve("q", "exact", value=4.0, bound=4.0),
            solve("q", "greedy", value=4.0, status="feasible"),
            solve("open", "exact", value=4.0, bound=1.0, status="time_limit"),
            solve("open", "greedy", value=9.0, status="feasible"),
        )
    )
    runs = excess(cells).set_index("instance")
    assert runs["label"].unique().tolist() == ["greedy"]
    assert runs["excess"].to_dict() == {"p": 0.25, "q": 0.0}
    line = excess_table(excess(cells)).iloc[0]
    assert (line["runs"], line["optimal"], line["share_optimal"]) == (2, 1, 0.5)
    assert line["mean_excess"] == 0.125
    assert best_known(cells) == {"d-p": 2.0, "d-q": 4.0, "d-open": 4.0}


def test_a_mask_within_the_proof_is_an_optimum():
    cells = prepared(
        frame(
            solve("p", "exact", value=1.0, bound=0.995, gap_asked=0.01),
            solve("p", "h", value=1.004, status="feasible"),
        )
    )
    assert excess(cells)["exact"].tolist() == [True]


def test_an_optimum_of_nothing():
    cells = prepared(
        frame(
            solve("p", "exact", value=0.0, bound=0.0, gap=0.0),
            solve("p", "h", value=0.0, status="feasible"),
            solve("p", "worse", value=0.5, status="feasible"),
        )
    )
    assert excess(cells).set_index("label")["excess"].to_dict() == {"h": 0.0, "worse": np.inf}


def test_without_proofs_there_is_no_excess():
    assert excess(prepared(frame(solve("p", "h", status="feasible")))).empty


def test_consistent_solvers_have_no_contradictions():
    found = consistency(prepared(study()[0]))
    assert found.contradictions.empty
    assert found.problems == 12
    assert found.pairs == 12 * 3 * 3  # three bounds that say something, against the three others' values


def test_contradictions_are_all_found():
    rng = np.random.default_rng(3)
    rows = [
        solve(f"p{i}", f"s{j}", value=2 + rng.random(), bound=1.6 + rng.random(), status="feasible")
        for i, j in itertools.product(range(5), range(4))
    ]
    found = consistency(prepared(frame(*rows)))
    wrong = {
        (a["instance"], a["solver"], b["solver"])
        for a, b in itertools.permutations(rows, 2)
        if a["instance"] == b["instance"] and a["bound"] > b["value"] * (1 + 1e-6)
    }
    assert len(wrong) > 5
    table = found.contradictions
    assert set(zip(table["instance"], table["solver"], table["other"], strict=True)) == wrong
    assert table["relative"].is_monotonic_decreasing
    assert found.pairs == 5 * 4 * 3
    assert found.by_solver["contradictions"].sum() == len(wrong)


def test_rounding_is_no_contradiction():
    rows = [solve("p", "a", value=1.0, bound=0.9), solve("p", "b", value=1.1, bound=1 + 5e-7)]
    assert consistency(prepared(frame(*rows))).contradictions.empty
    rows[1]["bound"] = 1 + 5e-6
    found = consistency(prepared(frame(*rows))).contradictions
    assert found["relative"].tolist() == [pytest.approx(5e-6)]
