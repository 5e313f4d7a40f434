"""Searches that are stopped at any moment: what they give back is a mask of the budget and a valid bound."""

import itertools
import threading
import time

import numpy as np
import pytest

from solvers import Budget, Status, solve
from solvers.bounds import split as splitting
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.split import split_blocks
from solvers.control import Control
from solvers.exact.tree.block_tree import BlockTree, Settings
from solvers.exact.tree.forest import grow_forest
from solvers.exact.tree.subtree import root_bound
from solvers.form.blocks import blocks
from tests.solvers.oracles import BUDGETS, make_problem

KINDS = {
    "joint": {},
    "own curvatures": {"kind": "stacked"},
    "selection": {"refit": False},
    "selection with gradient": {"refit": False, "gradient": True},
}


def after(polls):
    """A `stopped` that says so from that call on."""
    calls = itertools.count()
    return lambda: Status.INTERRUPTED if next(calls) >= polls else None


@pytest.mark.parametrize("wide", [False, True], ids=["narrow", "wide"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", ["per_row", "columns", "n_of_m"])
def test_splits_that_are_stopped_are_valid(budget, kind, wide, monkeypatch):
    if wide:
        monkeypatch.setattr(splitting, "WIDE", 4)
    problem = make_problem(np.random.default_rng(0), BUDGETS[budget], m=3, n=9, **KINDS[kind])
    found = blocks(problem)
    best = solve(problem, "brute-force").value
    bounds = []
    for polls in (0, 1, 2, 5, 1000):
        splits = split_blocks(found, stopped=after(polls))
        for block, split in zip(found, splits, strict=True):
            for H, d in zip(block.H, split.d, strict=True):
                assert np.linalg.eigvalsh(H - np.diag(d))[0] > -1e-14 * np.abs(H).max()
                assert not block.refit or (d > 0).all()
            np.testing.assert_allclose(np.bincount(block.labels, weights=split.z), block.keep, atol=1e-6)
            own = lower_bound(block, split.d, relaxed_point(block, split.d, split.z))
            assert root_bound(block, split) == pytest.approx(own, rel=1e-6, abs=1e-6 * block.scale)
        bounds.append(sum(root_bound(block, split) for block, split in zip(found, splits, strict=True)))
        assert bounds[-1] <= best + 1e-12 * problem.scale
    assert bounds[0] < bounds[-1]
    assert bounds[-1] == sum(
        root_bound(block, split) for block, split in zip(found, split_blocks(found), strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_search_can_be_stopped_at_any_poll(budget, kind, monkeypatch):
    problem = make_problem(np.random.default_rng(1), BUDGETS[budget], n=9, **KINDS[kind])
    best = solve(problem, "brute-force").value
    statuses = set()
    for polls in [*range(12), *range(15, 60, 5), 200]:
        limit = after(polls)
        monkeypatch.setattr(Control, "stopped", lambda control, limit=limit: limit())
        found = solve(problem, "branch-and-bound", gap=1e-9)
        assert problem.pools.violation(found.mask) is None
        assert found.bound <= best + 1e-12 * problem.scale
        assert found.value >= best - 1e-12 * problem.scale
        statuses.add(found.status)
    assert Status.INTERRUPTED in statuses


def test_trees_are_halted_amid_a_slice(rng):
    problem = make_problem(rng, Budget.per_row(60), m=2, n=90)
    found = blocks(problem)
    trees = []
    for block, split in zip(found, split_blocks(found), strict=True):
        pruned = np.arange(90) < 60
        trees.append(BlockTree(block).plant(split, pruned, block.value(pruned), 0.0))
    for tree in trees:
        tree.work = lambda nodes=None, tree=tree: BlockTree.work(tree, 10_000_000)  # one endless slice
    end = time.perf_counter() + 0.5
    bounds = [tree.bound for tree in trees]
    limit = threading.Timer(60.0, lambda: [tree.halt.fill(True) for tree in trees])  # so that it can fail
    limit.start()
    reason = grow_forest(
        trees, lambda: Status.TIME_LIMIT if time.perf_counter() > end else None, lambda: None
    )
    assert limit.is_alive()
    limit.cancel()
    assert reason is Status.TIME_LIMIT
    assert not any(tree.done or tree.halt[0] for tree in trees)
    for tree, bound in zip(trees, bounds, strict=True):
        nodes = tree.nodes
        assert nodes > 0
        assert bound <= tree.bound <= tree.value
        BlockTree.work(tree, 3)
        assert tree.nodes == nodes + 3


def test_hungry_trees_share_what_is_left(rng):
    counts = (2, 12, 12)  # the first tree is soon done, and leaves its memory to the others
    problem = make_problem(rng, Budget.per_row(counts), m=3, n=20)
    found = blocks(problem)
    alone, together = [], []
    for trees, memory in ((alone, 1 << 30), (together, 60_000)):
        for block, split, count in zip(found, split_blocks(found), counts, strict=True):
            pruned = np.arange(20) < count
            tree = BlockTree(block, Settings(memory=memory, share=True))
            trees.append(tree.plant(split, pruned, block.value(pruned), 1e-6))
    for trees in (alone, together):
        assert grow_forest(trees, lambda: None, lambda: None) is Status.OPTIMAL
    for one, other in zip(alone, together, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-6)
        assert one.bound == pytest.approx(other.bound, rel=2e-6)
    assert 60_000 < max(tree.memory for tree in together) <= 180_000


def test_a_slow_listener_is_not_told_of_every_tree(rng):
    problem = make_problem(rng, Budget.per_row(6), m=24, n=12)
    found, told = blocks(problem), []
    trees = []
    for block, split in zip(found, split_blocks(found), strict=True):
        pruned = np.arange(12) < 6
        trees.append(BlockTree(block).plant(split, pruned, block.value(pruned), 1e-6))

    def progress():
        told.append(sum(tree.done for tree in trees))
        time.sleep(0.1)

    assert grow_forest(trees, lambda: None, progress) is Status.OPTIMAL
    assert all(tree.done for tree in trees)
    assert told
    assert len(told) < 6  # of 24 turns, most of them alone


@pytest.mark.parametrize("budget", ["per_row", "n_of_m", "columns"])
def test_the_number_of_threads_does_not_change_the_answer(budget, monkeypatch, rng):
    budgets = {"per_row": Budget.per_row(16), "n_of_m": Budget.n_of_m(2, 4), "columns": Budget.columns(10)}
    problem = make_problem(rng, budgets[budget], m=4, n=24 if budget == "per_row" else 16)
    answers = []
    for threads in (1, 2, 3):
        monkeypatch.setattr("os.cpu_count", lambda threads=threads: threads)
        answers.append(solve(problem, "branch-and-bound", seed=5))
    for other in answers[1:]:
        np.testing.assert_array_equal(other.mask, answers[0].mask)
        assert (other.value, other.bound) == (answers[0].value, answers[0].bound)
        assert other.stats["nodes"] == answers[0].stats["nodes"]
