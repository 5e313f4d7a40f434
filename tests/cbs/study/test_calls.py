import pytest

from cbs.study.calls import absolute, check_parameters, function, grid


def test_functions_of_files_and_modules_are_found(tmp_path):
    (tmp_path / "neighbour.py").write_text("VALUE = 5\n")
    (tmp_path / "mine.py").write_text(
        "from neighbour import VALUE\ndef f(a):\n    return {'value': a + VALUE}\n"
    )
    place = absolute("mine.py:f", tmp_path)
    assert place == f"{tmp_path}/mine.py:f"
    assert function(place)(1) == {"value": 6}
    assert function(place) is function(place)
    assert absolute("math:sqrt", tmp_path) == "math:sqrt"
    assert function("math:sqrt")(9) == 3


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        ("def f(: pass", "f", "can't be imported .SyntaxError"),
        ("1 / 0", "f", "can't be imported .ZeroDivisionError: division by zero"),
        ("def ff(): pass", "f", "did you mean 'ff'"),
        ("f = 3", "f", "is int, no function"),
        ("import sys; sys.exit()", "f", "can't be imported .SystemExit"),
    ],
)
def test_what_can_t_be_called_is_told_in_a_line(tmp_path, content, name, told):
    path = tmp_path / "bad.py"
    path.write_text(content)
    with pytest.raises(ValueError, match=told) as raised:
        function(f"{path}:{name}")
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="can't be imported"):
        function("no_such_module_at_all:f")
    with pytest.raises(ValueError, match="must be a whole name"):
        function(".near:f")


def test_modules_and_compiled_functions_that_can_t_be_used_are_told(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"module 'broken_module' can't be imported .ZeroDivisionError"):
        function("broken_module:f")
    with pytest.raises(ValueError, match="'math:hypot' does not tell its parameters"):
        check_parameters("math:hypot", function("math:hypot"), {})


def test_parameters_are_checked_by_name():
    def f(a, b=1):
        pass

    check_parameters("f", f, {"a": 1})
    check_parameters("f", lambda **anything: None, {"x": 1})
    with pytest.raises(ValueError, match="unknown parameter 'bb'; did you mean 'b'"):
        check_parameters("f", f, {"a": 1, "bb": 2})
    with pytest.raises(ValueError, match="missing a required argument: 'a'"):
        check_parameters("f", f, {})


def test_grids_are_crossed_with_cases():
    table = {"grid": {"a": [1, 2], "b": "x"}, "cases": [{"c": 1}, {"c": 2, "b": "y"}]}
    assert grid(table, "here") == [
        {"a": 1, "b": "x", "c": 1}, {"a": 2, "b": "x", "c": 1},
        {"a": 1, "b": "y", "c": 2}, {"a": 2, "b": "y", "c": 2},
    ]  # fmt: skip
    ranges = {"grid": {"a": {"from": 0, "to": 25, "step": 10}, "b": [{"c": 1}]}, "cases": None}
    assert [each["a"] for each in grid(ranges, "here")] == [0, 10, 20]
    assert grid(ranges, "here")[0]["b"] == {"c": 1}
    with pytest.raises(ValueError, match="here: grid a: unknown key 'stop'"):
        grid({"grid": {"a": {"from": 0, "stop": 3}}, "cases": None}, "here")
    with pytest.raises(ValueError, match="cases must be a list of tables"):
        grid({"grid": {}, "cases": [3]}, "here")
    with pytest.raises(ValueError, match="cases is empty"):
        grid({"grid": {}, "cases": []}, "here")
    with pytest.raises(ValueError, match="here: grid spans 1,000,000,000,000 cells, more than 1,000,000"):
        grid({"grid": {name: {"from": 0, "to": 10**6} for name in "ab"}, "cases": None}, "here")
