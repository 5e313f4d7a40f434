"""Rounds of splits in blocks and fixings: bounds below brute force, masks that are what they say."""

import numpy as np
import pytest

from solvers import Budget, SubsetProblem, checker, solve
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.groups.central_path import group_split
from solvers.bounds.groups.split import group_bound, regrets
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from solvers.instances import save
from solvers.relaxations.lone_row import LoneRow
from solvers.relaxations.split import Relaxation
from tests.solvers.oracles import all_masks, gram, optimum

BUDGETS = {"one pool": Budget.per_row(6), "pools": Budget.n_of_m(3, 6)}


def a_row(seed, budget="one pool", n=12, damping=1.0):
    rng = np.random.default_rng(seed)
    problem = SubsetProblem(rng.standard_normal((1, n)), gram(rng, n, damping), BUDGETS[budget])
    (block,) = blocks(problem)
    (split,) = split_blocks([block])
    return problem, block, split


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_regrets_bound_what_a_choice_costs(size, budget):
    problem, block, split = a_row(0, budget)
    costs = [(mask[0], problem.value(mask)) for mask in all_masks(problem)]
    best = min(cost for _, cost in costs)
    safe, bound = group_split(block, split.d[0], split.z, best, size=size)
    kept, pruned = regrets(block, safe)
    assert bound == group_bound(block, safe)
    assert (np.minimum(kept, pruned) == 0.0).all()
    assert (np.maximum(kept, pruned) > 0.0).all()
    for i in range(block.n):
        assert bound + kept[i] <= min(cost for mask, cost in costs if not mask[i]) * (1 + 1e-9)
        assert bound + pruned[i] <= min(cost for mask, cost in costs if mask[i]) * (1 + 1e-9)


@pytest.mark.parametrize("budget", BUDGETS)
def test_rounds_fix_entries_and_never_pass_the_optimum(budget):
    fixed, lifted = 0, 0
    for seed in range(10):
        problem, block, split = a_row(seed, budget)
        best = min(all_masks(problem), key=problem.value)
        low = lower_bound(block, split.d, relaxed_point(block, split.d, split.z))
        row = LoneRow(block, split, best[0], low)
        reached = [row.bound]
        for size in (2, 4, 4):
            row.lift(size, lambda: None)
            reached.append(row.bound)
            assert row.bound <= row.value == block.value(best[0])
        assert reached == sorted(reached)
        assert row.rounds >= 1
        whole = LoneRow(block, split, best[0], low)
        for size in (2, 4):
            whole.lift(size, lambda: None, fixing=False)
        assert whole.fixed == 0
        assert whole.bound == low or group_bound(block, whole.split) == whole.bound
        fixed += row.fixed
        lifted += row.bound > whole.bound + 1e-6 * row.value
    assert fixed > 5
    assert lifted > 1


def test_a_mask_that_is_not_the_best_fixes_nothing_that_the_best_needs():
    fixed = np.zeros(3, int)
    for seed in range(8):
        problem, block, split = a_row(seed)
        masks = sorted(all_masks(problem), key=problem.value)
        rows = [LoneRow(block, split, mask[0], 0.0) for mask in (masks[0], masks[2], masks[6])]
        for row in rows:
            for size in (4, 4, 2):
                row.lift(size, lambda: None)
            assert row.bound <= problem.value(masks[0]) * (1 + 1e-12)
        fixed += [row.fixed for row in rows]
    assert fixed[0] > fixed[2] > 0


def test_rounding_and_swaps_find_better_masks():
    better = 0
    for seed in range(6):
        problem, block, split = a_row(seed)
        worst = sorted(all_masks(problem), key=problem.value)[30]
        row = LoneRow(block, split, worst[0], 0.0)
        row.polish(lambda: None)
        assert (row.pruned == worst[0]).all()
        row.lift(2, lambda: None)
        row.polish(lambda: None)
        assert row.value == block.value(row.pruned)
        assert row.pruned.sum() == 6
        assert row.value < problem.value(worst)
        better += row.value < 1.02 * optimum(problem)
    assert better >= 3


def test_a_stopped_row_keeps_what_it_has():
    _, block, split = a_row(2)
    row = LoneRow(block, split, np.arange(12) < 6, 0.25)
    row.lift(4, lambda: True)
    assert (row.bound, row.split, row.rounds) == (0.25, None, 0)


def test_a_row_stopped_once_entries_are_fixed_goes_on_from_there():
    reached = 0
    for seed in range(4):
        problem, block, split = a_row(seed)
        best = min(all_masks(problem), key=problem.value)
        row = LoneRow(block, split, best[0], 0.0)
        row.lift(4, lambda: None)
        row.lift(4, lambda: True)
        fixed, bound = row.fixed, row.bound
        row.lift(4, lambda: None)
        row.lift(4, lambda: None)
        assert row.fixed >= fixed
        assert bound <= row.bound <= problem.value(best) * (1 + 1e-12)
        reached += fixed
    assert reached > 0


@pytest.mark.parametrize("certify", [False, True])
@pytest.mark.parametrize("budget", [Budget.per_row(5), Budget.n_of_m(3, 6)], ids=["one pool", "pools"])
def test_relaxation_lifts_wide_rows_within_its_time(tmp_path, budget, certify):
    rng = np.random.default_rng(4)
    problem = SubsetProblem(rng.standard_normal((2, 12)), gram(rng, 12), budget)
    one = [SubsetProblem(w[None], problem.hessian, budget) for w in problem.W]
    best = sum(map(optimum, one))
    plain = solve(problem, "relaxation", certify=certify)
    assert solve(problem, Relaxation(wide=11)).stats["split"] != "blocks"
    found = solve(problem, Relaxation(wide=11), time_limit=60.0, certify=certify)
    assert found.stats["split"] == "blocks"
    assert found.stats["block_splits"] == 2
    assert plain.bound < found.bound <= best * (1 + 1e-12)
    assert found.value <= plain.value * (1 + 1e-12)
    if certify:
        assert found.stats["fixed"] == 0
        assert any(proof.blocks is not None for proof in found.certificate.parts[0].proofs)
        assert found.certificate.bound == pytest.approx(found.bound, rel=1e-5)
        found.certificate.save(tmp_path / "c")
        save(tmp_path / "p.npz", problem)
        assert checker.verify(tmp_path / "c", tmp_path / "p.npz").bound == found.certificate.bound
    assert solve(problem, Relaxation(group=1, wide=11), time_limit=60.0).stats["split"] != "blocks"


def test_progress_is_told_row_by_row_and_what_others_begin_with_is_made_first():
    rng = np.random.default_rng(6)
    problem = SubsetProblem(rng.standard_normal((5, 14)), gram(rng, 14), Budget.per_row(7))
    told = []
    found = solve(
        problem, Relaxation(wide=11), time_limit=60.0, callback=lambda now: told.append(now.bounds.lower)
    )
    assert told == sorted(told)
    assert len(set(told)) > 5
    assert found.stats["block_splits"] == 5
    best = sum(optimum(SubsetProblem(w[None], problem.hessian, problem.budget)) for w in problem.W)
    assert told[0] < found.bound <= best * (1 + 1e-12)
    assert found.rows.bound.sum() == pytest.approx(found.bound, rel=1e-9)
