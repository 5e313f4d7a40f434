"""The tree of splits in groups against every mask, whole and cut short, and against the other tree."""

from dataclasses import replace

import numpy as np
import pytest

from solvers import Status, solve
from solvers.bounds.split import split_blocks
from solvers.budget import Budget
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.exact.grouped import group_tree, node
from solvers.exact.grouped.group_tree import GroupTree, suits
from solvers.exact.tree.block_tree import BlockTree, Settings
from solvers.form.blocks import blocks
from solvers.problem import SubsetProblem
from tests.solvers.oracles import block_masks

GAP = 1e-6
DEFAULT = Settings(attempt=False)


@pytest.fixture(autouse=True)
def nodes_of_its_own(monkeypatch):
    """Small rows would be left to the other tree at once."""
    monkeypatch.setattr(group_tree, "SMALL", 2)


def row(seed, n=10, prune=5, correlated=0.9):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((3 * n, n)) + correlated * 2 * rng.standard_normal((3 * n, 1))
    H = X.T @ X / len(X) + 1e-2 * np.eye(n)
    return blocks(SubsetProblem(rng.standard_normal((1, n)), H, Budget.per_row(prune)))[0]


def hard():
    """A row of few samples, whose tree has some tens of nodes."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((12, 24))
    H = X.T @ X / 12 + 1e-2 * np.eye(24)
    return blocks(SubsetProblem(rng.standard_normal((1, 24)), H, Budget.per_row(16)))[0]


def pools_of(block, sizes, keep):
    """The same row with pools of other sizes."""
    return replace(block, labels=np.repeat(np.arange(len(sizes)), sizes), keep=np.array(keep))


def least(block):
    return min(block.value(mask) for mask in block_masks(block))


def planted(block, settings=DEFAULT, gap=GAP):
    pruned = block.smallest(np.arange(block.n))
    split = split_blocks([block])[0]
    assert suits(block, split, block.value(pruned), gap)
    return GroupTree(block, settings).plant(split, pruned, block.value(pruned), gap)


def run(tree, most=3000):
    while not tree.work():
        assert tree.nodes < most
    return tree


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("prune", [2, 5, 8])
def test_it_proves_the_best_mask(seed, prune):
    block = row(seed, prune=prune)
    tree, best = run(planted(block)), least(block)
    assert tree.value == pytest.approx(best, rel=1e-9)
    assert block.value(tree.pruned) == tree.value
    assert tree.pruned.sum() == prune
    assert best * (1 - 2 * GAP) <= tree.bound <= best * (1 + 1e-12)


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize(
    ("sizes", "keep"),
    [([4, 4, 4], [2, 2, 2]), ([4, 4, 4], [1, 3, 1]), ([3, 5, 4], [1, 3, 2]), ([10, 2], [4, 1])],
    ids=str,
)
def test_pools_are_met_and_the_best_mask_is_proven(sizes, keep, size, monkeypatch):
    """Groups of whole pools, parts of pools, and both in one row."""
    monkeypatch.setattr(node, "SIZE", size)
    for seed in range(3):
        block = pools_of(row(seed, n=12, correlated=0.3), sizes, keep)
        tree, best = planted(block), least(block)
        while not tree.work():
            assert tree.bound <= best * (1 + 1e-12)
        assert tree.value == pytest.approx(best, rel=1e-9)
        assert (np.bincount(block.labels[~tree.pruned]) == keep).all()
        assert best * (1 - 2 * GAP) <= tree.bound <= best * (1 + 1e-12)


def test_rows_of_many_pools_branch_go_on_and_agree_with_the_other_tree():
    block = pools_of(hard(), [4] * 6, [2, 1, 2, 3, 1, 2])
    other = BlockTree(block, DEFAULT)
    pruned = block.smallest(np.arange(24))
    other.plant(split_blocks([block])[0], pruned, block.value(pruned), GAP)
    while not other.work():
        pass
    whole, half = run(planted(block)), planted(block)
    half.work()
    assert not half.done
    again = run(GroupTree(block, DEFAULT).restore(half.arrays()))
    for tree in (whole, again):
        assert tree.nodes > 1
        assert tree.value == pytest.approx(other.value, rel=1e-9)
        assert tree.bound <= other.value * (1 + 1e-12)
    assert again.bound == whole.bound


def test_wider_rows_branch_and_agree_with_the_other_tree():
    block = hard()
    tree = run(planted(block))
    other = BlockTree(block, DEFAULT).plant(
        split_blocks([block])[0], np.arange(24) < 16, block.value(np.arange(24) < 16), GAP
    )
    while not other.work():
        pass
    assert tree.nodes > 3
    assert tree.value == pytest.approx(other.value, rel=1e-9)
    assert tree.bound <= other.value * (1 + 1e-12)


def test_little_is_left_to_the_other_tree(monkeypatch):
    monkeypatch.setattr(group_tree, "SMALL", 18)
    block = hard()
    alone = planted(block)
    run(alone)
    monkeypatch.setattr(group_tree, "SMALL", 2)
    assert run(planted(block)).value == pytest.approx(alone.value, rel=1e-9)
    assert alone.value * (1 - 2 * GAP) <= alone.bound <= alone.value


def test_bounds_hold_all_the_way():
    block = row(3, n=12, prune=8, correlated=0.3)
    tree, best, before = planted(block, gap=1e-9), least(block), -np.inf
    while not tree.work():
        assert before <= tree.bound <= best * (1 + 1e-12)
        before = tree.bound
        assert tree.value >= best * (1 - 1e-12)
    assert tree.value == pytest.approx(best, rel=1e-9)


def test_without_memory_it_goes_depth_first_and_proves_the_same():
    block = hard()
    best, deep = run(planted(block)), run(planted(block, Settings(memory=0, attempt=False)))
    assert deep.value == pytest.approx(best.value, rel=1e-9)
    assert deep.bound >= deep.value * (1 - 2 * GAP)
    assert not deep.hungry
    assert not deep.full


def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_happened():
    block = hard()
    whole, half = planted(block), planted(block)
    for _ in range(3):
        half.work()
    again = GroupTree(block, DEFAULT).restore(half.arrays())
    assert (again.bound, again.value, again.nodes) == (half.bound, half.value, half.nodes)
    run(whole)
    run(again)
    assert again.nodes == whole.nodes
    assert again.bound == whole.bound
    assert (again.pruned == whole.pruned).all()
    done = GroupTree(block, DEFAULT).restore(whole.arrays())
    assert done.done
    assert done.work()


@pytest.mark.parametrize("name", ["facts", "incumbent", "fix", "members", "share"])
def test_arrays_of_another_search_are_refused(name):
    block = hard()
    tree = planted(block)
    tree.work()
    arrays = tree.arrays()
    arrays[name] = arrays[name][..., :-1]
    with pytest.raises(ValueError, match="its"):
        GroupTree(block, DEFAULT).restore(arrays)


def test_halted_it_keeps_what_it_has():
    block = hard()
    tree = planted(block)
    before = tree.bound
    tree.halt[0] = True
    assert not tree.work(5)
    assert tree.nodes == 0
    assert tree.bound == before
    tree.halt[0] = False
    run(tree)


def test_copies_of_inputs_are_looked_at_once():
    rng = np.random.default_rng(5)
    X = rng.standard_normal((30, 6))
    H = np.block([[X.T @ X, X.T @ X], [X.T @ X, X.T @ X]]) / 30 + 0.1 * np.eye(12)
    w = rng.standard_normal(6)
    block = blocks(SubsetProblem(np.concatenate([w, w])[None], H, Budget.per_row(7)))[0]
    assert run(planted(block)).value == pytest.approx(least(block), rel=1e-9)


def test_only_lone_joint_rows_suit():
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((20, 6)), rng.standard_normal((2, 6))
    H = X.T @ X / 20 + 0.1 * np.eye(6)

    def fits(problem):
        block = blocks(problem)[0]
        return suits(block, split_blocks([block])[0], 1.0, 1e-4)

    assert fits(SubsetProblem(W[:1], H, Budget.per_row(3)))
    assert not fits(SubsetProblem(W, H, Budget.columns(3)))
    assert fits(SubsetProblem(W[:1], H, Budget.n_of_m(1, 2)))
    assert not fits(SubsetProblem(W[:1], H, Budget.per_row(3), refit=False))
    assert not fits(SubsetProblem(W[:1], H, Budget.per_row(0)))


@pytest.mark.parametrize("budget", [Budget.per_row(6), Budget.n_of_m(1, 2)], ids=["rows", "pools"])
def test_solved_by_name_it_proves_the_best_masks(budget):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((8, 10))
    problem = SubsetProblem(rng.standard_normal((3, 10)), X.T @ X / 8 + 1e-2 * np.eye(10), budget)
    found = solve(problem, BranchAndBound(grouped=4))
    assert found.status is Status.OPTIMAL
    best = solve(problem, "brute-force").value
    assert best * (1 - 1e-4) <= found.bound <= best * (1 + 1e-12)
    certified = solve(problem, BranchAndBound(grouped=4), certify=True)
    assert certified.certificate is not None
    assert certified.value == pytest.approx(best, rel=1e-4)


def test_a_search_goes_on_from_its_file(tmp_path):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((12, 24))
    problem = SubsetProblem(
        rng.standard_normal((2, 24)), X.T @ X / 12 + 1e-2 * np.eye(24), Budget.per_row(16)
    )
    solver, path = BranchAndBound(grouped=4, node_limit=2), tmp_path / "search.ckpt"
    first = solve(problem, solver, checkpoint=path)
    assert first.status is Status.NODE_LIMIT
    second = solve(problem, BranchAndBound(grouped=4), checkpoint=path)
    assert second.stats["resumed"]
    assert second.status is Status.OPTIMAL
    assert second.bound >= first.bound
    assert second.stats["nodes"] > first.stats["nodes"]
