import pytest

from cbs.study.studyfile import Study

GOOD = """
name = "good"
time_limits = [1, 10]

[[instances]]
random = true
n = [8, 16]

[[solvers]]
name = "auto"
"""


def load(folder, text):
    path = folder / "study.toml"
    path.write_text(text)
    return Study.load(path)


def test_a_study_is_read_with_its_defaults(tmp_path):
    study = load(tmp_path, GOOD)
    assert study.name == "good"
    assert study.store == str(tmp_path / "good.sqlite")
    assert study.top["time_limits"] == (1.0, 10.0)
    assert study.top["seeds"] == (0,)
    assert study.instances[0]["source"] == "random"
    assert study.instances[0]["n"] == (8, 16)
    assert study.schedules == ({"label": "", "options": {}},)


def test_stores_are_beside_the_file_or_anywhere(tmp_path):
    assert load(tmp_path, f'store = "a/b.sqlite"\n{GOOD}').store == str(tmp_path / "a/b.sqlite")
    assert load(tmp_path, f'store = "postgresql://h/d"\n{GOOD}').store == "postgresql://h/d"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("time_limits", "time_limit"), "the file: unknown key 'time_limit'; did you mean 'time_limits'"),
        (("random = true\nn", "random = true\nm"), r"\[\[instances\]\] 1: n is missing"),
        (("random = true", "randum = true"), r"must name one of files, library"),
        (("random = true", "random = true\nplanted = true"), "got random and planted"),
        (("random = true", "random = false"), "random must be true"),
        (('name = "auto"', 'nmae = "auto"'), r"\[\[solvers\]\] 1: unknown key 'nmae'; did you mean 'name'"),
        (("[[solvers]]", "[[solver]]"), "unknown key 'solver'; did you mean 'solvers'"),
        (("[[solvers]]", "[solvers]"), r"must be an array of tables"),
        (('[[solvers]]\nname = "auto"', ""), r"there are \[\[instances\]\] but no \[\[solvers\]\]"),
        (("[[instances]]", "[[instances]"), "is not TOML"),
        (('name = "good"', ""), "name is missing"),
        (("n = [8, 16]", "n = [8, 'x']"), "n must be a whole number"),
        (("[1, 10]", "[1]\nseeds = [9223372036854775808]"), "seeds must be a whole number of at least 0 and"),
        (
            ("[[instances]]", '[[calls]]\nfunction = "f.py:f"\ngrid = {a = [2024-01-01]}\n[[instances]]'),
            "grid must hold numbers, texts, lists and tables .date is no data",
        ),
        (("[1, 10]", "[0]"), "time_limits must be a number above 0, got"),
        (
            ('"auto"', '"auto"\n[[tables]]\nname = "t"\nvalue = "gapp"'),
            r"unknown \[\[tables\]\] 1: column 'gapp'; did",
        ),
    ],
)
def test_mistakes_are_told_in_a_line_that_names_the_file(tmp_path, change, told):
    with pytest.raises(ValueError, match=told) as raised:
        load(tmp_path, GOOD.replace(*change))
    assert str(raised.value).startswith(f"study '{tmp_path}/study.toml'")
    assert "\n" not in str(raised.value)


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    assert load(tmp_path, f"\ufeff{GOOD}").name == "good"


def test_labels_are_told_apart(tmp_path):
    more = '\n[[solvers]]\nname = "auto"\n'
    with pytest.raises(ValueError, match="solvers has 'auto' twice; give one of them another label"):
        load(tmp_path, GOOD + more)
    assert len(load(tmp_path, GOOD + more + 'label = "again"').solvers) == 2


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(ValueError, match="can't be read"):
        Study.load(tmp_path / "no.toml")
    with pytest.raises(ValueError, match="nothing to do"):
        load(tmp_path, 'name = "x"')
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not TOML"):
        Study.load(tmp_path / "b.toml")
