"""Against benchopt itself: its reader, its plots, and the columns of a run of its own."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from cbs.study import run
from cbs.study.benchopt import to_benchopt
from cbs.study.cell import Answer, Cell
from cbs.study.store import Store

BENCHMARK = Path(__file__).parents[3] / "benchmark_quadratic_subset"
STUDY = """
name = "s"
seeds = [0, 1]
time_limits = [60.0]
gap = 1e-4

[[instances]]
random = true
n = 10
variants = ["joint", "selection"]

[[solvers]]
name = "branch-and-bound"

[[solvers]]
name = "greedy"
"""
MADE_BY_BENCHOPT = {
    "base_seed", "objective_name", "obj_description", "solver_name", "solver_description", "dataset_name",
    "idx_rep", "sampling_strategy", "file_objective", "p_obj_gap", "p_obj_time_limit", "file_solver",
    "file_dataset", "stop_val", "time", "objective_value", "objective_bound", "objective_gap",
    "objective_feasible", "objective_excess", "objective_contradiction", "platform", "platform-release",
    "platform-architecture", "system-processor", "version-numpy", "version-scipy", "run_date",
}  # fmt: skip
"""Of its columns those that its plots and pages use, and those of this objective."""


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "s.toml").write_text(STUDY)
    run(folder / "s.toml", workers=1)
    with Store.open(folder / "s.sqlite") as store:
        frame = store.frame()
        yield frame, {key: store.arrays(key) for key in frame["key"]}


def test_a_row_for_every_point_of_a_trace_and_one_for_the_answer(studied):
    frame, arrays = studied
    table = to_benchopt(frame, arrays.get)
    assert set(table) >= MADE_BY_BENCHOPT
    assert len(table) == sum(len(arrays[key]["trace_seconds"]) + 1 for key in frame["key"])
    names = ["dataset_name", "solver_name", "idx_rep"]
    for (_, solver, seed), curve in table.groupby(names):
        digest = curve["p_dataset_digest"].iloc[0]
        cell = frame[(frame["digest"] == digest) & (frame["solver"] == solver) & (frame["seed"] == seed)]
        assert len(cell) == 1
        assert curve["stop_val"].tolist() == list(range(len(curve)))
        assert (np.diff(curve["time"]) >= 0).all()
        assert curve["objective_value"].iloc[-1] == cell["value"].iloc[0]
        assert curve["objective_gap"].iloc[-1] == pytest.approx(cell["gap"].iloc[0])
    last = table.groupby(names).tail(1)
    exact = last[last["solver_name"] == "branch-and-bound"]
    assert (exact["objective_excess"].abs() < 1e-9).all()
    assert (last["objective_excess"] >= -1e-9).all()
    assert not table["objective_contradiction"].any()
    assert table["objective_name"].unique().tolist() == [
        "Quadratic subset selection[gap=0.0001,time_limit=60.0]"
    ]


def cells(*columns):
    """A table of a store with one instance, and a cell for every answer."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, Store.open(f"{folder}/s.sqlite", create=True) as store:
        posed = [
            Cell(
                "solve", "one", "d" * 64, f"s-{i}", options={"depth": i, "inner": {"a": [1]}}, gap=1e-4,
                parameters={"i": i},
            )
            for i in range(len(columns))
        ]  # fmt: skip
        keys, _ = store.plan(posed, study="s", version="1", machine="m")
        for key, answer in zip(keys, columns, strict=True):
            store.claim(key, "me")
            if answer is None:
                store.fail(key, "me", "no luck")
            else:
                store.finish(key, "me", Answer(answer), "h")
        return store.frame(keys)


def test_what_is_not_known_is_nan_and_what_is_not_done_is_left_out():
    frame = cells({"value": 2.0, "bound": -math.inf, "seconds": 1.5, "status": "feasible"}, None)
    table = to_benchopt(frame, lambda key: {})
    assert len(table) == 1
    row = table.iloc[0]
    assert row["solver_name"] == "s-0[depth=0,inner={'a': [1]}]"
    assert row["p_solver_depth"] == 0
    assert row["file_solver"] == "solvers/s_0.py"
    assert (row["stop_val"], row["time"], row["sampling_strategy"]) == (0, 1.5, "Run_once")
    assert np.isnan([row["objective_bound"], row["objective_gap"], row["objective_excess"]]).all()
    assert "objective_accuracy" not in table


def test_a_bound_above_anothers_value_is_a_contradiction():
    optimal = {"value": 1.0, "bound": 1.0, "seconds": 1.0, "status": "optimal"}
    wrong = {"value": 1.5, "bound": 1.2, "seconds": 1.0, "status": "feasible"}
    table = to_benchopt(cells(optimal, wrong), lambda key: {})
    assert table["objective_contradiction"].tolist() == [0.0, 1.0]
    assert table["objective_excess"].tolist() == [0.0, 0.5]


def test_a_study_without_results_is_refused_in_one_line():
    with pytest.raises(ValueError, match="none of 1 cells solved a problem") as told:
        to_benchopt(cells(None), lambda key: {})
    assert "\n" not in str(told.value)


def test_benchopt_reads_it_and_draws_its_plots(studied, tmp_path):
    """By its own reader, and by the functions that its pages are made with."""
    results = pytest.importorskip("benchopt.results")
    from benchopt.benchmark import Benchmark

    frame, arrays = studied
    to_benchopt(frame, arrays.get).to_parquet(tmp_path / "s.parquet", index=False)
    table = results.read_results(tmp_path / "s.parquet")
    assert len(table) == len(to_benchopt(frame, arrays.get))
    shutil.copytree(BENCHMARK, tmp_path / "b", ignore=shutil.ignore_patterns("outputs", "__*__"))
    kinds = ["objective_curve", "suboptimality_curve", "bar_chart", "boxplot", "table"]
    plots, options = Benchmark(tmp_path / "b").get_plot_data(table, kinds)
    assert set(options) >= {"objective_curve", "bar_chart", "boxplot", "table"}
    text = json.dumps(plots)
    assert "branch-and-bound" in text
    assert "greedy" in text


def test_prunings_of_one_network_to_several_sparsities_contradict_nothing():
    sparser = {"value": 3.0, "bound": 3.0, "seconds": 1.0, "status": "optimal"}
    denser = {"value": 1.0, "bound": 0.5, "seconds": 1.0, "status": "feasible"}
    table = to_benchopt(cells(sparser, denser).assign(kind="prune"), lambda key: {})
    assert table["objective_contradiction"].tolist() == [0.0, 0.0]
    assert table["objective_excess"].fillna(-1.0).tolist() == [0.0, -1.0]
