from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget, SubsetProblem
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.split import split_blocks
from solvers.certificate import IMPOSSIBLE
from solvers.certificate.certify import Witness
from solvers.certificate.claims import claims, root_proof
from solvers.certificate.original import stored
from solvers.certificate.points import Terms, rounded
from solvers.certificate.proof import leaf_fixings
from solvers.form.blocks import blocks
from tests.solvers.oracles import BUDGETS, all_masks, make_problem, unbalanced_row
from tests.solvers.proof_trees import branch, chain, tree_proofs


def first(problem):
    found = blocks(problem)
    return found[0], split_blocks(found)[0]


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("budget", ["per_row", "n_of_m", "columns"])
def test_claims_are_the_bound_of_one_leaf_at_a_time(budget, refit):
    rng = np.random.default_rng(0)
    block, split = first(make_problem(rng, BUDGETS[budget], m=3, refit=refit))
    for proof in (branch(block, split, 3), chain(block, split, 3)):
        nodes, fixings = leaf_fixings(proof, block.n)
        assert sorted(nodes) == np.flatnonzero(proof.entry < 0).tolist()
        for node, fixed in zip(nodes, fixings, strict=True):
            if proof.vector[node] == IMPOSSIBLE:
                assert proof.claim[node] == -np.inf
                continue
            u = proof.u[proof.vector[node]].astype(float)
            bound = lower_bound(block, split.d, u, kept=fixed == 1, pruned=fixed == -1)
            if bound == np.inf:
                assert proof.claim[node] == np.inf
            else:
                assert proof.claim[node] == pytest.approx(bound, abs=1e-12 * block.scale)
        assert (proof.claim[proof.entry >= 0] == -np.inf).all()
        assert proof.bound == proof.claim[proof.bounding].min()


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.booleans(), st.floats(0.0, 3.0))
def test_claims_are_below_every_mask_that_respects_the_fixings(seed, refit, spread):
    problem = unbalanced_row(seed, refit, spread)
    try:
        block, split = first(problem)
    except ValueError:
        return
    proof = branch(block, split, 2)
    for node, fixed in zip(*leaf_fixings(proof, block.n), strict=True):
        best = min(
            (
                block.value(mask[0])
                for mask in all_masks(problem)
                if not mask[0][fixed == 1].any() and mask[0][fixed == -1].all()
            ),
            default=np.inf,
        )
        assert proof.claim[node] <= best + 1e-12 * block.scale
        assert (best == np.inf) or proof.vector[node] != IMPOSSIBLE


@pytest.mark.parametrize("refit", [True, False])
def test_one_vector_bounds_every_count(refit):
    rng = np.random.default_rng(1)
    problem = make_problem(rng, Budget.per_layer(3), m=1, refit=refit)
    (block,) = blocks(problem, np.array([3]))
    (split,) = split_blocks([block])
    proof = root_proof(block, split)
    witness = Witness(stored(problem))
    assert witness.take(proof)
    (low,) = witness.prover.curves(0)
    best = np.full(7, np.inf)
    for code in range(2**6):
        mask = np.array([code >> i & 1 for i in range(6)], dtype=bool)
        best[mask.sum()] = min(best[mask.sum()], block.value(mask))
    assert (low <= best).all()
    assert low[3] == pytest.approx(proof.bound, rel=1e-9)
    for k in range(1, 7):
        other = replace(block, keep=np.array([6 - k]))
        bound = lower_bound(other, split.d, proof.u[0].astype(float))
        assert low[k] == pytest.approx(max(bound, 0.0), abs=1e-12)


def test_many_vectors_are_taken_in_batches(monkeypatch):
    block, split = first(make_problem(np.random.default_rng(2), Budget.per_row(3)))
    proof = branch(block, split, 3)
    monkeypatch.setattr("solvers.certificate.claims.CHUNK", 7)
    again = claims(Terms.of(block), proof)
    assert np.allclose(again, proof.claim, rtol=1e-13, atol=0.0)
    order = np.random.default_rng(3).permutation(len(proof.u))
    place = np.append(np.argsort(order), IMPOSSIBLE)
    shuffled = replace(proof, u=proof.u[order], vector=place[proof.vector].astype(np.int32))
    assert np.allclose(claims(Terms.of(block), shuffled), proof.claim, rtol=1e-13, atol=0.0)


def test_vectors_are_single_precision_where_it_has_room():
    u = np.random.default_rng(4).standard_normal((3, 1, 4, 1))
    assert rounded(u).dtype == np.float32
    assert np.allclose(rounded(u), u, rtol=1e-7, atol=0.0)
    for scale in (1e-30, 1e37):
        assert (rounded(scale * u) == scale * u).all()


def test_impossible_leaves_are_told_from_others():
    problem = make_problem(np.random.default_rng(5), Budget.per_row(1), m=1, n=4)
    proof = tree_proofs(problem, 4)[0]
    fixed = dict(zip(*(part.tolist() for part in leaf_fixings(proof, 4)), strict=True))
    for node, fixings in fixed.items():
        assert (proof.vector[node] == IMPOSSIBLE) == (fixings.count(-1) > 1 or fixings.count(1) > 3)


@pytest.mark.parametrize("depth", [0, 3])
def test_vectors_that_single_precision_would_spoil_stay_double(depth, rng):
    """Inputs that are all but copies, whose moves cancel: splits are small, and scores divide by them."""
    n = 8
    v = np.array([1.0, -1.0] * 4) * (1 + 1e-7 * rng.standard_normal(n))
    H = 1e4 * np.outer(v, v) + 0.1 * np.diag(rng.uniform(0.5, 1, n))
    tricky = SubsetProblem(1 + 1e-3 * rng.standard_normal((1, n)), H, Budget.per_row(4))
    for problem, kind in ((tricky, np.float64), (make_problem(rng, Budget.per_row(4), m=1, n=n), np.float32)):
        block, split = first(problem)
        proof = branch(block, split, depth) if depth else root_proof(block, split)
        assert proof.u.dtype == kind
        if not depth:
            u = relaxed_point(block, split.d, split.z)
            assert proof.bound == pytest.approx(lower_bound(block, split.d, u), rel=1e-5)
