import math

import pytest

from cbs.study import settings as s

KEYS = {
    "name": s.Key(s.text, s.REQUIRED), "count": s.Key(s.integer(1, 9), 4), "share": s.Key(s.number(0, 1)),
    "kind": s.Key(s.one_of("a", "b"), "a"), "on": s.Key(s.flag, False), "n": s.Key(s.span(s.integer(1))),
    "seeds": s.Key(s.several(s.integer(0)), (0,)), "options": s.Key(s.mapping, {}),
}  # fmt: skip


def test_values_are_taken_and_defaults_filled_in():
    found = s.taken({"name": "x", "n": [2, 5], "seeds": [3, 1], "share": 1}, KEYS, "here")
    assert found == {
        "name": "x", "count": 4, "share": 1.0, "kind": "a", "on": False, "n": (2, 5), "seeds": (3, 1),
        "options": {},
    }  # fmt: skip
    assert s.taken({"name": "x", "n": 7}, KEYS, "here")["n"] == (7, 7)
    assert s.taken({"name": "x", "seeds": 7}, KEYS, "here")["seeds"] == (7,)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"name": "x", "cuont": 3}, r"here: unknown key 'cuont'; did you mean 'count'\?"),
        ({}, "here: name is missing"),
        ({"name": " "}, "name must be a text, got ' '"),
        ({"name": 3}, "name must be a text, got 3"),
        ({"name": "x", "count": 0}, "count must be a whole number of at least 1 and at most 9, got 0"),
        ({"name": "x", "count": True}, "count must be a whole number"),
        ({"name": "x", "count": 2.0}, "count must be a whole number"),
        ({"name": "x", "share": 1.5}, "share must be a number at least 0 and at most 1, got 1.5"),
        ({"name": "x", "share": math.nan}, "share must be a number"),
        ({"name": "x", "share": "a"}, "share must be a number"),
        ({"name": "x", "kind": "c"}, "kind must be one of a, b, got 'c'"),
        ({"name": "x", "on": 1}, "on must be true or false"),
        ({"name": "x", "n": [5, 2]}, r"n must be a number, or \[least, greatest\]"),
        ({"name": "x", "n": [1, 2, 3]}, r"n must be a number, or \[least, greatest\]"),
        ({"name": "x", "seeds": []}, "seeds must not be empty"),
        ({"name": "x", "seeds": [1, 1]}, "seeds names something twice"),
        ({"name": "x", "options": 3}, "options must be a table"),
        (3, "here must be a table, got 3"),
    ],
)
def test_everything_else_is_refused_in_a_line(table, told):
    with pytest.raises(ValueError, match=told) as raised:
        s.taken(table, KEYS, "here")
    assert "\n" not in str(raised.value)


def test_numbers_may_have_open_ends():
    check = s.number(0, open_ends=True)
    assert check(1e-9) == 1e-9
    with pytest.raises(ValueError, match="above 0"):
        check(0)
