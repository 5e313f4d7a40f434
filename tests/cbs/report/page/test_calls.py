import pandas as pd
import pytest

from cbs.report.page.calls import axes, functions, lists, parameters
from cbs.report.page.cells import prepared
from tests.cbs.report.page.cells_for_tests import call, frame


def test_calls_are_rows():
    cells = prepared(
        frame(
            call("measure", {"k": 1, "budget": "80%"}, {"speed": 3.0, "deep": {"x": 1}}, value=2.0),
            call("measure", {"k": 2, "budget": "50%"}, {"speed": 4.0, "k": 9}, value=1.0),
            call("other", {"a": "x"}, {}, state="failed"),
        )
    )
    (table,) = functions(cells).values()
    assert table.to_dict("list") == {
        "cell": [0, 1], "k": [1, 2], "budget": [0.8, 0.5], "value": [2.0, 1.0], "speed": [3.0, 4.0],
    }  # fmt: skip


def test_lists_of_mappings_are_tables_of_their_own():
    sizes = [{"k": 1, "value": 3.0, "mask": [1]}, {"k": 2, "value": 2.0}, "no mapping"]
    cells = prepared(frame(call("path", {"data": "wine"}, {"sizes": sizes, "words": ["a"], "text": "ab"})))
    (((name, key), table),) = lists(cells).items()
    assert (name, key) == ("path", "sizes")
    assert table.to_dict("list") == {"cell": [0, 0], "data": ["wine"] * 2, "k": [1, 2], "value": [3.0, 2.0]}


def test_parameters_in_either_form():
    assert parameters({"parameters": {"parameters": {"a": 1, "list": [1]}, "revision": 0}}) == {"a": 1}
    assert parameters({"parameters": {"a": "12.5%"}}) == {"a": pytest.approx(0.125)}


def test_axes():
    table = pd.DataFrame({"k": [1, 2, 3, 1], "method": list("abab"), "layer": list("xxyz"), "same": [1] * 4})
    assert axes(table, ["method", "layer", "k", "same", "none"]) == ("k", "layer")
    assert axes(table, ["method", "layer"]) == ("layer", "method")
    assert axes(table, ["same"]) == (None, None)
    many = pd.DataFrame({"k": range(30), "name": [f"s{i}" for i in range(30)]})
    assert axes(many, ["k", "name"]) == ("k", None)
