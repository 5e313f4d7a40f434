"""The page in a browser: what is seen, clicked and downloaded is held against the cells."""

import base64
import csv
import gzip
import io
import json
import re
import shutil
import struct

import numpy as np
import pandas as pd
import pytest

from cbs.report.page import compose, write
from cbs.report.page.files import as_csv
from tests.cbs.report.page.cells_for_tests import frame, prune, solve, study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = "</script><img src=x onerror=alert(1)>\u2028&amp;"
LONG = "long" * 60


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium: the page can't be opened")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: the page can't be opened")
    with playwright.sync_playwright() as run:
        opened = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def opens(browser):
    """Opens a file, and at the end sees that nothing was complained of and nothing loaded."""
    heard, contexts = [], []

    def opened(path, **settings):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (heard.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or heard.append(r.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert heard == []


def mixed():
    """A study of everything, with a name that would break out of a careless page."""
    table, arrays = study()
    table.loc[table["instance"] == "p0", "instance"] = NASTY
    table.loc[table["instance"] == "p3", "family"] = LONG
    more = [prune(m, s, a + s / 100) for m, a in (("joint", 0.9), ("obc", 0.8)) for s in (0.5, 0.9)]
    more.append(
        solve("broken", "exact", None, None, state="failed", error="ValueError: <b>no</b>", status=None)
    )
    more.append(
        {"kind": "call", "solver": "measure", "state": "done", "result": {"speed": 3}, "parameters": {"a": 1}}
    )
    return pd.concat([table, frame(*more)], ignore_index=True), arrays


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    table, arrays = mixed()
    path = tmp_path_factory.mktemp("page") / "page.html"
    return path, write(table, lambda key: arrays.get(key, {}), path, title=NASTY)


def embedded(path, name):
    (text,) = re.findall(f'id="{name}">([^<]*)</script>', path.read_text())
    return json.loads(gzip.decompress(base64.b64decode(text)))


def downloaded(page, click):
    with page.expect_download() as waiting:
        click()
    with open(waiting.value.path(), "rb") as file:
        return waiting.value.suggested_filename, file.read()


def same(text, other):
    """Whether two CSV texts hold the same words, and numbers up to how they are written."""

    def plain(rows):
        return [[_number(word) for word in row] for row in csv.reader(io.StringIO(rows, newline=""))]

    return plain(text) == plain(other)


def _number(word):
    try:
        return float(word)
    except ValueError:
        return word


def test_nothing_breaks_out_of_the_page(made):
    path, report = made
    text = path.read_text()
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text  # the title, in words
    assert text.count("</script>") == 6
    assert NASTY in embedded(path, "data")["cells"]["instance"]
    assert len(text) < 2.5e6
    assert not re.search(r"(src|href)=\"?https?:", text)
    assert len(report.figures) > 12


def test_a_reader_filters_sorts_clicks_and_downloads(made, opens, tmp_path):
    path, report = made
    page = opens(path)
    tables = [figure for figure in report.figures if figure.spec is None]
    assert [page.locator(f"#{figure.name} table").count() for figure in tables] == [1]
    figures = {figure.name: figure for figure in report.figures if figure.spec is not None}
    # all figures are drawn, with all their points
    for name, figure in figures.items():
        drawn = page.evaluate(
            f"document.querySelector('[data-figure=\"{name}\"]').data.map(t => (t.x ?? []).length)"
        )
        assert drawn == [len(trace.get("x", [])) for trace in figure.spec["data"]], name
    assert page.locator(".plot svg.main-svg").count() >= len(figures)
    # the script's arithmetic is that of the modules: what a rule gives without filters is what was drawn
    for name, figure in figures.items():
        for trace, again in zip(figure.spec["data"], page.evaluate(f"report.applied('{name}')"), strict=True):
            for axis in ("x", "y"):
                if again is not None and axis in again and trace["meta"]["rule"] != "shifted":
                    assert again[axis] == pytest.approx(trace[axis], rel=1e-12), (name, axis)
                elif again is not None and axis == "x":
                    assert again["x"] == pytest.approx(trace["x"], rel=1e-12)
                    assert again["text"] == trace["text"]
    # a text filter, and a click on a heading: numbers sort as numbers
    table = page.locator("#instances-table")
    table.get_by_role("searchbox").fill("digits")
    assert "of 15 rows" in table.get_by_role("status").inner_text()
    shown = table.locator("tbody tr").count()
    assert shown == 8
    table.get_by_role("button", name="best value", exact=True).click()
    head = table.locator("th", has_text="best value")
    assert head.get_attribute("aria-sort") == "ascending"
    best = (
        report.evidence.cells[report.evidence.cells["family"] == "digits"].groupby("problem")["value"].min()
    )
    place = table.locator("th").all_inner_texts().index("best value")
    values = [float(row.locator("td").nth(place).inner_text()) for row in table.locator("tbody tr").all()]
    assert values == pytest.approx(sorted(best), rel=1e-4)
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    name, content = downloaded(page, table.get_by_role("button", name="CSV of these").click)
    lines = list(csv.DictReader(io.StringIO(content.decode())))
    assert name == "instances.csv"
    assert [float(line["best_value"]) for line in lines] == pytest.approx(sorted(best, reverse=True))
    # the data behind a figure, and its picture
    for figure in ("profile", "gap-n", "masks", "accuracy-net"):
        name, content = downloaded(page, page.locator(f'[data-csv="{figure}"]').click)
        assert name == f"{figure}.csv"
        assert same(content.decode(), as_csv(figures[figure].table)), figure
    name, content = downloaded(page, page.locator('[data-png="profile"]').click)
    assert (name, content[:8]) == ("profile.png", b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", content[16:24])[0] == 2000
    # an instance's page by a click, its mask pixel by pixel, and back
    table.get_by_role("searchbox").fill("onerror")
    table.get_by_role("link").click()
    page.wait_for_selector("#instance canvas")
    assert page.locator("#instance h2").inner_text().startswith("</script><img src=x")
    assert page.locator("#instance img").count() == 0
    assert page.locator("#instance .table tbody tr").count() == 4
    assert page.locator("#overview").is_hidden()
    (_, masks) = report.evidence.details.masks["d-p0"]
    read = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    colours = page.evaluate(f"({read})(document.querySelector('#instance canvas'))")
    kept = np.array(colours).reshape(*masks[""].shape, 4)[..., 0] == 50
    assert np.array_equal(~kept, masks[""])
    page.go_back()
    page.wait_for_selector("#overview", state="visible")
    # the theme
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.get_by_role("button", name="Switch to dark colours").click()
    assert page.evaluate(ground) == "rgb(20, 23, 28)"
    page.wait_for_function(
        "document.querySelector('[data-figure=profile]').layout.paper_bgcolor === '#14171c'"
    )


@pytest.mark.slow
def test_filters_act_on_figures_and_tables(made, opens):
    page = opens(made[0])
    drawn = "document.documentElement.dataset.drawn"

    def after(act):
        before = page.evaluate(f"Number({drawn} ?? 0)")
        act()
        page.wait_for_function(f"Number({drawn} ?? 0) > {before}")

    table, arrays = mixed()
    less = table[(table["kind"] != "solve") | ((table["n"] >= 16) & (table["solver"] != "exact"))]
    again = {figure.name: figure for figure in compose(less, lambda key: arrays.get(key, {})).figures}
    after(lambda: page.get_by_label("exact", exact=True).uncheck())
    after(lambda: page.locator("#filters").get_by_label("from").first.fill("16"))
    for name in ("profile", "means", "gap-n"):
        traces = page.evaluate(f"document.querySelector('[data-figure=\"{name}\"]').data")
        shown = {
            trace["name"] + trace.get("mode", ""): trace for trace in traces if trace["visible"] is not False
        }
        wanted = {trace["name"] + trace.get("mode", ""): trace for trace in again[name].spec["data"]}
        assert set(shown) == set(wanted)
        for label, trace in wanted.items():
            if name == "profile":  # its axis ends where that of all solvers does
                assert shown[label]["y"][:-1] == pytest.approx(trace["y"][:-1])
            elif trace.get("mode") != "markers":
                assert shown[label]["x"] == pytest.approx(trace["x"])
    assert page.locator("#profile .filtered").is_visible()
    told = page.locator("#cells-table").get_by_role("status").inner_text()
    assert told.startswith(f"{len(less)} of ")
    _, content = downloaded(page, page.locator('[data-csv="gap-n"]').click)
    assert "exact" not in content.decode()
    after(lambda: page.locator("#filters").get_by_role("button", name="Reset").click())
    assert page.locator("#cells-table").get_by_role("status").inner_text().startswith(f"{len(table)} of ")
    assert page.locator("#profile .filtered").is_hidden()


@pytest.mark.slow
def test_addresses_narrow_screens_and_keys(made, opens):
    path, _ = made
    page = opens(path, viewport={"width": 390, "height": 844}, color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.evaluate("location.hash = '#instance=d-net%400.9'")
    page.wait_for_selector("#instance h2")
    assert page.locator("#instance tbody tr").count() == 2
    page.evaluate("location.hash = '#instance=nobody'")
    page.wait_for_selector("#instance .warning")
    page.evaluate("location.hash = '#instance=%E0%A4%A'")
    page.wait_for_selector("#instance .warning:has-text('%E0%A4%A')")
    page.evaluate("location.hash = ''")
    page.set_viewport_size({"width": 794, "height": 1100})
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("nav").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function("document.querySelector('[data-figure=masks]').layout.paper_bgcolor === '#ffffff'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 794


@pytest.mark.slow
def test_thousands_of_instances_stay_light(opens, tmp_path):
    rows = [
        solve(f"p{i}", s, 0.1 + i % 7, 1.0, 1.0 - 1e-6 * (s == "a"), n=8 + i % 50)
        for i in range(4000)
        for s in "ab"
    ]
    report = write(frame(*rows), None, tmp_path / "big.html")
    assert (tmp_path / "big.html").stat().st_size < 4e6
    page = opens(tmp_path / "big.html")
    assert page.locator("#instances-table tbody tr").count() == 100
    page.locator("#instances-table").get_by_role("button", name="Show more").click()
    assert page.locator("#instances-table tbody tr").count() == 600
    (points,) = [f for f in report.figures if f.name == "time-n"]
    assert sum(len(t["x"]) for t in points.spec["data"] if t["meta"].get("rule") == "points") <= 4000


@pytest.mark.parametrize(
    ("table", "options", "told"),
    [
        (frame(solve("p", "a")).head(0), {}, "no cells"),
        (frame(solve("p", "a")), {"shift": 0.0}, "shift must be a positive number of seconds, not 0.0"),
        (frame(solve("p", "a")), {"shift": float("nan")}, "shift must be"),
    ],
)
def test_what_cannot_be_reported_is_refused(table, options, told):
    with pytest.raises(ValueError, match=told):
        compose(table, **options)


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(ValueError, match="no cells"):
        write(frame(solve("p", "a")).head(0), None, path)
    assert path.read_text() == "old"
