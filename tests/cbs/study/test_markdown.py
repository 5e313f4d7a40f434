"""Tables as Markdown, and curves step by step."""

import pytest

from cbs.study.markdown import markdown, steps


def test_a_table_has_a_line_for_every_line():
    made = markdown(["name", "value"], [["a", 0.25], ["b|c", None], ["d", 3]])
    assert made == "| name | value |\n|---|---|\n| a | 0.25 |\n| b\\|c | - |\n| d | 3 |\n"


def test_a_line_of_another_length_is_refused():
    with pytest.raises(ValueError, match="3 cells where the head has 2"):
        markdown(["name", "value"], [["a", 1, 2]])


def test_a_curve_step_by_step():
    assert list(steps({"kept": [3, 2], "loss": [0.1, 0.2]})) == [
        {"kept": 3, "loss": 0.1}, {"kept": 2, "loss": 0.2},
    ]  # fmt: skip
    with pytest.raises(ValueError, match="shorter"):
        list(steps({"kept": [3, 2], "loss": [0.1]}))
