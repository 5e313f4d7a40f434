"""Searches of one budget for a layer, gone on with."""

import itertools

import numpy as np
import pytest

from solvers import Budget, Status, checker, solve
from solvers.control import Control
from solvers.exact.curves.checkpoint import freeze_rows, go_on
from solvers.exact.curves.closing import start_curves
from solvers.exact.tree import BranchAndBound, block_tree
from solvers.instances import save
from solvers.runtime import checkpoint as files
from solvers.runtime.checkpoint import Checkpoint, ragged, unragged
from tests.solvers.oracles import make_problem


@pytest.fixture(autouse=True)
def _short_slices(monkeypatch):
    """Slices of few nodes, so that searches of small rows have more than one."""
    monkeypatch.setattr(block_tree, "SLICE", 2)


def layer(seed, refit=True, **options):
    return make_problem(np.random.default_rng(seed), Budget.per_layer(22), m=3, n=14, refit=refit, **options)


def test_arrays_of_many_shapes_come_back(tmp_path):
    arrays = [np.arange(6).reshape(2, 3), np.zeros((0, 4), np.int64), np.ones((1, 1), np.int64)]
    file = Checkpoint(tmp_path / "search", {})
    file.save([*ragged("many", arrays), *ragged("none", [])])
    found = unragged("many", file.load())
    assert [array.tolist() for array in found] == [array.tolist() for array in arrays]
    assert [array.shape for array in found] == [array.shape for array in arrays]
    assert unragged("none", file.load()) == []
    with pytest.raises(ValueError, match="does not fit"):
        unragged("many", {**file.load(), "many": np.zeros(5)})


@pytest.mark.parametrize("record", [False, True], ids=["plain", "recorded"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_rows_go_on_as_if_nothing_had_been(refit, record, tmp_path):
    problem = layer(0, refit)
    control = Control(certify=record)

    def rows():
        found = start_curves(problem, control)
        for row in found:
            row.keeps = True
            row.prove(7, 1e-6)
            row.prove(9, 0.0, limit=2)
        return found

    there, here = rows(), rows()
    file = Checkpoint(tmp_path / "search", {})
    file.save(freeze_rows(there))
    again = go_on(problem, file.load(), file, probe=1, memory=1 << 30, record=record)
    for one, other in zip(again, here, strict=True):
        assert (one.unfinished is None) == (other.unfinished is None)
        for k in (9, 4, 7):
            one.prove(k, 1e-7)
            other.prove(k, 1e-7)
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(one.lower, other.lower)
        np.testing.assert_array_equal(one.left, other.left)
        assert (one.nodes, one.trees, one.noise) == (other.nodes, other.trees, other.noise)
        for k in range(15):
            np.testing.assert_array_equal(one.mask(k), other.mask(k))
        assert [proof.bound for proof in one.proofs()] == [proof.bound for proof in other.proofs()]
    assert any(row.unfinished is not None for row in there)


def test_an_unfinished_search_of_a_looser_gap_is_not_gone_on_with():
    row = start_curves(layer(1), Control())[0]
    row.keeps = True
    row.prove(7, 1e-3, limit=1)
    tree = row.unfinished
    assert tree is not None
    row.prove(7, 1e-5, limit=1)
    assert row.unfinished is not tree
    tree = row.unfinished
    row.prove(7, 1e-4, limit=2)
    assert row.unfinished is tree or row.unfinished is None


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_solve_goes_on_from_any_poll(refit, tmp_path, monkeypatch):
    problem = layer(2, refit)
    whole = solve(problem, "branch-and-bound", gap=1e-6)
    best = solve(problem, "brute-force").value if refit else whole.value
    resumed = set()
    for polls in (5, 40, 120, 300):
        path = tmp_path / f"search{polls}"
        calls = itertools.count()
        with monkeypatch.context() as patch:
            patch.setattr(
                Control,
                "stopped",
                lambda c, calls=calls, n=polls: Status.INTERRUPTED if next(calls) > n else None,
            )
            first = solve(problem, "branch-and-bound", gap=1e-6, checkpoint=path)
        second = solve(problem, "branch-and-bound", gap=1e-6, checkpoint=path)
        resumed.add(second.stats["resumed"])
        assert second.status is Status.OPTIMAL
        assert second.value == pytest.approx(best, rel=1e-6)
        assert first.bound <= second.bound <= best * (1 + 1e-12)
        assert second.stats["nodes"] >= first.stats["nodes"]
    assert resumed == {False, True}


def test_searches_are_written_amid_a_round(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(files, "EVERY", 0.005)
    clock.tick = 0.0001
    problem = make_problem(np.random.default_rng(3), Budget.per_layer(150), m=3, n=72)
    path = tmp_path / "search"
    found = solve(problem, "branch-and-bound", gap=1e-6, time_limit=1.0, checkpoint=path)
    assert found.status is Status.TIME_LIMIT
    assert found.stats["checkpoints"] > 5
    again = solve(problem, BranchAndBound(node_limit=1), gap=1e-6, checkpoint=path)
    assert again.stats["resumed"]
    assert again.stats["nodes"] >= found.stats["nodes"]
    assert again.bound >= found.bound
    assert again.value <= found.value * (1 + 1e-12)


def test_a_finished_one_gives_its_answer_and_its_certificate_again(tmp_path):
    problem = layer(4, gradient=True)
    path = tmp_path / "search"
    first = solve(problem, "branch-and-bound", gap=1e-5, checkpoint=path, certify=True)
    again = solve(problem, "branch-and-bound", gap=1e-5, checkpoint=path, certify=True)
    assert again.stats["nodes"] == first.stats["nodes"]
    assert (again.value, again.bound, again.status) == (first.value, first.bound, Status.OPTIMAL)
    save(tmp_path / "layer.npz", problem)
    again.certificate.save(tmp_path / "layer.cert")
    verdict = checker.verify(tmp_path / "layer.cert", tmp_path / "layer.npz")
    assert verdict.bound == first.certificate.bound
    assert verdict.gap <= 1.1e-5


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    problem = layer(5)
    rows = start_curves(problem, Control())
    file = Checkpoint(tmp_path / "search", {})
    file.save(freeze_rows(rows))
    good = file.load()

    def read(arrays):
        return go_on(problem, arrays, file, probe=1, memory=1 << 30, record=False)

    assert len(read(good)) == 3
    for name, change in {
        "row values": lambda a: a[:-1],
        "row order": lambda a: a + 1,
        "row chosen": lambda a: ~a,
        "row numbers shape": lambda a: a * 2,
        "unfinished": lambda a: np.array([[9, 1]]),
        "proofs": lambda a: np.array([[0, 1]]),
    }.items():
        with pytest.raises(ValueError, match="is damaged"):
            read({**good, name: change(good[name])})
        with pytest.raises(ValueError, match="is damaged"):
            read({key: array for key, array in good.items() if key != name})
