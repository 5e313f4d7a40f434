"""Masks that need not be looked at."""

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.bounds.split import split_blocks
from solvers.exact.tree.block_tree import BlockTree, Settings
from solvers.exact.tree.fixing import follow
from solvers.exact.tree.symmetry import chains
from solvers.form.blocks import blocks
from tests.solvers.oracles import all_masks, gram


def listed(block):
    """A block's chains as lists."""
    flat = chains(block).tolist()
    ends = [i for i, entry in enumerate(flat) if entry < 0]
    return [flat[start:stop] for start, stop in zip([0, *(e + 1 for e in ends)], ends, strict=False)]


def twins(rng, n, copies, *, refit=True, weights="equal", kind="shared", m=1, budget=None, gradient=False):
    """Problems whose inputs come in copies, each copy with the same weights or with weights of its own."""
    base = n // copies
    where = rng.permutation(np.tile(np.arange(base), copies))
    H = [gram(rng, base) for _ in range(m if kind == "stacked" else 1)]
    size = np.eye(n) if weights == "damped" else 0.0
    H = np.array(
        [A[np.ix_(where, where)] + 0.5 * (where[:, None] == where) * np.eye(n) + 0.1 * size for A in H]
    )
    W, G = rng.standard_normal((m, base))[:, where], rng.standard_normal((m, base))[:, where]
    if weights == "own":
        W = rng.standard_normal((m, n))
    return SubsetProblem(
        W, H if kind == "stacked" else H[0], budget or Budget.per_row(n // 2), refit=refit,
        gradient=G if gradient else None,
    ), where  # fmt: skip


def orbits(where):
    return sorted(sorted(np.flatnonzero(where == i).tolist()) for i in np.unique(where))


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("copies", [2, 3])
def test_duplicate_inputs_of_equal_weight_are_one_chain(copies, refit, rng):
    problem, where = twins(rng, 12, copies, refit=refit, gradient=not refit)
    assert sorted(listed(blocks(problem)[0])) == orbits(where)
    problem, _ = twins(rng, 12, copies, refit=refit, weights="own")
    assert listed(blocks(problem)[0]) == []


@pytest.mark.parametrize("kind", ["shared", "stacked"])
def test_columns_are_copies_if_they_are_in_every_row(kind, rng):
    problem, where = twins(rng, 8, 2, m=3, kind=kind, budget=Budget.columns(4))
    assert sorted(listed(blocks(problem)[0])) == orbits(where)
    W = problem.W.copy()
    W[2, 0] += 1.0
    H = (
        problem.hessian.dense(0)
        if kind == "shared"
        else np.stack([problem.hessian.dense(r) for r in range(3)])
    )
    found = listed(blocks(SubsetProblem(W, H, problem.budget))[0])
    assert sorted(found) == [orbit for orbit in orbits(where) if 0 not in orbit]


def test_copies_in_other_pools_are_no_copies(rng):
    H = gram(rng, 3)
    where = np.array([0, 1, 0, 2, 2, 1])
    A = H[np.ix_(where, where)] + 0.5 * np.eye(6)
    block = blocks(SubsetProblem(np.ones((1, 6)), A, Budget.n_of_m(1, 3)))[0]
    assert listed(block) == [[0, 2], [3, 4]]


def test_inputs_that_only_swap_together_with_others_are_no_copies():
    H = np.eye(4)
    H[0, 2] = H[2, 0] = H[1, 3] = H[3, 1] = 0.5
    assert listed(blocks(SubsetProblem(np.ones((1, 4)), H, Budget.per_row(2)))[0]) == [[0, 2], [1, 3]]


def test_isolated_inputs_are_chained_by_falling_cost(rng):
    H = np.diag([2.0, 1.0, 1.0, 3.0, 1.0, 1.0])
    H[0, 3] = H[3, 0] = 0.5
    W = np.array([[1.0, 2.0, -3.0, 1.0, 0.0, 2.0]])
    assert listed(blocks(SubsetProblem(W, H, Budget.per_row(3)))[0]) == [[2, 1, 5, 4]]
    G = np.array([[0.0, 5.0, 0.0, 0.0, 1.0, -1.0]])
    block = blocks(SubsetProblem(W, H, Budget.per_row(3), refit=False, gradient=G))[0]
    assert listed(block) == [[2, 5, 4, 1]]  # 4.5, 4, 0, -8


def test_zero_weights_of_a_selection_are_isolated(rng):
    W = rng.standard_normal((1, 6))
    W[0, [1, 4]] = 0.0
    assert listed(blocks(SubsetProblem(W, gram(rng, 6), Budget.per_row(3), refit=False))[0]) == [[1, 4]]
    assert listed(blocks(SubsetProblem(W, gram(rng, 6), Budget.per_row(3)))[0]) == []


def test_following_a_chain():
    ordered = np.array([4, 0, 2, 5, -1, 1, 3, -1])
    fix = np.array([1, 0, 0, 1, 0, 0], np.int8)
    assert follow(fix, ordered)
    assert fix.tolist() == [1, 1, 0, 1, 1, 0]
    fix = np.array([0, 0, -1, 0, 1, 0], np.int8)
    assert follow(fix, ordered)
    assert fix.tolist() == [0, 0, -1, 0, 1, -1]
    fix = np.array([-1, 0, 1, 0, 0, 0], np.int8)
    assert not follow(fix, ordered)
    assert follow(fix, np.zeros(0, np.int64))


CASES = {
    "joint": {},
    "selection": {"refit": False},
    "selection with gradient": {"refit": False, "gradient": True},
    "columns": {"m": 2, "budget": Budget.columns(6)},
    "columns, own curvatures": {"m": 2, "budget": Budget.columns(5), "kind": "stacked"},
    "pools": {"budget": Budget.n_of_m(3, 6)},
    "pools of a selection": {"budget": Budget.n_of_m(2, 4), "refit": False},
    "damped": {"weights": "damped"},
}


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_what_is_left_out_costs_nothing(case, copies):
    """Both searches find the brute-force optimum, and the bounds hold; no incumbent helps either."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        problem, _ = twins(rng, 12, copies, **CASES[case])
        block = blocks(problem)[0]
        (split,) = split_blocks([block])
        masks = [mask[block.rows[0]] for mask in all_masks(problem)]
        values = [block.value(mask) for mask in masks]
        best, worst = min(values), int(np.argmax(values))
        for symmetry in (True, False):
            tree = BlockTree(block, Settings(symmetry=symmetry))
            tree.plant(split, masks[worst], values[worst], 1e-7)
            assert tree.work(100_000)
            assert tree.value == pytest.approx(best, abs=1e-7 * abs(best) + 1e-10 * block.scale)
            assert tree.bound <= best + 1e-12 * block.scale
            assert len(tree.search.chains) == 0 or symmetry


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_dead_inputs_are_pruned_in_their_order(refit):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        H, W = gram(rng, 12), rng.standard_normal((1, 12))
        H[3:9], H[:, 3:9] = 0.0, 0.0
        H += np.diag(np.where(np.arange(12) // 3 % 3 > 0, 0.3, 0.0))
        problem = SubsetProblem(W, H, Budget.per_row(6), refit=refit)
        block = blocks(problem)[0]
        assert [sorted(chain) for chain in listed(block)] == [[3, 4, 5, 6, 7, 8]]
        masks = sorted((mask[0] for mask in all_masks(problem)), key=block.value)
        best = block.value(masks[0])
        (split,) = split_blocks([block])
        found = BlockTree(block).plant(split, masks[-1], block.value(masks[-1]), 1e-7)
        assert found.work(100_000)
        assert found.value == pytest.approx(best, rel=1e-6)
        assert found.bound <= best


def test_copies_take_fewer_nodes():
    rng = np.random.default_rng(1)
    problem, _ = twins(rng, 30, 3, budget=Budget.per_row(20))
    block = blocks(problem)[0]
    (split,) = split_blocks([block])
    pruned = np.arange(30) < 20
    nodes = []
    for symmetry in (True, False):
        tree = BlockTree(block, Settings(symmetry=symmetry))
        tree.plant(split, pruned, block.value(pruned), 1e-4)
        assert tree.work(100_000)
        nodes.append(tree.nodes)
    assert nodes[0] < 0.7 * nodes[1]


def test_recorded_searches_leave_nothing_out(rng):
    problem, _ = twins(rng, 12, 2)
    block = blocks(problem)[0]
    assert len(BlockTree(block).search.chains) > 0
    assert len(BlockTree(block, Settings(record=True)).search.chains) == 0
