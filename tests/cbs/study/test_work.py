import numpy as np
import pytest

from cbs.study.arrays import mask_of
from cbs.study.work import called, work
from solvers import Budget, get_solver
from solvers.instances import random_problem
from tests.cbs.study.test_driver import WORK


def solved(solver, problem, **more):
    payload = {"problem": problem, "solver": get_solver(solver), "time_limit": None, "gap": 1e-4, "seed": 0,
               "certify": False, **more}  # fmt: skip
    return work("solve", payload)


def test_a_solution_is_kept_with_its_mask_and_trace():
    problem = random_problem(3, 8, Budget.per_row(4), seed=0)
    answer = solved("branch-and-bound", problem)
    mask = mask_of(answer.arrays)
    assert answer.columns["value"] == problem.value(mask)
    assert answer.columns["status"] == "optimal"
    assert answer.columns["bound"] <= answer.columns["value"]
    assert len(answer.arrays["row_bounds"]) == 3
    assert np.isclose(answer.arrays["row_bounds"].sum(), answer.columns["bound"])
    assert answer.arrays["trace_value"].min() == pytest.approx(answer.columns["value"])
    assert "certified" not in answer.columns


def test_what_is_certified_was_verified():
    problem = random_problem(1, 8, Budget.per_row(4), seed=0)
    assert solved("branch-and-bound", problem, certify=True).columns["certified"] is True


def test_functions_say_columns_facts_and_arrays_by_name():
    answer = called(
        {"value": np.float64(2.5), "n": 3, "word": "x", "many": [1, np.int64(2)], "x": np.arange(2)}
    )
    assert answer.columns == {"value": 2.5, "n": 3}
    assert answer.result == {"word": "x", "many": [1, 2]}
    assert answer.arrays["x"].tolist() == [0, 1]
    with pytest.raises(TypeError, match="must give a mapping of names to values, got int"):
        called(3)
    for bad in (
        {"seconds": [1.0]},
        {"status": 3},
        {"n": 2.5},
        {"certified": 1},
        {"value": "x"},
        {"gap": True},
    ):
        with pytest.raises(TypeError, match="is a column of the table, whose values"):
            called(bad)
    assert called({"n": 4.0, "certified": np.bool_(True), "gap": None}).columns == {
        "n": 4, "certified": True, "gap": None,
    }  # fmt: skip
    with pytest.raises(TypeError, match="no data that JSON has"):
        called({"x": object()})
    assert work("call", {"function": f"{WORK}:double", "parameters": {"a": 2}}).columns["value"] == 4
