from cbs.report.page import compose
from tests.cbs.report.page.cells_for_tests import frame, prune, solve


def summary(*rows):
    return compose(frame(*rows), None).summary


def test_facts_count_and_name():
    found = summary(
        solve("p", "exact", 2.0, bound=1.0, machine="m1", version="1", finished=86400.0, started=0.0),
        solve("p", "greedy", 1.0, status="feasible", machine="m1", version="1"),
        prune("joint", 0.5, 0.9, machine="m1"),
    )
    facts = dict(found.facts)
    assert facts["cells"] == "3: 3 done"
    assert facts["solvers"] == "exact and greedy"
    assert facts["methods"] == "joint"
    assert facts["machine"] == "m1"
    assert facts["run"] == "1970-01-01 00:00:00 to 1970-01-02 00:00:00"
    assert facts["computing"] == "3.1 s of runs in all"
    assert found.warnings == []
    assert found.errors == []


def test_warnings():
    found = summary(
        solve("p", "a", value=1.0, bound=1.0, machine="m1", version="1"),
        solve("p", "b", value=3.0, bound=2.0, machine="m2", version="2"),
        solve("q", "a", None, None, state="failed", error="Traceback\nValueError: too much", status=None),
        solve("r", "a", None, None, state="failed", error="Traceback\nValueError: too much", status=None),
        solve("s", "a", None, None, state="planned", status=None),
    )
    told = " ".join(found.warnings)
    assert "2 machines (m1 and m2)" in told
    assert "2 versions (1 and 2)" in told
    assert "2 cells failed" in told
    assert "1 cell is missing" in told
    assert "1 bound contradicts another run's value" in told
    assert found.errors == [(2, "a", "ValueError: too much")]
