import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget, SubsetProblem
from solvers.heuristics.tensor.moves import make_tableau
from solvers.heuristics.tensor.tableau import JointTableau
from tests.solvers.oracles import gram, make_problem

B, N = 3, 6
QUICK = settings(derandomize=True, max_examples=25, deadline=None)
CASES = {
    "seed": st.integers(0, 10**6),
    "refit": st.booleans(),
    "kind": st.sampled_from(["shared", "stacked"]),
    "share": st.floats(0, 1),
}


def build(seed, refit, kind, share):
    """A problem, and its tableau at a random mask."""
    rng = np.random.default_rng(seed)
    problem = make_problem(rng, Budget.per_row(0), m=B, n=N, refit=refit, kind=kind, gradient=not refit)
    mask = rng.random((B, N)) < share
    return problem, mask, make_tableau(problem, mask)


def costs(problem, mask):
    """Each row's cost at a mask, by the problem."""
    budget = Budget.per_row(mask.sum(axis=1).tolist())
    same = SubsetProblem(problem.W, problem.hessian, budget, refit=problem.refit, gradient=problem.G)
    return same.row_values(mask)


def flipped(mask, row, *entries):
    changed = mask.copy()
    for j in entries:
        changed[row, j] ^= True
    return changed


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


@QUICK
@given(**CASES)
def test_cost_and_every_move_against_recomputation(seed, refit, kind, share):
    problem, mask, tableau = build(seed, refit, kind, share)
    now = costs(problem, mask)
    close(tableau.cost, now)
    prune, restore, swap = (
        f().numpy() for f in (tableau.prune_costs, tableau.restore_costs, tableau.swap_costs)
    )
    for r in range(B):
        P, S = np.flatnonzero(mask[r]), np.flatnonzero(~mask[r])
        assert np.isposinf(prune[r, P]).all()
        assert np.isposinf(restore[r, S]).all()
        for j in S:
            close(prune[r, j], costs(problem, flipped(mask, r, j))[r] - now[r])
        for i in P:
            close(restore[r, i], costs(problem, flipped(mask, r, i))[r] - now[r])
            for j in S:
                close(swap[r, i, j], costs(problem, flipped(mask, r, i, j))[r] - now[r])


@QUICK
@given(**CASES, flips=st.lists(st.tuples(st.integers(0, B - 1), st.integers(0, N - 1)), max_size=8))
def test_flips_there_and_back_return_to_the_start(seed, refit, kind, share, flips):
    problem, mask, tableau = build(seed, refit, kind, share)
    before = [tableau.cost.clone(), tableau.swap_costs(), tableau.prune_costs(), tableau.restore_costs()]
    there = mask.copy()
    for r, j in flips:
        tableau.flip(torch.tensor([r]), torch.tensor([j]))
        there = flipped(there, r, j)
    np.testing.assert_array_equal(tableau.pruned.numpy(), there)
    close(tableau.cost, costs(problem, there))
    for r, j in reversed(flips):
        tableau.flip(torch.tensor([r]), torch.tensor([j]))
    np.testing.assert_array_equal(tableau.pruned.numpy(), mask)
    after = [tableau.cost, tableau.swap_costs(), tableau.prune_costs(), tableau.restore_costs()]
    for x, y in zip(after[2:] + after[:1], before[2:] + before[:1], strict=True):
        close(x, y)
    pairs = mask[:, :, None] & ~mask[:, None, :]
    close(after[1].numpy()[pairs], before[1].numpy()[pairs])


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [1]])
@pytest.mark.parametrize("kind", ["shared", "stacked"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_flips_of_some_rows_leave_the_others(refit, kind, rows):
    problem, mask, tableau = build(5, refit, kind, 0.5)
    index = [1, 4, 3][: len(rows)]
    tableau.flip(torch.tensor(rows), torch.tensor(index))
    for r, j in zip(rows, index, strict=True):
        mask = flipped(mask, r, j)
    np.testing.assert_array_equal(tableau.pruned.numpy(), mask)
    fresh = make_tableau(problem, mask)
    close(tableau.cost, fresh.cost)
    close(tableau.prune_costs(), fresh.prune_costs())
    close(tableau.restore_costs(), fresh.restore_costs())


@QUICK
@given(seed=st.integers(0, 10**6), flips=st.lists(st.integers(0, N - 1), min_size=1, max_size=6))
def test_pivots_lead_to_the_state_of_a_fresh_factorisation(seed, flips):
    _, _, tableau = build(seed, True, "shared", 0.5)
    for j in flips:
        tableau.flip(torch.arange(B), torch.full((B,), j))
    E, y, cost = tableau.E.clone(), tableau.y.clone(), tableau.cost.clone()
    tableau.refresh()
    for pivoted, fresh in ((E, tableau.E), (y, tableau.y), (cost, tableau.cost)):
        close(pivoted, fresh)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_survivors_stand_in_the_tableau(share):
    problem, mask, tableau = build(11, True, "shared", share)
    budget = Budget.per_row(mask.sum(axis=1).tolist())
    weights = SubsetProblem(problem.W, problem.hessian, budget).weights(mask)
    close(tableau.y.numpy()[~mask], weights[~mask])


def test_starting_mask_and_inverse_are_not_changed():
    problem, mask, tableau = build(2, True, "shared", 0.5)
    C = torch.as_tensor(np.linalg.inv(problem.hessian.dense(0)))
    W, pruned = torch.tensor(problem.W), torch.tensor(mask)
    copies = C.clone(), W.clone(), pruned.clone()
    tableau = JointTableau(C, W, pruned)
    tableau.flip(torch.arange(B), torch.tensor([0, 1, 2]))
    for now, then in zip((C, W, pruned), copies, strict=True):
        assert torch.equal(now, then)


def test_drift_measures_and_mends_rounding():
    n = 30
    rng = np.random.default_rng(0)
    problem = SubsetProblem(rng.standard_normal((2, n)), gram(rng, n, damping=1e-4), Budget.per_row(0))
    tableau = make_tableau(problem, rng.random((2, n)) < 0.5)
    for _ in range(100):
        tableau.flip(torch.arange(2), torch.as_tensor(rng.integers(n, size=2)))
    drift = tableau.drift()
    assert (drift < 1e-6).all()
    close(tableau.cost, costs(problem, tableau.pruned.numpy()))
    tableau.cost *= 1.5
    assert tableau.drift().numpy() == pytest.approx(0.5, rel=1e-6)
    assert (tableau.drift() == 0.0).all()
