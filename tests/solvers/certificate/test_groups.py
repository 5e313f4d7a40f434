"""Proofs by trees whose nodes have splits in groups: below every mask, and verified."""

import numpy as np
import pytest

from solvers import Budget
from solvers.bounds.groups.split import Family
from solvers.certificate import IMPOSSIBLE, certify, prove_in_groups
from solvers.certificate.groups import families_of, resecured
from solvers.certificate.proof import leaf_fixings
from solvers.checker import verify
from solvers.form.blocks import blocks
from solvers.instances.files import save
from tests.solvers.grouped_trees import grow
from tests.solvers.oracles import all_masks, block_masks, make_problem


def row(seed, budget, n=8, **other):
    problem = make_problem(np.random.default_rng(seed), budget, m=1, n=n, **other)
    return problem, blocks(problem)[0]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("budget", "n", "size"),
    [
        (Budget.per_row(5), 8, 4),
        (Budget.n_of_m(2, 5), 10, 4),
        (Budget.n_of_m(2, 4), 8, 4),
        (Budget.n_of_m(2, 4), 16, 8),
        (Budget.n_of_m(1, 4), 12, 8),
        (Budget.n_of_m(4, 8), 16, 8),
        (Budget.groups([3, 2, 4, 4], [1, 1, 2, 3]), 13, 8),
    ],
    ids=["one pool", "parts of pools", "pools", "2 of 4", "1 of 4", "4 of 8", "others"],
)
def test_every_leaf_is_below_every_mask_and_the_file_verifies(tmp_path, budget, n, size, seed):
    problem, block = row(seed, budget, n)
    tree = grow(block, 3, size)
    proof = tree.proof()
    masks = block_masks(block)
    costs = np.array([block.value(mask) for mask in masks])
    near = 0
    for node, fixed in zip(*leaf_fixings(proof, block.n), strict=True):
        inside = ~(masks & (fixed > 0)).any(axis=1) & ~(~masks & (fixed < 0)).any(axis=1)
        best = costs[inside].min(initial=np.inf)
        assert proof.vector[node] != IMPOSSIBLE or best == np.inf
        assert proof.vector[node] == IMPOSSIBLE or proof.claim[node] <= best * (1.0 + 1e-12)
        near += proof.vector[node] != IMPOSSIBLE and proof.claim[node] > 0.5 * best
    assert near >= 3
    certificate = certify(problem, next(all_masks(problem)), [proof])
    (kept,) = certificate.parts[0].proofs
    assert kept.blocks is not None
    assert certificate.bound >= proof.bound * (1.0 - 1e-9)
    certificate.save(tmp_path / "c")
    save(tmp_path / "p.npz", problem)
    verdict = verify(tmp_path / "c", tmp_path / "p.npz")
    assert verdict.bound == certificate.bound <= costs.min()
    assert verdict.vectors == len(tree.vectors)


def test_pools_that_are_whole_in_a_block_have_no_price():
    _, block = row(0, Budget.n_of_m(2, 4), 16)
    tree = grow(block, 3, 8)
    free = tree.proof()
    tree.vectors = [(k, q, t + np.arange(1.0, 5.0)) for k, q, t in tree.vectors]
    assert (tree.proof().claim == free.claim).all()


def test_splits_that_are_too_large_shrink_until_they_hold():
    _, block = row(2, Budget.per_row(5))
    tree = grow(block, 2)
    true = tree.proof().bound
    tree.splits = [
        (root, [Family(family.members, 1.5 * family.D) for family in families])
        for root, families in tree.splits
    ]
    proof = tree.proof()
    assert proof.d.dtype == np.float64
    for families, root in zip(families_of(proof), proof.roots, strict=True):
        alive = np.flatnonzero(root >= 0)
        R = block.H[0].copy()
        for family in families:
            R[family.members[:, :, None], family.members[:, None, :]] -= family.D
        assert np.linalg.eigvalsh(R[np.ix_(alive, alive)])[0] > -1e-14
    best = min(block.value(mask) for mask in block_masks(block))
    assert proof.bound <= best
    assert true <= best


def test_a_curvature_known_up_to_an_error_asks_for_smaller_splits():
    _, block = row(3, Budget.per_row(5))
    proof = grow(block, 2).proof()
    slack = 1e-3 * np.abs(block.H[0])
    safe = resecured(proof, block.H[0], slack)
    A = block.H[0] - 2.0 * np.diag(slack.sum(axis=1))
    for families, root in zip(families_of(safe), safe.roots, strict=True):
        alive = np.flatnonzero(root >= 0)
        R = A.copy()
        for family in families:
            R[family.members[:, :, None], family.members[:, None, :]] -= family.D
        assert np.linalg.eigvalsh(R[np.ix_(alive, alive)])[0] > -1e-14
    assert (safe.splits[:, 0][safe.roots >= 0] <= proof.splits[:, 0][safe.roots >= 0]).all()


def test_only_lone_joint_rows_have_such_proofs():
    _, block = row(0, Budget.per_row(4), refit=False)
    none = np.full(1, -1, np.int32)
    with pytest.raises(ValueError, match="lone joint rows"):
        prove_in_groups(block, np.ones((1, 8)), (), (), entry=none, pruned=none, kept=none, vector=none)
