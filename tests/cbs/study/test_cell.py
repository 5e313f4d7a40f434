import hashlib
import json
import math

import numpy as np
import pytest

from cbs.study.cell import Cell, canonical, plain

CELL = Cell("solve", "a", "d1", "Ours", {"x": 1, "y": 2}, 5.0, 1e-4, 0, {"solver": "auto"}, {"n": 8})


def test_keys_are_digests_of_what_identifies_a_cell_and_of_nothing_else():
    text = json.dumps(CELL.identity("1", "m"), sort_keys=True, separators=(",", ":"))
    assert CELL.key("1", "m") == hashlib.sha256(text.encode()).hexdigest()
    other = Cell("solve", "b", "d1", "Theirs", {"y": 2, "x": 1}, 5.0, 1e-4, 0, {"solver": "auto"}, {"n": 9})
    assert other.key("1", "m") == CELL.key("1", "m")


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "prune"}, {"digest": "d2"}, {"options": {"x": 2, "y": 2}}, {"time_limit": None},
        {"gap": 1e-3},        {"seed": 1}, {"parameters": {"solver": "tabu"}},
    ],
)  # fmt: skip
def test_whatever_results_depend_on_changes_the_key(changed):
    fields = {name: getattr(CELL, name) for name in CELL.__dataclass_fields__}
    assert Cell(**{**fields, **changed}).key("1", "m") != CELL.key("1", "m")
    assert CELL.key("2", "m") != CELL.key("1", "m") != CELL.key("1", "n")


def test_calls_are_told_apart_by_their_function():
    one, two = (Cell("call", "case", "", name, parameters={"a": 1}) for name in ("f", "g"))
    assert one.key("1", "m") != two.key("1", "m")


def test_data_are_written_as_json_has_them():
    data = {"a": np.int64(3), "b": np.array([1.5, math.inf]), "c": (True, None), 4: np.float32(0.5)}
    assert plain(data) == {"a": 3, "b": [1.5, None], "c": [True, None], "4": 0.5}
    assert json.loads(canonical(data)) == plain(data)
    assert canonical({"b": 1, "a": 2}) == canonical({"a": 2, "b": 1})


def test_objects_are_no_data():
    with pytest.raises(TypeError, match="set is no data"):
        plain({"a": {1, 2}})
