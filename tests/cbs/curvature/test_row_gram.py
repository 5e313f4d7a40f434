"""The value: what it says of itself and refuses."""

import pytest

import cbs
from cbs.curvature import RowGram


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"omega": "gauss-newtn"}, "unknown omega 'gauss-newtn'; did you mean 'gauss-newton'"),
        ({"share": 1.5}, r"share must be a number in \[0, 1\], got 1.5"),
        ({"share": True}, r"share must be a number in \[0, 1\], got True"),
        ({"groups": 0}, "groups must be a whole number of at least 1, got 0"),
        ({"damping": -1.0}, "damping must be a finite number >= 0"),
    ],
)
def test_bad_fields_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        RowGram(**options)
    assert "\n" not in str(error.value)


def test_words_tell_values_apart():
    values = [RowGram(), RowGram("gradient"), RowGram(share=0.5), RowGram(groups=3), RowGram(damping=0.1)]
    assert len({value.words for value in values}) == len(values)
    assert RowGram().requires == ("inputs",)
    assert RowGram("gradient").requires == ("inputs", "targets")
    assert RowGram().damped(0.2) == RowGram(damping=0.2) == RowGram(damping=0.2).damped(0.3)


def test_the_table_has_a_method_of_it():
    row = cbs.methods()["joint-loss"]
    assert row["curvature"].startswith("layer Gram weighted by the gauss-newton")
    assert row["needs"] == "inputs"
