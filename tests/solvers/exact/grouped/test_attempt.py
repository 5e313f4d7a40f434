"""Nodes left to trees of diagonal splits: which go on, which are given up, and what is kept of them."""

import math

import numpy as np
import pytest

from solvers.bounds.split import split_blocks
from solvers.budget import Budget
from solvers.exact.grouped import attempt, group_tree, node
from solvers.exact.grouped.group_tree import GroupTree
from solvers.exact.tree.block_tree import BlockTree, Settings
from solvers.form.blocks import blocks
from solvers.problem import SubsetProblem
from tests.solvers.exact.grouped.test_group_tree import GAP, hard, run

WEAK = 455
"""Nodes that a tree of diagonal splits takes for the row."""


def planted():
    block = hard()
    pruned = block.smallest(np.arange(block.n))
    return GroupTree(block, Settings()).plant(split_blocks([block])[0], pruned, block.value(pruned), GAP)


def best():
    block = hard()
    pruned = block.smallest(np.arange(block.n))
    tree = BlockTree(block).plant(split_blocks([block])[0], pruned, block.value(pruned), GAP)
    while not tree.work():
        pass
    return tree.value, tree.nodes


@pytest.fixture(autouse=True)
def nodes_of_its_own(monkeypatch):
    monkeypatch.setattr(group_tree, "SMALL", 2)


def hasty(monkeypatch, size=1):
    """Give up after four slices of so many nodes, unless the bound is better than the root's split's."""
    monkeypatch.setattr(attempt, "SLICE", size)
    monkeypatch.setattr(attempt, "ENOUGH", 0.0)


def test_a_tree_that_ends_soon_is_all_there_is():
    tree, (value, nodes) = run(planted()), best()
    assert tree.splits == 0
    assert nodes == WEAK
    assert abs(tree.nodes - WEAK) < 10  # its gap is smaller by what rounding may cost
    assert tree.value == pytest.approx(value, rel=1e-12)
    assert value * (1 - 2 * GAP) <= tree.bound <= value * (1 + 1e-12)


def test_what_the_tree_within_cuts_off_is_enough_for_the_one_around_it():
    """Either takes off its bound what rounding may cost there."""
    tree = planted()
    assert tree.formation > 0.0
    assert tree._attempt is not None
    within = tree._attempt.tree
    assert within.state.cutoff - within.formation >= tree.cutoff - 1e-12 * tree.value


def test_one_that_takes_long_is_given_up(monkeypatch):
    hasty(monkeypatch)
    tree, (value, _) = planted(), best()
    while not tree.work():
        assert tree.bound <= value * (1 + 1e-12)
    assert tree.splits > 3
    assert tree.nodes < 60
    assert tree.value == pytest.approx(value, rel=1e-9)
    assert value * (1 - 2 * GAP) <= tree.bound <= value * (1 + 1e-12)


def test_it_goes_on_after_all_if_its_bound_is_better(monkeypatch):
    """Groups of two are worth less than a hundred nodes."""
    hasty(monkeypatch, 32)
    monkeypatch.setattr(node, "SIZE", 2)
    tree, (value, _) = run(planted()), best()
    assert tree.splits == 1
    assert abs(tree.nodes - WEAK) < 10
    assert tree.value == pytest.approx(value, rel=1e-9)
    assert value * (1 - 2 * GAP) <= tree.bound <= value * (1 + 1e-12)


def test_sizes_are_foretold():
    tree = planted()
    foretold = []
    while not tree.work() and tree._attempt is not None:
        foretold.append(tree._attempt.size)
    assert foretold[:3] == [0.0, 0.0, 0.0]
    assert all(WEAK / 2 < size < 2 * WEAK for size in foretold[3:])


def test_a_bound_that_stands_still_foretells_no_end():
    tree = planted()
    tree.work()
    within = tree._attempt
    assert within is not None
    within._shown = [0.1, 0.1, 0.1]
    assert within.size == math.inf
    assert within.hopeless


@pytest.mark.parametrize(("size", "works"), [(64, 1), (64, 4), (1, 2), (32, 5)])
def test_checkpoints_keep_a_tree_within(size, works, monkeypatch):
    """Before its size is known, when it is, before it is given up, and when it goes on after all."""
    if size < 64:
        hasty(monkeypatch, size)
    if size == 32:
        monkeypatch.setattr(node, "SIZE", 2)
    whole, half = run(planted()), planted()
    for _ in range(works):
        half.work()
    assert half._attempt is not None
    again = GroupTree(half.block, Settings()).restore(half.arrays())
    assert (again.bound, again.value, again.nodes) == (half.bound, half.value, half.nodes)
    run(again)
    assert (again.bound, again.value, again.nodes) == (whole.bound, whole.value, whole.nodes)


def test_checkpoints_keep_what_is_left_to_a_tree_for_good(monkeypatch):
    hasty(monkeypatch)
    monkeypatch.setattr(group_tree, "SMALL", 18)
    whole, half = run(planted()), planted()
    while half._attempt is None or half._attempt.limited:
        half.work()
    again = run(GroupTree(half.block, Settings()).restore(half.arrays()))
    assert again.nodes == whole.nodes
    assert again.bound == whole.bound
    assert again.value == pytest.approx(best()[0], rel=1e-9)


@pytest.mark.parametrize("name", ["facts", "fix", "tree costs"])
def test_arrays_of_another_attempt_are_refused(name):
    tree = planted()
    tree.work()
    arrays = tree.arrays()
    arrays[f"attempt {name}"] = arrays[f"attempt {name}"][..., :-1]
    with pytest.raises(ValueError, match=r"its|broadcast"):
        GroupTree(tree.block, Settings()).restore(arrays)


def test_halted_as_the_root_is_split_it_keeps_the_tree(monkeypatch):
    """The search goes on as if it had not been halted."""
    hasty(monkeypatch)
    whole, tree = run(planted()), planted()
    while tree.nodes < 3:
        tree.work()
    within = tree._attempt
    assert within is not None
    within.work()
    tree.nodes += 1
    tree.halt[0] = True
    tree._attempt = None
    tree._process(within.rest[0], within)
    assert tree._attempt is within
    assert within.limited
    tree.halt[0] = False
    run(tree)
    assert tree.value == whole.value


def test_where_memory_is_short_others_take_its_place(monkeypatch):
    monkeypatch.setattr(group_tree, "SMALL", 18)
    tree = planted()
    tree.work()
    within = tree._attempt
    assert within is not None
    monkeypatch.setattr(within.tree.storage, "room_for_nodes", lambda: False)
    within.tree.state.free = 1
    run(tree)
    assert within.tree.full
    assert tree.splits > 0
    assert tree.value == pytest.approx(best()[0], rel=1e-9)


def test_rows_of_whole_pools_begin_with_their_states():
    """Blocks of a budget's patterns are worth more than any number of nodes with a diagonal."""
    rng = np.random.default_rng(5)
    X = rng.normal(size=(40, 32)) @ (np.eye(32) + 0.3 * rng.normal(size=(32, 32)))
    problem = SubsetProblem(rng.normal(size=(1, 32)), X.T @ X / 40 + 0.01 * np.eye(32), Budget.n_of_m(2, 4))
    (block,) = blocks(problem)
    pruned = block.smallest(np.arange(block.n))
    tree = GroupTree(block, Settings()).plant(split_blocks([block])[0], pruned, block.value(pruned), GAP)
    tree.work()
    assert tree.splits == 1


@pytest.mark.parametrize(("worth", "splits"), [(1.0, 1), (0.0, 4)])
def test_it_goes_on_where_the_split_in_groups_closes_little(monkeypatch, worth, splits):
    """However many nodes have to close the rest of it, as long as seconds suffice for the tree."""
    hasty(monkeypatch)
    monkeypatch.setattr(attempt, "WORTH", worth)
    monkeypatch.setattr(attempt, "LONGEST", math.inf)
    tree, (value, _) = run(planted()), best()
    assert (tree.splits == 1) == (splits == 1)
    assert tree.splits >= splits
    assert tree.value == pytest.approx(value, rel=1e-9)
