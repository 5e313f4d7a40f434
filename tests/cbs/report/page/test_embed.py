import base64
import gzip
import json

import numpy as np
import pandas as pd

from cbs.report.page.cells import prepared
from cbs.report.page.details import gather
from cbs.report.page.embed import CELLS, cells_table, column, details_table, packed, plain, table
from tests.cbs.report.page.cells_for_tests import frame, solve, study


def unpacked(text):
    return json.loads(gzip.decompress(base64.b64decode(text)))


def test_data_come_back_and_hold_no_markup():
    data = {"</script>": [1, None, "<b>\u2028"], "x": {"y": 0.1}}
    text = packed(data)
    assert unpacked(text) == data
    assert not set(text) & set("<>&\"'\\")
    assert packed(data) == text  # the same again, whenever it is made


def test_values_are_made_plain():
    assert plain({"a": np.float64("nan"), "b": (np.int64(3), np.inf), 5: True}) == {
        "a": None,
        "b": [3, None],
        "5": True,
    }
    assert column(pd.Series([1.5, np.inf, np.nan])) == [1.5, None, None]
    assert column(pd.Series(["a", None])) in (["a", None], ["a", float("nan")])
    assert column(pd.Series([True, False])) == [True, False]


def test_columns_of_cells_are_not_written_twice():
    cells = prepared(study()[0])
    part = cells.loc[cells["label"] == "exact", ["cell", "instance", "gap", "n"]].assign(double=2.0, n=7.0)
    made = table(part, cells)
    assert made["columns"] == ["cell", "instance", "gap", "n", "double"]
    assert set(made["data"]) == {"cell", "n", "double"}  # n differs, instance and gap are those of the cells
    assert made["rows"] == 12


def test_all_cells_are_there():
    cells = prepared(frame(solve("p", "a", bound=1.0), solve("q", "b", result={"x": 3, "deep": {}}, nodes=5)))
    made = cells_table(cells)
    assert set(made) == set(CELLS) - {"parameters"}
    assert made["nodes"] == [None, 5.0]
    assert made["result"] == ["", '{"x": 3}']
    json.dumps(made, allow_nan=False)


def test_details_are_short_and_masks_are_bits():
    rows, arrays = study()
    found = details_table(gather(prepared(rows), arrays.__getitem__))
    assert len(found["traces"]) == len(rows)
    assert found["traces"]["0"][1][0] is None  # no mask yet
    mask = found["masks"]["d-p0"]["layers"][0]
    assert mask["shape"] == [2, 8]
    assert (
        base64.b64decode(mask["bits"])
        == arrays[rows.loc[found["masks"]["d-p0"]["cell"], "key"]]["mask"].tobytes()
    )
    json.dumps(found, allow_nan=False)
