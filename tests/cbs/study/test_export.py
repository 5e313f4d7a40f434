import numpy as np
import pytest

from cbs.study.cell import Answer, Cell
from cbs.study.export import export, export_arrays
from cbs.study.store import Store


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "s.sqlite", create=True) as store:
        keys, _ = store.plan([Cell("call", f"{i}", "", "f", parameters={"i": i}) for i in range(3)],
                             study="s", version="1", machine="m")  # fmt: skip
        for i, key in enumerate(keys[:2]):
            store.claim(key, "me")
            store.finish(key, "me", Answer({"value": float(i)}, {}, {"x": np.arange(i)} if i else {}), "h")
        yield store


def test_arrays_are_written_beside(tmp_path, store):
    keys = store.members("s")
    assert export_arrays(store, tmp_path / "arrays") == 1
    with np.load(tmp_path / "arrays" / f"{keys[1]}.npz", allow_pickle=False) as archive:
        assert archive["x"].tolist() == [0]
    assert export_arrays(store, tmp_path / "arrays") == 1


def test_some_cells_can_be_exported(tmp_path, store):
    assert export(store, tmp_path / "a.csv", keys=store.members("s")[:1]) == 1
    text = (tmp_path / "a.csv").read_text()
    assert text.count("\n") == 2
    assert "owner" not in text.split("\n")[0]


@pytest.mark.parametrize(
    ("name", "form", "told"),
    [
        ("a.xlsx", "cells", "must end in .parquet or .csv"),
        ("a.csv", "bencopt", "did you mean 'benchopt'"),
        ("no/a.csv", "cells", "no"),
    ],
)
def test_bad_places_and_formats_are_told(tmp_path, store, name, form, told):
    with pytest.raises(ValueError, match=told):
        export(store, tmp_path / name, form=form)
