"""Solution files, as MIPLIB's tools write them."""

import pytest

from solvers.instances import Solu, read_solu, write_solu


def test_what_is_written_is_read_back_bit_for_bit(tmp_path):
    known = {
        "a": Solu(0.1 + 0.2, 0.1 + 0.2, True),
        "b": Solu(1e-300, -1.5),
        "c": Solu(value=2.0),
        "d": Solu(bound=1 / 3),
        "e": Solu(),
    }
    write_solu(tmp_path / "x.solu", known)
    assert read_solu(tmp_path / "x.solu") == known
    lines = (tmp_path / "x.solu").read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["=opt=", "a"], ["=best=", "b"], ["=bestdual=", "b"], ["=best=", "c"], ["=bestdual=", "d"],
        ["=unkn=", "e"],
    ]  # fmt: skip


def test_a_file_of_others(tmp_path):
    (tmp_path / "x.solu").write_text(
        "=opt=  ej 25508\n\n# text\n=best=\tp -17.5\n=bestdual= p -20\n=unkn= q\n=inf= r\n"
    )
    found = read_solu(tmp_path / "x.solu")
    assert found == {"ej": Solu(25508.0, 25508.0, True), "p": Solu(-17.5, -20.0), "q": Solu(), "r": Solu()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=optimal= a 1\n", r"line 1: '=optimal=' is none of =opt=, =best="),
        ("=opt= a 1\n=best= b\n", "line 2: =best= takes a name and a value"),
        ("=unkn= a 1\n", "line 1: =unkn= takes a name"),
        ("=opt= a x\n", "'x' is not a finite number"),
        ("=opt= a inf\n", "'inf' is not a finite number"),
    ],
)
def test_lines_that_are_none(tmp_path, text, message):
    (tmp_path / "x.solu").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_solu(tmp_path / "x.solu")


def test_what_can_not_be_written(tmp_path):
    with pytest.raises(ValueError, match="has a blank"):
        write_solu(tmp_path / "x.solu", {"a b": Solu()})
    with pytest.raises(ValueError, match="is not finite"):
        write_solu(tmp_path / "x.solu", {"a": Solu(bound=float("-inf"))})
    with pytest.raises(ValueError, match=r"can't be read: No such file"):
        read_solu(tmp_path / "x.solu")
