"""Searches of one budget for a layer, gone on with."""

import itertools

import numpy as np
import pytest

from solvers import Budget, Status, checker, solve
from solvers.control import Control
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.exact.curves.rows import start_curves
from solvers.exact.curves.search import freeze, thaw
from solvers.exact.tree.block_tree import Settings
from solvers.form.blocks import blocks
from solvers.instances import save
from solvers.runtime.checkpoint import Checkpoint
from tests.solvers.oracles import make_problem

SHORT = Settings(slice=2)
"""Slices of few nodes, so that searches of small rows have more than one."""


def layer(seed, refit=True, **options):
    return make_problem(np.random.default_rng(seed), Budget.per_layer(22), m=3, n=14, refit=refit, **options)


def halves(problem):
    return blocks(problem, np.full(problem.m, problem.n // 2))


@pytest.mark.parametrize("record", [False, True], ids=["plain", "recorded"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_rows_go_on_as_if_nothing_had_been(refit, record, tmp_path):
    problem = layer(0, refit)
    control = Control(certify=record)

    def rows():
        found = start_curves(problem, control, SHORT)
        for row in found:
            row.keeps = True
            row.prove(7, 1e-6)
            row.prove(9, 0.0, limit=2)
        return found

    there, here = rows(), rows()
    file = Checkpoint(tmp_path / "search", {})
    file.save(freeze(there))
    again = thaw(halves(problem), file.load(), Settings(slice=2, record=record))
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
    row = start_curves(layer(1), Control(), SHORT)[0]
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
            first = solve(problem, BranchAndBound(slice=2), gap=1e-6, checkpoint=path)
        second = solve(problem, BranchAndBound(slice=2), gap=1e-6, checkpoint=path)
        resumed.add(second.stats["resumed"])
        assert second.status is Status.OPTIMAL
        assert second.value == pytest.approx(best, rel=1e-6)
        assert first.bound <= second.bound <= best * (1 + 1e-12)
        assert second.stats["nodes"] >= first.stats["nodes"]
    assert resumed == {False, True}


def test_searches_are_written_amid_a_round(tmp_path):
    problem = make_problem(np.random.default_rng(3), Budget.per_layer(150), m=3, n=72)
    file = Checkpoint(tmp_path / "search", {}, every=0.0)
    found = BranchAndBound(node_limit=10_000).run(problem, Control(gap=1e-6, checkpoint=file))
    assert found.reason is Status.NODE_LIMIT
    assert found.stats["checkpoints"] > 5
    again = BranchAndBound(node_limit=1).run(problem, Control(gap=1e-6, checkpoint=file))
    assert again.stats["resumed"]
    assert again.stats["nodes"] >= found.stats["nodes"]
    assert again.bound >= found.bound
    assert problem.value(again.mask) <= problem.value(found.mask) * (1 + 1e-12)


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
    file.save(freeze(rows))
    good = file.load()

    def read(arrays):
        with file.reading():
            return thaw(halves(problem), arrays, Settings())

    assert len(read(good)) == 3
    for name, change in {
        "row values": lambda a: a[:-1],
        "row order": lambda a: a + 1,
        "row chosen": lambda a: ~a,
        "row numbers shape": lambda a: a * 2,
        "row count": lambda a: a + 1,
        "unfinished count": lambda a: a + 1,
        "proof count": lambda a: a + 1,
    }.items():
        with pytest.raises(ValueError, match="is damaged"):
            read({**good, name: change(good[name])})
        with pytest.raises(ValueError, match="is damaged"):
            read({key: array for key, array in good.items() if key != name})
