import itertools

import numpy as np
import pytest

from solvers.certificate.original import stored
from solvers.checker.problem import parse_problem, read_problem
from solvers.instances import load, save
from tests.solvers.oracles import BUDGETS, POOLS, make_problem


def fields(**changes):
    given = {
        "weights": np.ones((2, 4)), "hessian": np.eye(4), "budget": np.array("per_row"), "prune": np.array(2)
    }  # fmt: skip
    given |= {name: np.asarray(value) for name, value in changes.items() if value is not None}
    return {name: value for name, value in given.items() if name not in changes or changes[name] is not None}


@pytest.mark.parametrize(
    ("budget", "kind", "refit", "gradient", "movable"),
    list(
        itertools.product(
            BUDGETS | POOLS, ("shared", "stacked", "factor"), (True, False), (True, False), ((), (4, 1))
        )
    )[::5],
)
def test_the_file_and_the_problem_have_one_digest(tmp_path, budget, kind, refit, gradient, movable):
    rng = np.random.default_rng(0)
    n = 6 + len(movable)
    problem = make_problem(
        rng, (BUDGETS | POOLS)[budget], n=n, kind=kind, refit=refit, gradient=gradient, movable=movable
    )
    save(tmp_path / "p.npz", problem)
    read = read_problem(tmp_path / "p.npz")
    assert read.digest == stored(problem).digest == stored(load(tmp_path / "p.npz")).digest
    assert sorted(read.prunable) == problem.prunable.tolist()
    if "pools" in budget:
        labels = np.array(problem.budget.labels)
        assert (np.diff(labels[np.searchsorted(problem.prunable, read.prunable)]) >= 0).all()
    sizes, prune = read.pools()
    if budget != "per_layer":
        assert (prune.ravel() == problem.pools.prune).all()
        assert np.tile(sizes, len(prune)).tolist() == problem.pools.sizes.tolist()


def test_one_count_is_the_count_of_every_row():
    assert parse_problem(fields()).digest == parse_problem(fields(prune=[2, 2])).digest
    assert parse_problem(fields()).digest != parse_problem(fields(prune=[2, 1])).digest


def test_types_do_not_matter_but_numbers_do():
    assert parse_problem(fields()).digest == parse_problem(fields(weights=np.ones((2, 4), np.float32))).digest
    assert parse_problem(fields()).digest != parse_problem(fields(weights=np.full((2, 4), 1.5))).digest


def test_a_curvature_is_symmetric():
    H = np.eye(4)
    H[0, 1] = 1e-12
    problem = parse_problem(fields(hessian=H))
    assert problem.hessian[0, 1] == problem.hessian[1, 0] == 5e-13


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hessian": None}, "need 'hessian', or 'factor'"),
        ({"factor": np.ones((3, 4))}, "need 'hessian', or 'factor'"),
        ({"damping": 1.0}, "need 'hessian', or 'factor'"),
        ({"scale": 1.0}, "no other fields"),
        ({"hessian": np.eye(3)}, "hessian has shape"),
        ({"weights": np.array([[1.0, np.nan, 0.0, 0.0]])}, "weights must be an array of finite numbers"),
        ({"weights": np.ones(4)}, "with 2 dimensions"),
        ({"gradient": np.ones((1, 4))}, "gradient has shape"),
        ({"prune": 5}, "can't be met"),
        ({"prune": -1}, "can't be met"),
        ({"prune": 1.5}, "field 'prune' holds float64; it must hold whole numbers"),
        ({"budget": "most"}, "budget is 'most'"),
        ({"movable": [1, 1]}, "distinct columns"),
        ({"movable": [4]}, "distinct columns"),
        ({"movable": [0, 1, 2, 3], "prune": 0}, "a column to prune"),
        ({"budget": "n_of_m", "keep": 1, "of": 3}, "can't be met"),
        ({"budget": "pools", "labels": [0, 1, 0, 1], "prune": [1, 3]}, "can't be met"),
        ({"budget": "pools", "labels": [0, 2, 0, 2], "prune": [1, 0, 1]}, "can't be met"),
        ({"budget": "pools", "labels": [0, 1, 0], "prune": [1, 1]}, "can't be met"),
        ({"budget": "pools", "labels": [0, -1, 0, 0], "prune": [1, 1]}, "can't be met"),
        ({"budget": "pools", "labels": [0, 1, 0, 1], "prune": [1]}, "can't be met"),
        ({"budget": "pools", "labels": [0, 1, 0, 1], "prune": 1}, "not a number for every group"),
        ({"budget": "pools", "labels": [[0, 1, 0, 1]], "prune": [1, 1]}, "it must list up to 4 numbers"),
        ({"budget": "pools", "prune": 2}, "field 'labels' is missing"),
        ({"budget": "groups", "sizes": [4, 4], "prune": [1, 1]}, "can't be met"),
        ({"budget": "groups", "sizes": [4, 0], "prune": [1, 0]}, "can't be met"),
        ({"budget": "groups", "sizes": [2, 2], "labels": [0] * 4, "prune": [1, 1]}, "does not go with"),
        ({"budget": "pools", "labels": [0] * 4, "prune": [1], "shared": 1}, "must be true or false"),
        ({"labels": [0, 0, 0, 0], "prune": [2]}, "field 'labels' does not go with budget 'per_row'"),
    ],
)
def test_what_is_no_problem(changes, words):
    with pytest.raises(ValueError, match=words):
        parse_problem(fields(**changes))


def test_a_missing_field_is_named(tmp_path):
    np.savez(tmp_path / "p.npz", **fields(prune=None))
    with pytest.raises(ValueError, match=r"instance file .*p.npz': field 'prune' is missing"):
        read_problem(tmp_path / "p.npz")
