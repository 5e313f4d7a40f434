"""Depth-first trees of narrow selections, against every mask."""

from threading import Thread

import numpy as np
import pytest

from solvers import Budget, SubsetProblem, checker, solve
from solvers.bounds.split import split_blocks
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.exact.selections import search
from solvers.exact.selections.relaxation import Convex
from solvers.exact.selections.selection_tree import WIDEST, SelectionTree
from solvers.exact.tree.block_tree import DEFAULT, BlockTree, Settings
from solvers.form.blocks import blocks
from solvers.instances import save
from tests.solvers.oracles import all_masks, block_masks, gram, make_problem, optimum

CASES = {
    "plain": (Budget.per_row(7), {"n": 13}),
    "few pruned": (Budget.per_row(2), {"n": 14}),
    "with gradient": (Budget.per_row(7), {"n": 13, "gradient": True}),
    "pools": (Budget.n_of_m(1, 3), {"n": 12, "gradient": True}),
    "columns": (Budget.columns(6), {"m": 3, "n": 12}),
}
GAP = 1e-6


def worst(block):
    """A mask that no search should be content with."""
    return max(block_masks(block), key=block.value)


def planted(case, seed, gap=GAP, **options):
    budget, how = CASES[case]
    problem = make_problem(np.random.default_rng(seed), budget, **{"m": 1, "refit": False, **how})
    (block,) = blocks(problem)
    return SelectionTree(block, Settings(**options)).plant(*split_blocks([block]), worst(block), gap)


def facts(tree):
    return tree.nodes, tree.value, tree.bound, tree.pruned.tolist(), tree.done


@pytest.mark.parametrize("gap", [0.0, GAP, 0.1])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_the_best_mask_is_proven_and_every_bound_on_the_way_holds(case, seed, gap):
    tree = planted(case, seed, gap)
    block = tree.block
    best, slack = min(block.value(mask) for mask in block_masks(block)), 1e-9 * block.scale
    bound = tree.bound
    while not tree.work(1):
        assert bound - slack <= tree.bound <= best <= tree.value + slack
        bound = tree.bound
    assert tree.bound <= best + 1e-15 * block.scale
    assert tree.value - tree.bound <= gap * abs(tree.value) + slack
    assert block.value(tree.pruned) == pytest.approx(tree.value, abs=slack)
    assert np.bincount(block.labels, weights=tree.pruned).tolist() == block.prune.tolist()
    assert tree.work()


@pytest.mark.parametrize("case", CASES)
def test_trees_that_are_kept_go_on_as_if_nothing_had_been(case):
    whole, tree = planted(case, 1), planted(case, 1)
    assert whole.work(100_000)
    for _ in range(1000):
        if tree.work(2):
            break
        tree = SelectionTree(tree.block, DEFAULT).restore(tree.arrays())
    assert facts(tree) == facts(whole)
    assert facts(SelectionTree(tree.block, DEFAULT).restore(tree.arrays())) == facts(whole)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("fixes", lambda a: a[:-1], "shape"),
        ("shares", lambda a: a.astype(np.float32), "shape"),
        ("split", lambda a: a[:, :-1], "shape"),
        ("counts", lambda a: a + 1000, "range"),
        ("counts", lambda a: a - 1000, "range"),
        ("sides", lambda a: a - 1000, "range"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name, change, said):
    tree = planted("plain", 0)
    tree.work(3)
    arrays = tree.arrays()
    with pytest.raises(ValueError, match=said):
        SelectionTree(tree.block, DEFAULT).restore({**arrays, name: change(arrays[name])})


def test_a_tree_that_is_halted_waits():
    tree = planted("plain", 0)
    tree.halt[0] = True
    assert not tree.work()
    assert tree.nodes == 0
    tree.halt[0] = False
    assert tree.work()


def test_copies_of_inputs_are_pruned_in_order(rng):
    H = np.kron(gram(rng, 5), np.ones((4, 4))) + 0.2 * np.eye(20)
    problem = SubsetProblem(np.repeat(rng.standard_normal(5), 4)[None], H, Budget.per_row(9), refit=False)
    (block,) = blocks(problem)
    split = split_blocks([block])
    found = {}
    for symmetry in (True, False):
        tree = SelectionTree(block, Settings(symmetry=symmetry)).plant(*split, block.quick, 1e-7)
        while not tree.work():
            pass
        found[symmetry] = tree
    assert found[True].value == pytest.approx(found[False].value, rel=1e-6)
    assert found[True].nodes < found[False].nodes


@pytest.mark.parametrize("budget", [Budget.per_row(5), Budget.n_of_m(2, 4), Budget.columns(3)])
def test_rows_of_a_solve_are_searched_so_unless_a_proof_is_asked_for(budget, rng, monkeypatch, tmp_path):
    problem = make_problem(rng, budget, m=2, n=8, refit=False)
    BranchAndBound().prepare(problem)  # which grows trees of both kinds
    made = []
    for kind in (SelectionTree, BlockTree):

        def plant(tree, *given, _plant=kind.plant):
            made.append(type(tree))
            return _plant(tree, *given)

        monkeypatch.setattr(kind, "plant", plant)
    found = solve(problem, "branch-and-bound", gap=0.0)
    assert {*made} == {SelectionTree}
    assert found.value == pytest.approx(min(problem.value(m) for m in all_masks(problem)), rel=1e-9)
    made.clear()
    certified = solve(problem, "branch-and-bound", certify=True)
    assert {*made} == {BlockTree}
    certified.certificate.save(tmp_path / "proof")
    save(tmp_path / "problem.npz", problem)
    assert checker.verify(tmp_path / "proof", tmp_path / "problem.npz").bound <= optimum(problem) + 1e-12


def test_a_search_with_a_checkpoint_goes_on_where_it_was(rng, tmp_path):
    n = 40
    problem = SubsetProblem(rng.standard_normal((1, n)), gram(rng, n), Budget.per_row(n // 2), refit=False)
    assert n <= WIDEST
    whole = solve(problem, BranchAndBound(), gap=0.0)
    part = solve(
        problem, BranchAndBound(slice=1), gap=0.0, checkpoint=tmp_path / "search",
        callback=lambda progress: progress.nodes > 0,
    )  # fmt: skip
    assert 0 < part.stats["nodes"] < whole.stats["nodes"]
    assert part.bound <= whole.value
    rest = solve(problem, BranchAndBound(), gap=0.0, checkpoint=tmp_path / "search")
    assert rest.stats["resumed"]
    assert rest.value == whole.value
    assert rest.stats["nodes"] == whole.stats["nodes"]


@pytest.mark.parametrize("seed", [3022, 3409, 4554, 7186, 7600])
def test_swaps_end_where_costs_of_zero_are_rounded(seed):
    """Curvatures of rank one or two, whose best masks cost nothing: either of two swaps seemed to gain."""
    rng = np.random.default_rng(seed)
    n, rank = int(rng.integers(6, 14)), int(rng.integers(1, 3))
    u = rng.choice([-1, 1, 2, -2, 0.5, 3], size=(rank, n)) * rng.uniform(0.1, 1, size=(rank, 1)) / 3
    w = rng.uniform(0.1, 1) * np.ones(n) if seed % 2 else rng.choice([1 / 3, 0.7, 0.1], size=n)
    A, none = (u.T @ u) * np.outer(w, w), np.zeros(n)
    pruned = np.zeros(n)
    pruned[rng.permutation(n)[: n // 2]] = 1.0
    convex = Convex(A, none, A, none, none, np.zeros(n, np.int64), np.array([n // 2]))
    cost = 0.5 * pruned @ A @ pruned
    thread = Thread(target=search._improve, args=(convex, pruned), daemon=True)
    thread.start()
    thread.join(60.0)
    assert not thread.is_alive()
    assert pruned.sum() == n // 2
    assert 0.5 * pruned @ A @ pruned <= cost
