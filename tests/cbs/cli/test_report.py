from pathlib import Path

import pandas as pd
import pytest

from cbs.cli import main
from tests.cbs.report.page.cells_for_tests import study


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows, _ = study()
    rows["options"] = "{}"
    rows.to_csv("rows.csv", index=False)
    return Path("rows.csv")


def test_a_page_beside_the_table(table, capsys):
    assert main(["report", "rows.csv"]) == 0
    page = Path("rows.html").read_text()
    assert "<title>hand</title>" in page
    assert capsys.readouterr().out.startswith("rows.html: 7 figures of 48 cells, ")


def test_some_of_the_cells(table, capsys):
    frame = pd.read_csv(table)
    solver = frame["solver"].iloc[0]
    assert main(["report", "rows.csv", "--where", f"solver={solver}", "--where", "kind=solve,call"]) == 0
    assert f"of {(frame['solver'] == solver).sum()} cells" in capsys.readouterr().out


def test_options(table, capsys, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "no-browser")
    argv = [
        "report",
        "rows.csv",
        "-o",
        "page.html",
        "--title",
        "Mine & yours",
        "--shift",
        "10",
        "--figures",
        "f",
    ]
    assert main(argv) == 0
    page = Path("page.html").read_text()
    assert "<title>Mine &amp; yours</title>" in page
    assert "shifted by 10 s" in page
    assert (Path("f") / "means-summary.csv").is_file()
    err = capsys.readouterr().err
    assert err.startswith("cbs: no PNG files")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["none.sqlite"], "store 'none.sqlite' is not there"),
        (["rows.csv", "-o", "no/page.html"], "output 'no/page.html'"),
        (["rows.csv", "-o", "rows.csv"], "is the store itself"),
        (["rows.csv", "--shift", "-1"], "shift must be a positive number of seconds, not -1.0"),
        (["rows.csv", "--figures", "rows.csv"], "figures 'rows.csv' is no folder"),
        (["rows.csv", "--study", "hnd"], "unknown study 'hnd'; did you mean 'hand'?"),
        (["."], "is no run folder"),
        (["rows.csv", "--where", "solver"], "where must be COLUMN=VALUES"),
        (["rows.csv", "--where", "slover=a"], "did you mean 'solver'"),
        (["rows.csv", "--where", "solver=nobody"], "there are no cells"),
    ],
)
def test_bad_input_is_one_line(table, capsys, argv, told):
    before = table.read_text()
    assert main(["report", *argv]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
    assert table.read_text() == before
