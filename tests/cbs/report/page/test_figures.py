"""Every figure is one that Plotly accepts, says what it found, and is there only where there is data."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from cbs.report.page import compose
from cbs.report.page.embed import plain
from tests.cbs.report.page.cells_for_tests import frame, prune, solve, study


@pytest.fixture(scope="module")
def figures():
    rows, arrays = study()
    history = [{"sparsity": s, "pruned": {"accuracy": a}} for s, a in ((0.5, 0.9), (0.9, 0.6))]
    more = [prune("joint", 0.5, 0.9), prune("obc", 0.9, 0.8), prune("staged", 0.9, 0.6)]
    more[2]["result"]["history"] = history
    report = compose(pd.concat([rows, frame(*more)], ignore_index=True), lambda key: arrays.get(key, {}))
    return {figure.name: figure for figure in report.figures}


def test_all_are_there(figures):
    assert list(figures) == [
        "accuracy-net", "loss-net", "value-net", "seconds-net", "layers-sparsity-net", "layers-gap-net",
        "stages-net", "profile", "means", "gap-time", "excess-time", "gap-n", "gap-sparsity", "excess",
        "time-n",
        "consistency", "masks",
    ]  # fmt: skip


def test_plotly_accepts_them(figures):
    for figure in figures.values():
        go.Figure(plain(figure.spec))  # which raises for what it does not know
        assert figure.spec["data"]


def test_captions_are_sentences_with_findings(figures):
    rows = {"exact", "slow", "relaxation", "greedy", "joint", "obc"}
    for figure in figures.values():
        for text in (figure.caption, figure.finding):
            assert text.strip().endswith(".")
            assert "nan" not in text.split()
            assert text[0].isupper() or text.split()[0] in rows
        assert len(figure.table) > 0


def test_findings_are_those_of_the_data(figures):
    rows, _ = study()
    exact = rows[rows["solver"] == "exact"]
    assert "exact is the quickest most often" in figures["profile"].finding
    assert f"None of {12 * 9} pairs" in figures["consistency"].finding
    greedy = rows[rows["solver"] == "greedy"]["value"].to_numpy() / exact["value"].to_numpy()
    told = f"greedy in {100 * (greedy < 1 + 1e-9).mean():.1f}%, {100 * (greedy.mean() - 1):.2f}% above."
    assert figures["excess"].finding.endswith(told)
    assert "joint keeps 90.00% at 50.0% and obc keeps 80.00% at 90.0%; the dense network has 97.00%" in (
        figures["accuracy-net"].finding
    )
    assert "staged at 90.0%" in figures["stages-net"].finding
    assert "-30.00 points" in figures["stages-net"].finding


@pytest.mark.parametrize(
    ("rows", "name", "finding"),
    [
        (
            [solve(p, s, bound=1.0) for p in "pq" for s in "abc"], "profile",
            "a, b and c are the quickest equally often (100.0% of the tasks); all prove as many (100.0%).",
        ),
        (
            [solve(p, s, bound=0.5, status="time_limit") for p in "pq" for s in "ab"], "profile",
            "None of them brings a task to the gap asked.",
        ),
        (
            [solve("p", s, 1 + (s == "b"), bound=1.0 if s != "c" else 0.5,
                   status="optimal" if s != "c" else "time_limit") for s in "abc"], "profile",
            "a is the quickest most often (100.0% of the tasks); a and b prove the most (100.0%).",
        ),
        (
            [solve("p", s, bound=1.0) for s in "ab"], "means",
            "a needs 1 s in the mean and proves 1 of 1; b needs as long and proves 1.",
        ),
        (
            [solve("p", "a", value=0.0, bound=0.0), solve("p", "b", value=1.0, status="feasible")], "excess",
            "b finds the optimum in 0.0% of its runs and is infinitely far above it in the mean.",
        ),
        (
            [prune(m, 0.5, 0.9) for m in ("joint", "obc")], "value-net",
            "In the median over sparsities it is 1 by every method.",
        ),
        ([prune("joint", 0.5, 0.9)], "layers-sparsity-net", "It is 50.00% in every layer."),
    ],
)  # fmt: skip
def test_findings_of_what_is_equal_name_all_or_none(rows, name, finding):
    found = {figure.name: figure for figure in compose(frame(*rows)).figures}
    assert found[name].finding == finding


def test_fits_say_of_which_time_limit_they_are():
    told = []
    for limits in ((10.0,), (1.0, 10.0)):
        rows = [
            solve(f"p{n}", "a", n / 10, bound=1.0, n=n, time_limit=t) for n in (8, 16, 32) for t in limits
        ]
        (figure,) = [f for f in compose(frame(*rows)).figures if f.name == "time-n"]
        told.append("proved the gap, of every solver at its largest time limit, a power" in figure.caption)
    assert told == [False, True]


def test_traces_without_any_mask():
    traces = {"trace_seconds": [1.0, 2.0], "trace_value": [np.inf, np.inf], "trace_bound": [0.1, 0.5]}
    rows = [solve(p, "a", value=None, bound=0.5, status="time_limit") for p in "pq"]
    report = compose(frame(*rows), lambda key: traces)
    assert "excess-time" not in [figure.name for figure in report.figures]


def test_contradictions_are_told():
    rows = [solve("p", "a", value=2.0, bound=1.9), solve("p", "b", value=1.0, bound=0.5, status="feasible")]
    (figure,) = [f for f in compose(frame(*rows)).figures if f.name == "consistency"]
    assert (
        "1 contradiction: the worst is the bound of a, 0.9 (relative) above a mask of b on p"
        in figure.finding
    )
    assert figure.summary["solver"].tolist() == ["a"]


@pytest.mark.parametrize(
    "rows",
    [
        [solve("p", "a", None, None, state="planned", status=None)],
        [solve("p", "a", None, None, state="failed", status=None)],
        [solve("p", "greedy", status="feasible")],
        [{"kind": "call", "solver": "f", "state": "done", "result": {"x": 1}}],
        [prune("joint", None, None)],
    ],
    ids=["planned", "failed", "heuristic", "call", "nothing known"],
)
def test_little_data_is_no_error(rows):
    report = compose(frame(*rows))
    names = {figure.name.removesuffix("-net") for figure in report.figures}
    assert names <= {"value", "seconds", "layers-sparsity", "layers-gap", "calls-f-0"}
    assert "</html>" in report.html()


def test_looks_are_the_same_in_all_figures(figures):
    seen = {}
    for name, figure in figures.items():
        for trace in figure.spec["data"]:
            label = (trace.get("meta") or {}).get("label")
            colour = trace.get("line", {}).get("color") or trace.get("marker", {}).get("color")
            if label and colour and name != "masks":
                assert seen.setdefault(label, colour) == colour, name
    assert len(seen) == 7


def test_names_are_unique_whatever_networks_are_called():
    rows = [
        prune("a", s, 0.9, instance=name) for name in ("net-1", "net", "net 1", "<b>") for s in (0.5, 0.9)
    ]
    names = [figure.name for figure in compose(frame(*rows)).figures]
    assert len(names) == len(set(names)) > 12
