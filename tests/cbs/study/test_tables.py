import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cbs.study.settings import taken
from cbs.study.studyfile import TABLE
from cbs.study.tables import AGGREGATES, put, table, write


def frame():
    rows = [
        ("done", "a", 8, "x", 1.0), ("done", "a", 8, "x", 3.0), ("done", "a", 16, "x", 10.0),
        ("done", "b", 8, "x", 5.0), ("done", "a", 8, "y", 0.5), ("failed", "a", 8, "y", math.nan),
        ("done", "b", 16, "y", math.nan),
    ]  # fmt: skip
    made = pd.DataFrame(rows, columns=["state", "family", "n", "solver", "value"])
    for name in ("options", "parameters", "result"):
        made[name] = [{} for _ in rows]
    made["result"] = [{"word": solver, "rows": [{"part": 1, "v": 1.0}]} for solver in made["solver"]]
    return made


def asked(**keys):
    return taken({"name": "t", **keys}, TABLE, "here")


def lines(**keys):
    return table(frame(), asked(**keys), Path()).splitlines()


def test_values_are_aggregated_over_rows_and_columns():
    assert lines(rows=["family", "n"], columns="solver", value="value") == [
        "| family | n | x | y |", "|---|---|---|---|",
        "| a | 8 | 2 | 0.5 |", "| a | 16 | 10 | - |", "| b | 8 | 5 | - |", "| b | 16 | - | - |",
    ]  # fmt: skip


def test_formats_patterns_counts_and_the_best():
    where = {"solver": "x", "n": [8]}
    assert lines(rows="family", value="value", format=".1%", where=where)[2:] == [
        "| a | 200.0% |",
        "| b | 500.0% |",
    ]
    assert lines(rows="family", columns="solver", value="value", aggregate="count")[2:] == [
        "| a | 3 | 1 |",
        "| b | 1 | 0 |",
    ]
    assert lines(rows="family", columns="solver", value="value", best="least")[2] == "| a | 4.67 | **0.5** |"
    assert lines(rows="n", value=["value", "result.word"], aggregate="only", where={"solver": "y"})[2:] == [
        "| 8 | 0.5 | y |", "| 16 | - | y |",
    ]  # fmt: skip
    assert lines(rows="part", value="v", aggregate="sum", each="rows")[2:] == ["| 1 | 6 |"]


def test_means_are_what_they_are_called():
    values = np.array([1.0, 3.0, 8.0])
    assert AGGREGATES["geometric"](values) == pytest.approx(24 ** (1 / 3))
    assert AGGREGATES["shifted"](values) == pytest.approx((2 * 4 * 9) ** (1 / 3) - 1)
    assert AGGREGATES["deviation"](values) == pytest.approx(np.std([1, 3, 8], ddof=1))
    assert math.isnan(AGGREGATES["deviation"](values[:1]))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"rows": "famly", "value": "value"}, "unknown column 'famly'; did you mean 'family'"),
        ({"rows": "family", "value": "valu"}, "did you mean 'value'"),
        ({"rows": "family", "value": "value", "aggregate": "meen"}, "did you mean 'mean'"),
        ({"rows": "family", "value": "value", "format": "q"}, "format 'q'"),
        ({"rows": "family", "value": "value", "where": {"slover": 1}}, "did you mean 'solver'"),
    ],
)
def test_mistakes_name_the_table(keys, told):
    with pytest.raises(ValueError, match=told) as raised:
        lines(**keys)
    assert str(raised.value).startswith("table 't': ")


def test_tables_may_be_functions(tmp_path):
    (tmp_path / "t.py").write_text("def made(frame):\n    return f'{len(frame)} rows\\n\\n'\n")
    assert table(frame(), asked(function="t.py:made"), tmp_path) == "7 rows\n"


def test_tables_go_into_one_document_or_one_for_every_value(tmp_path):
    for solver in ("x", "y"):
        (tmp_path / f"{solver}.md").write_text("<!-- t: begin (by a study) -->\n<!-- t: end -->\n")
    made = list(write(frame(), asked(rows="family", value="value", into="{solver}.md"), tmp_path))
    assert made == [tmp_path / "x.md", tmp_path / "y.md"]
    assert "| a | 4.67 |" in (tmp_path / "x.md").read_text()
    assert "| a | 0.5 |" in (tmp_path / "y.md").read_text()
    assert "begin (by a study)" in (tmp_path / "y.md").read_text()
    assert list(write(frame(), asked(rows="n", value="value", into="x.md"), tmp_path)) == [tmp_path / "x.md"]


def test_documents_keep_what_is_around_a_table(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- t: begin -->\nold\n<!-- t: end -->\nafter\n")
    put(path, "t", "| new |\n")
    assert path.read_text() == "before\n<!-- t: begin -->\n\n| new |\n\n<!-- t: end -->\nafter\n"
    with pytest.raises(ValueError, match="must have <!-- u: begin -->"):
        put(path, "u", "x")
    assert "| new |" in path.read_text()
