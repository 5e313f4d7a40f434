import csv
import io
import shutil

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from cbs.report.page import compose, write_figures
from cbs.report.page.files import as_csv, picture
from tests.cbs.report.page.cells_for_tests import study


def test_csv_is_read_back():
    table = pd.DataFrame({"a": ["x,y", 'q"'], "b": [0.1, np.inf], "c": [1, 2]})
    assert list(csv.reader(io.StringIO(as_csv(table)))) == [
        ["a", "b", "c"],
        ["x,y", "0.1", "1"],
        ['q"', "", "2"],
    ]


def test_tables_are_written_without_a_browser(tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-browser"))
    figures = compose(study()[0]).figures
    why = write_figures(figures, tmp_path / "a" / "b")
    assert why.startswith("no PNG files: they need ")
    assert "\n" not in why
    written = {path.name for path in (tmp_path / "a" / "b").iterdir()}
    assert written == {f"{f.name}.csv" for f in figures} | {
        f"{f.name}-summary.csv" for f in figures if f.summary is not None
    }


def test_legends_have_room_in_pictures():
    figures = {figure.name: figure for figure in compose(study()[0]).figures}
    few, bars = (figures[name] for name in ("profile", "means"))
    assert picture(few.spec, few.height, few.title)["layout"]["margin"]["b"] > 80
    assert picture(bars.spec, bars.height, bars.title)["layout"]["margin"]["b"] == 50


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium: pictures can't be drawn")
def test_pictures_are_drawn(tmp_path):
    figures = [f for f in compose(study()[0]).figures if f.name in ("profile", "means")]
    assert write_figures(figures, tmp_path) is None
    for figure in figures:
        pixels = imread(tmp_path / f"{figure.name}.png")
        assert pixels.shape[1] == 2000
        colours = {tuple(np.rint(255 * rgb).astype(int)) for rgb in pixels[::3, ::3, :3].reshape(-1, 3)}
        assert (0, 0x72, 0xB2) in colours  # the line or bar of the first solver
