"""The experiments' committed cells: their keys are what they say, and documents show their tables."""

import re
import sys
from functools import cache
from pathlib import Path

import pytest

from cbs.study.cell import Cell
from cbs.study.frames import column, read
from cbs.study.grid import _calls
from cbs.study.schema import DONE
from cbs.study.studyfile import Study
from cbs.study.tables import table

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
STUDIES = sorted(
    path.parent.relative_to(EXPERIMENTS).as_posix()
    for path in EXPERIMENTS.rglob("study.toml")
    if (path.parent / "results/cells.csv").is_file()
)


@cache
def committed(name):
    return read(EXPERIMENTS / name / "results/cells.csv")


@pytest.fixture
def apart():
    """Modules of one experiment's folder are not taken for those of another's."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(EXPERIMENTS)):
            del sys.modules[name]


@pytest.mark.parametrize("name", STUDIES)
def test_committed_cells_have_the_keys_of_what_they_say(name):
    frame = committed(name)
    assert len(frame)
    assert not frame["key"].duplicated().any()
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        digest, solver, seed = row["digest"] or "", row["solver"], int(row["seed"])
        cell = Cell(
            row["kind"], row["instance"], digest, solver, row["options"], row["time_limit"],
            row["gap_asked"], seed, row["parameters"],
        )  # fmt: skip
        assert cell.key(row["version"], row["machine"]) == row["key"], row["instance"]


@pytest.mark.parametrize("name", STUDIES)
def test_documents_show_the_tables_of_committed_cells(name, apart):
    study = Study.load(EXPERIMENTS / name / "study.toml")
    frame = committed(name)
    assert any(asked["into"] for asked in study.tables)
    for asked in study.tables:
        named = re.search(r"\{([\w.]+)\}", asked["into"] or "")
        values = [None]
        if named:
            values = list(dict.fromkeys(column(frame[frame["state"] == DONE], named[1])))
        for value in values if asked["into"] else []:
            place = asked["into"] if named is None else asked["into"].replace(named[0], value)
            document = (study.folder / place).read_text(encoding="utf-8")
            mark = re.escape(asked["name"])
            shown = re.findall(rf"<!-- {mark}: begin\b[^>]*-->(.*)<!-- {mark}: end\b", document, re.DOTALL)
            assert [text.strip() for text in shown] == [table(frame, asked, study.folder, value).strip()], (
                place
            )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", STUDIES)
def test_committed_calls_are_among_those_that_the_study_asks_for(name, apart):
    study = Study.load(EXPERIMENTS / name / "study.toml")
    asked = {(cell.solver, cell.instance): dict(cell.parameters) for cell in _calls(study, None)}
    frame = committed(name)
    for row in frame[frame["kind"] == "call"].to_dict("records"):
        assert asked[row["solver"], row["instance"]] == row["parameters"]
