import numpy as np
import pytest

from cbs.report.page.sources import read
from cbs.study import Answer, Cell, Store
from tests.cbs.report.page.cells_for_tests import solve, study


def store(path):
    """A store of two studies with a cell each."""
    cells = {
        name: Cell("solve", f"p-{name}", f"d-{name}", "exact", time_limit=1.0, gap=1e-4, facts={"n": 8})
        for name in ("first", "second")
    }
    with Store.open(path, create=True) as opened:
        for name, cell in cells.items():
            (key,), _ = opened.plan([cell], study=name, version="1", machine="m")
            opened.claim(key, "me")
            mask = {"mask": np.packbits([True, False, True]), "mask_shape": np.array([1, 3])}
            opened.finish(
                key, "me", Answer({"value": 2.0, "bound": 2.0, "status": "optimal"}, {}, mask), "host"
            )


def test_stores(tmp_path):
    path = tmp_path / "all.sqlite"
    store(path)
    with read(path) as source:
        assert sorted(source.frame["instance"]) == ["p-first", "p-second"]
        assert source.page == tmp_path / "all.html"
        assert set(source.arrays(source.frame["key"][0])) == {"mask", "mask_shape"}
        assert source.arrays("nobody") == {}
    with read(f"sqlite:///{path}", study="second") as source:
        assert source.frame["instance"].tolist() == ["p-second"]
        assert source.page.name == "report.html"
    with (
        pytest.raises(ValueError, match="unknown study 'secnd'; did you mean 'second'"),
        read(path, study="secnd"),
    ):
        pass


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_exported_tables(tmp_path, suffix):
    from cbs.study.export import export, export_arrays

    place, table = tmp_path / "all.sqlite", tmp_path / f"t{suffix}"
    store(place)
    with Store.open(place) as opened:
        export(opened, table)
        export_arrays(opened, tmp_path / "t-arrays")
    with read(table) as source:
        assert sorted(source.frame["instance"]) == ["p-first", "p-second"]
        assert source.arrays(source.frame["key"][0])["mask_shape"].tolist() == [1, 3]
    with read(table, study="first") as source:
        assert source.frame["instance"].tolist() == ["p-first"]
    (tmp_path / "t-arrays" / "bad.npz").write_bytes(b"nothing")
    with read(table, arrays=tmp_path / "t-arrays") as source:
        with pytest.raises(ValueError, match=r"bad\.npz|pickle"):
            source.arrays("bad")
        assert source.arrays("../t") == {}


def test_what_is_no_source_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("key,kind\n")
    for place, settings, told in (
        (tmp_path / "no.sqlite", {}, "is not there"),
        (tmp_path, {}, r"no run folder .*; give that of `cbs prune`, or a store"),
        (tmp_path, {"arrays": tmp_path}, "arrays belong to an exported table"),
        (tmp_path, {"study": "s"}, "has no studies"),
        (tmp_path / "t.csv", {}, "has no column"),
        (tmp_path / "no.csv", {"arrays": tmp_path / "no"}, "can't be read"),
    ):
        with pytest.raises(ValueError, match=told) as raised, read(place, **settings):
            pass
        assert "\n" not in str(raised.value)


def test_a_missing_folder_of_arrays_is_told(tmp_path):
    rows, _ = study()
    rows.to_csv(tmp_path / "t.csv")
    with pytest.raises(ValueError, match="is no folder"), read(tmp_path / "t.csv", arrays=tmp_path / "no"):
        pass
    assert solve("p", "a")["kind"] == "solve"
