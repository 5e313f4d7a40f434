"""The proofs that searches leave behind."""

import numpy as np
import pytest

from solvers import Budget, Status, checker, solve
from solvers.bounds.split import split_blocks
from solvers.certificate import IMPOSSIBLE
from solvers.certificate.proof import leaf_fixings
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.exact.tree.block_tree import BlockTree, Settings
from solvers.form.blocks import blocks
from solvers.instances import save
from tests.solvers.oracles import BUDGETS, all_masks, make_problem

CASES = {
    "joint": (Budget.per_row(6), {"n": 12}),
    "joint, few kept": (Budget.per_row(10), {"n": 13}),
    "selection": (Budget.per_row(6), {"n": 12, "refit": False}),
    "selection with gradient": (Budget.per_row(6), {"n": 12, "refit": False, "gradient": True}),
    "pools": (Budget.n_of_m(2, 4), {"n": 12}),
    "pools of a selection": (Budget.n_of_m(1, 3), {"n": 12, "refit": False}),
    "columns": (Budget.columns(6), {"m": 3, "n": 11}),
    "columns, own curvatures": (Budget.columns(6), {"m": 3, "n": 11, "kind": "stacked"}),
    "columns of a selection": (Budget.columns(6), {"m": 3, "n": 11, "refit": False}),
}


def grown(problem, nodes, seed=0, **options):
    """A block's tree from a random incumbent, after so many nodes or, if None, to its end."""
    block = blocks(problem)[0]
    (split,) = split_blocks([block])
    rng = np.random.default_rng(seed)
    pruned = np.zeros(block.n, dtype=bool)
    for p, count in enumerate(block.prune):
        pruned[rng.choice(np.flatnonzero(block.labels == p), count, replace=False)] = True
    tree = BlockTree(block, Settings(record=True, **options))
    tree.plant(split, pruned, block.value(pruned), 1e-6)
    if nodes is None:
        assert tree.work(100_000)
    elif nodes:
        tree.work(nodes)
    return tree


@pytest.mark.parametrize("nodes", [0, 1, 4, None])
@pytest.mark.parametrize("case", CASES)
def test_a_proof_covers_all_masks_and_shows_what_the_search_did(case, nodes):
    budget, options = CASES[case]
    for seed in range(2):
        problem = make_problem(np.random.default_rng(seed), budget, **{"m": 1, **options})
        tree = grown(problem, nodes, seed)
        proof, block = tree.proof(), tree.block
        masks = np.array([mask[0] for mask in all_masks(problem)])
        values = np.array([block.value(mask) for mask in masks])
        covered = np.zeros(len(masks), dtype=int)
        leaves, fixings = leaf_fixings(proof, block.n)
        assert sorted([*leaves, *np.flatnonzero(proof.entry >= 0)]) == list(range(len(proof.entry)))
        for leaf, fixed in zip(leaves, fixings, strict=True):
            inside = ~(masks & (fixed > 0)).any(axis=1) & ~(~masks & (fixed < 0)).any(axis=1)
            covered += inside
            if proof.vector[leaf] == IMPOSSIBLE:
                assert not inside.any()
            else:
                assert (proof.claim[leaf] <= values[inside] + 1e-12 * block.scale).all()
        assert (covered == 1).all()
        assert proof.bound <= values.min()
        assert proof.bound >= tree.bound - 1e-6 * abs(values.min()) - 1e-12 * block.scale
        if nodes is None:
            assert proof.bound == pytest.approx(values.min(), rel=3e-6)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_splits_of_subtrees_are_in_the_proof_as_far_as_leaves_use_them(refit):
    problem = make_problem(np.random.default_rng(5), Budget.per_row(10), m=1, n=20, refit=refit)
    tree = grown(problem, None, worth=0.0, depth=2)
    proof = tree.proof()
    assert tree.splits > 2
    assert 2 <= len(proof.splits) <= tree.splits
    used = np.unique(proof.owner[proof.vector[proof.bounding]])
    np.testing.assert_array_equal(np.union1d(used, 0), np.arange(len(proof.splits)))
    np.testing.assert_array_equal(np.unique(proof.vector[proof.bounding]), np.arange(len(proof.u)))


def test_recording_does_not_change_the_course():
    problem = make_problem(np.random.default_rng(6), Budget.per_row(12), m=1, n=20)
    block = blocks(problem)[0]
    (split,) = split_blocks([block])
    pruned = np.arange(20) < 12
    plain, recorded = (
        BlockTree(block, Settings(record=record)).plant(split, pruned, block.value(pruned), 1e-6)
        for record in (False, True)
    )
    assert plain.work(100_000)
    assert recorded.work(100_000)
    assert plain.nodes > 5
    assert (plain.nodes, plain.value, plain.bound) == (recorded.nodes, recorded.value, recorded.bound)


def verified(folder, problem, solution):
    save(folder / "layer.npz", problem)
    solution.certificate.save(folder / "layer.cert")
    return checker.verify(folder / "layer.cert", folder / "layer.npz")


@pytest.mark.parametrize("limit", [0, 3, None])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", BUDGETS)
def test_the_checker_believes_what_solve_proves(budget, refit, limit, tmp_path):
    for seed, (movable, gradient, kind) in enumerate([((), False, "shared"), ((2,), True, "stacked")]):
        problem = make_problem(
            np.random.default_rng(seed), BUDGETS[budget], n=6 + len(movable), refit=refit, movable=movable,
            gradient=gradient, kind=kind,
        )  # fmt: skip
        best = solve(problem, "brute-force")
        solution = solve(problem, BranchAndBound(node_limit=limit), gap=1e-5, certify=True)
        verdict = verified(tmp_path, problem, solution)
        assert verdict.bound <= best.value
        assert verdict.bound == solution.certificate.bound <= solution.bound
        assert verdict.low <= solution.value <= verdict.high
        if limit is None:
            assert solution.status is Status.OPTIMAL
            assert verdict.gap <= 1e-5 + 1e-7


def test_the_checker_believes_a_proof_of_many_nodes(tmp_path):
    problem = make_problem(np.random.default_rng(3), Budget.per_row(18), m=2, n=30)
    solution = solve(problem, "branch-and-bound", gap=1e-4, certify=True)
    assert solution.status is Status.OPTIMAL
    assert solution.stats["nodes"] > 20
    verdict = verified(tmp_path, problem, solution)
    assert verdict.gap <= 1e-4 * (1 + 1e-3)
    assert verdict.leaves > solution.stats["nodes"] / 4
