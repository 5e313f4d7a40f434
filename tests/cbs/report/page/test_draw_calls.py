import plotly.graph_objects as go

from cbs.report.page import compose
from tests.cbs.report.page.cells_for_tests import call, frame

ROWS = [
    call("peer", {"k": k, "method": m, "data": d}, {"bytes": 8}, value=value + k, seconds=0.01 * k)
    for m, value in (("omp", 1.0), ("lasso", 3.0))
    for k in (1, 2, 8)
    for d in ("wine", "digits")
]


def figures(*rows):
    return {figure.name: figure for figure in compose(frame(*rows)).figures}


def test_measurements_against_what_was_asked():
    found = figures(*ROWS)
    assert list(found) == ["value-peer-0", "seconds-peer-0", "calls-peer-0"]
    value = found["value-peer-0"]
    go.Figure(value.spec)
    lines = {trace["name"]: (trace["x"], trace["y"]) for trace in value.spec["data"]}
    assert lines == {"omp": ([1, 2, 8], [2.0, 3.0, 9.0]), "lasso": ([1, 2, 8], [4.0, 5.0, 11.0])}
    assert "a line a method" in value.caption
    assert "least, 2, at k 1 and method omp, and the most, 11, at k 8 and method lasso" in value.finding
    assert found["calls-peer-0"].spec is None
    assert list(found["calls-peer-0"].summary) == ["k", "method", "data", "value", "seconds", "bytes"]


def test_words_along_the_axis():
    rows = [call("bound", {"split": s}, {}, gap=gap) for s, gap in (("own", 0.06), ("shared", 0.13))]
    (figure, _) = figures(*rows).values()
    assert figure.spec["layout"]["xaxis"]["type"] == "category"
    assert figure.spec["data"][0]["x"] == ["own", "shared"]


def test_what_does_not_vary_is_not_drawn():
    rows = [call("bound", {"k": k}, {}, gap=gap) for k, gap in ((1, 0.0), (2, 1e-5))]
    assert list(figures(*rows)) == ["calls-bound-0"]
    assert list(figures(call("one", {"k": 1}, {}, value=1.0))) == ["calls-one-0"]


def test_entries_have_a_table():
    found = figures(call("path", {"data": "wine"}, {"sizes": [{"k": 1}, {"k": 2}]}))
    assert found["list-path-sizes-0"].finding == "2 entries of 1 call."


def test_a_function_may_speak_of_cells_and_give_words():
    rows = [
        call("grid", {"cell": c, "n": n}, {"seconds": f"{n}.5", "list": [{"cell": "a"}, {"cell": "b"}]})
        for c, n in ((7, 1), (9, 2))
    ]
    report = compose(frame(*rows))
    found = {figure.name: figure for figure in report.figures}
    assert list(found["calls-grid-0"].summary["cell_"]) == [7, 9]
    assert list(found["list-grid-list-0"].table["cell"]) == [0, 0, 1, 1]
    assert found["seconds-grid-0"].finding.startswith("It is the least, 1.5 s, at cell_ 7 and n 1")
    report.html()
