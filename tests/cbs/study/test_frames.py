import pandas as pd
import pytest

from cbs.study.cell import Answer, Cell
from cbs.study.export import export
from cbs.study.frames import chosen, column, columns_of, exploded, read, records
from cbs.study.schema import JSON
from cbs.study.store import Store


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.sqlite", create=True) as store:
        made = [
            Cell("call", f"a={a}", "", "f", {"depth": a}, parameters={"parameters": {"a": a}, "revision": 0})
            for a in (1, 2)
        ]
        keys, _ = store.plan(made, study="s", version="1", machine="m")
        for a, key in enumerate(keys, 1):
            store.claim(key, "me")
            rows = [{"x": a, "y": 0.5}, {"x": 10 * a, "y": None}]
            store.finish(
                key, "me", Answer({"value": a / 3, "status": "ok"}, {"text": "ä\n", "rows": rows}), "h"
            )
        yield store


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_export_reads_back_as_the_store_does(tmp_path, store, suffix):
    path = tmp_path / f"s.{suffix}"
    assert export(store, path) == 2
    one, two = read(tmp_path / "s.sqlite"), read(path)
    assert list(two.columns) == [name for name in one.columns if name not in ("owner", "heartbeat")]
    for name in two.columns:
        for left, right in zip(one[name], two[name], strict=True):
            if name not in JSON and pd.isna(left):
                assert pd.isna(right), name
            else:
                assert left == right, name
    assert two["value"].tolist() == [1 / 3, 2 / 3]
    assert two["result"][1]["text"] == "ä\n"


def test_entries_of_mappings_are_columns_too(tmp_path, store):
    frame = read(tmp_path / "s.sqlite")
    assert column(frame, "value").tolist() == [1 / 3, 2 / 3]
    assert column(frame, "result.text").tolist() == ["ä\n"] * 2
    assert column(frame, "options.depth").tolist() == [1, 2]
    assert column(frame, "parameters.a").tolist() == [1, 2]
    assert {"parameters.a", "parameters.revision", "result.rows"} <= set(columns_of(frame))
    with pytest.raises(ValueError, match=r"unknown column 'result.texd'; did you mean 'result.text'"):
        column(frame, "result.texd")
    rows = exploded(frame, "rows")
    assert rows["x"].tolist() == [1, 10, 2, 20]
    assert rows["value"].tolist() == [1 / 3, 1 / 3, 2 / 3, 2 / 3]


def test_finished_cells_are_flat_mappings(tmp_path, store):
    key = store.plan([Cell("call", "a=3", "", "f")], study="t", version="1", machine="m")[0][0]
    found = records(read(tmp_path / "s.sqlite"))
    assert key not in [row["key"] for row in found]
    assert [(row["a"], row["value"], row["text"], row["rows"][1]["x"]) for row in found] == [
        (1, 1 / 3, "ä\n", 10), (2, 2 / 3, "ä\n", 20),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"x,y\n1,2\n", "has no column 'key'"),
        ("a.csv", b"", "can't be read"),
        ("a.parquet", b"not parquet", "can't be read"),
        ("a.csv", b"key,kind,instance,solver,state,result\nk,call,i,f,done,{\n", "does not hold JSON"),
    ],
)
def test_other_tables_are_refused_in_a_line(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told) as raised:
        read(tmp_path / name)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="can't be read"):
        read(tmp_path / "none.csv")


def test_cells_are_chosen_by_their_columns(tmp_path, store):
    frame = read(tmp_path / "s.sqlite")
    assert chosen(frame, {"parameters.a": [2, 5]})["value"].tolist() == [2 / 3]
    assert chosen(frame, {"status": "o*", "kind": "call"})["value"].tolist() == [1 / 3, 2 / 3]
    assert chosen(frame, {"n": 3}).empty
    assert len(chosen(frame, {})) == 2
    with pytest.raises(ValueError, match="unknown column 'kinds'; did you mean 'kind'"):
        chosen(frame, {"kinds": "call"})
