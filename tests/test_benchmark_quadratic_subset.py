"""The benchopt benchmark, run by benchopt's own command on a copy of its folder."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from solvers import Budget, available, solve
from solvers.instances import planted, save
from solvers.instances.library import Library
from tests.cbs.study.test_benchopt import MADE_BY_BENCHOPT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("benchopt") is None, reason="benchopt: pip install 'benchopt>=1.6'"
)
ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "benchmark_quadratic_subset"
    shutil.copytree(
        ROOT / place.name, place, ignore=shutil.ignore_patterns("outputs", "__cache__", "__pycache__")
    )
    return place


def benchopt(folder, *arguments, **environment):
    """Run the command; its output."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "benchopt", *arguments], capture_output=True, text=True, cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def table(folder):
    import pandas as pd

    (found,) = (folder / "outputs").glob("*.parquet")
    return pd.read_parquet(found)


def test_a_run_of_ours_and_of_a_heuristic(folder):
    data = "random[inputs=12,variant=joint]"
    benchopt(folder, "run", str(folder), "-d", data, "-s", "branch-and-bound", "-s", "greedy", "--no-plot")
    found = table(folder)
    assert set(found) >= MADE_BY_BENCHOPT
    assert not found["objective_contradiction"].any()
    assert (found["objective_feasible"] == 1).all()
    best = found[found["solver_name"] == "branch-and-bound"]
    assert best["sampling_strategy"].unique().tolist() == ["Iteration"]
    assert len(best) > 1  # of a callback
    assert best["objective_gap"].iloc[-1] <= 1e-4
    (greedy,) = found[found["solver_name"] == "greedy"]["objective_value"]
    assert best["objective_value"].iloc[-1] <= greedy


@pytest.mark.slow
def test_the_quick_run_is_drawn_and_its_page_has_no_errors(folder):
    config = folder / "quick.yml"
    config.write_text(config.read_text().replace("time_limit=10.0", "time_limit=1.0"))
    told = benchopt(folder, "run", str(folder), "--config", str(config), "--no-display")
    assert "error" not in told.lower()
    found = table(folder)
    assert {name.split("[")[0] for name in found["dataset_name"]} == {"random", "planted", "digits"}
    assert set(found["solver_name"]) == {"branch-and-bound", "tabu", "local-search", "greedy", "alps"}
    assert not found["objective_contradiction"].any()
    known = found[found["dataset_name"].str.startswith("planted")]
    assert (known["objective_excess"] >= -1e-9).all()
    ours = known[known["solver_name"] == "branch-and-bound"]
    assert abs(ours["objective_excess"].iloc[-1]) <= 1e-4
    (page,) = (folder / "outputs").glob("*benchopt_run*.html")
    errors = opened(page)
    assert errors == []


def opened(page):
    """Errors of a page in a browser, other than those of what it can't load without a network."""
    sync = pytest.importorskip("playwright.sync_api").sync_playwright
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium: apt install chromium")
    errors = []
    with sync() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            tab = browser.new_page()
            tab.on("pageerror", lambda error: errors.append(str(error)))
            tab.goto(page.as_uri(), wait_until="load")
            assert tab.evaluate("Object.keys(window._plots).length") > 0
        finally:
            browser.close()
    return [error for error in errors if not error.endswith("is not defined")]


@pytest.mark.slow
def test_a_folder_of_instances_is_a_data_set_a_file(folder, tmp_path):
    known = planted(2, 10, Budget.per_row(6), seed=1)
    (tmp_path / "instances").mkdir()
    save(tmp_path / "instances" / "one.npz", known.problem)
    options = ("-d", "library", "-s", "relaxation", "-s", "outer-approximation", "--no-plot")
    benchopt(folder, "run", str(folder), *options, CBS_INSTANCES=str(tmp_path / "instances"))
    found = table(folder)
    assert found["p_dataset_instance"].unique().tolist() == ["one.npz"]
    values = found[found["solver_name"] == "outer-approximation"]["objective_value"]
    np.testing.assert_allclose(values, solve(known.problem, "brute-force").value)


@pytest.mark.slow
def test_a_library_is_a_data_set_an_instance(folder, tmp_path):
    place = tmp_path / "library"
    solving = ["--family", "digits/*", "--budget", "per_row", "--variant", "joint", "--time-limit", "5"]
    command = [sys.executable, "-m", "cbs", "instances"]
    for arguments in (["make", "digits", "-o", place], ["solve", place, "--no-certificates", *solving]):
        subprocess.run([*command, *map(str, arguments)], check=True, cwd=ROOT, capture_output=True)
    library = Library(place)
    benchopt(
        folder, "run", str(folder), "-d", "library", "-s", "greedy", "--no-plot", CBS_INSTANCES=str(place)
    )
    found = table(folder).set_index("p_dataset_instance")
    single = [item for item in library if item.budget != "network"]
    assert set(found.index) == {item.name for item in single}
    proven = [item for item in single if item.status == "proven"]
    assert proven
    for item in proven:
        (greedy,) = found.loc[[item.name], "objective_value"]
        assert found.loc[item.name, "objective_excess"] == pytest.approx(greedy / item.value - 1)
        assert not found.loc[item.name, "objective_contradiction"]


@pytest.mark.slow
def test_benchopts_own_tests_pass(folder):
    told = benchopt(folder, "test", str(folder), "-p", "no:benchmark", "--skip-install", "-q")
    assert " failed" not in told
    assert " passed" in told


def test_every_solver_of_the_benchmark_is_one_of_the_package():
    files = {
        path.stem.replace("_", "-") for path in (ROOT / "benchmark_quadratic_subset/solvers").glob("*.py")
    }
    assert files <= set(available())
    assert {"auto", "branch-and-bound", "tabu", "okridge", "l0bnb", "abess"} <= files
