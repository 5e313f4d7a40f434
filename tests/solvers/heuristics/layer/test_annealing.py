import time
from itertools import pairwise

import numpy as np
import pytest
import torch

from solvers import Budget, SubsetProblem, solve
from solvers.heuristics.layer.annealing import STEPS, Annealing, _Course
from solvers.heuristics.layer.scaled import Layer
from tests.solvers.oracles import gram

M, N = 24, 96
BUDGETS = {
    "per_row": Budget.per_row(N // 2),
    "sparse": Budget.per_row(9 * N // 10),
    "per_layer": Budget.per_layer(M * N // 2),
    "n_of_m": Budget.n_of_m(2, 4),
    "columns": Budget.columns(N // 2),
}


@pytest.fixture(scope="module")
def layers():
    rng = np.random.default_rng(0)
    H, W = gram(rng, N, damping=0.05), rng.standard_normal((M, N))
    return {name: SubsetProblem(W, H, budget) for name, budget in BUDGETS.items()}


def annealed(problem, stages):
    annealing = Annealing(Layer(problem, leveled=True))
    pruned, _ = annealing.start(stages=stages)
    return annealing, pruned


@pytest.mark.parametrize("name", BUDGETS)
def test_slow_courses_end_below_alps_and_saliency(name, layers):
    problem = layers[name]
    _, pruned = annealed(problem, 60)
    value = problem.value(pruned.numpy())
    assert value < solve(problem, "alps").value
    assert value < 0.9 * solve(problem, "saliency").value


def test_slower_is_better_and_takes_as_many_steps(layers):
    problem = layers["per_row"]
    values, steps = [], []
    for stages in (3, 10, 60):
        annealing = Annealing(Layer(problem, leveled=True))
        pruned, taken = annealing.start(stages=stages)
        values.append(problem.value(pruned.numpy()))
        steps.append(taken)
    assert values[0] > values[1] > values[2]
    assert steps[0] < steps[1] < steps[2]
    assert steps[0] % STEPS == 0


def test_a_deadline_shortens_the_course_and_still_ends_it(layers):
    problem = layers["per_row"]
    annealing = Annealing(Layer(problem, leveled=True))
    pruned, steps = annealing.start(stages=60, deadline=time.perf_counter())
    assert steps <= 6 * STEPS
    assert problem.value(pruned.numpy()) < solve(problem, "saliency").value


def test_a_stop_before_it_began_leaves_the_one_pass_pick(layers):
    annealing = Annealing(Layer(layers["per_row"], leveled=True))
    pruned, steps = annealing.start(stopped=lambda: True)
    assert steps == 0
    assert torch.equal(pruned, annealing.saliency())


def test_a_stop_later_costs_one_more_stage_at_a_penalty_that_makes_a_mask(layers):
    problem = layers["per_row"]
    polls = iter([False] * 3 + [True] * 5)
    pruned, steps = Annealing(Layer(problem, leveled=True)).start(stages=60, stopped=lambda: next(polls))
    assert steps == 4 * STEPS
    assert problem.value(pruned.numpy()) < 0.9 * solve(problem, "saliency").value


def test_courses_of_few_stages_are_narrow_and_all_rise(layers):
    spans = [_Course.of(stages) for stages in (1, 2, 8, 60)]
    assert spans[0][:2] == (1.0, 1.0)
    assert all(a.first > b.first and a.last < b.last for a, b in pairwise(spans))
    assert all(a.growth > b.growth > 1.0 for a, b in pairwise(spans))


def test_reheating_improves_rows_of_a_quick_course(layers):
    problem = layers["per_row"]
    annealing, pruned = annealed(problem, 5)
    best = annealing.refitted(pruned)
    again, _ = annealing.reheat(best)
    assert problem.pools.violation(again.numpy()) is None
    better = annealing.refitted(again).costs < best.costs
    assert int(better.sum()) > M // 4
    assert not torch.equal(annealing.reheat(best)[0], again)


def test_costs_are_the_problems_and_rows_are_put_in(layers):
    problem = layers["sparse"]
    annealing, pruned = annealed(problem, 5)
    best = annealing.refitted(pruned)
    np.testing.assert_allclose(best.costs.numpy(), problem.row_values(pruned.numpy()), rtol=1e-3)
    other = annealing.refitted(annealing.saliency()[[3, 1]], torch.tensor([3, 1]))
    best.take(other, torch.tensor([3, 1]))
    mask = best.pruned.numpy()
    np.testing.assert_array_equal(mask[[1, 3]], annealing.saliency().numpy()[[1, 3]])
    np.testing.assert_allclose(best.costs.numpy(), problem.row_values(mask), rtol=1e-3)


def test_few_rows_of_many_inputs_take_the_same_course(layers):
    problem = layers["per_row"]
    few = SubsetProblem(problem.W[:8], problem.hessian, problem.budget)
    assert 2 * few.m < few.n
    pruned = [annealed(p, 30)[1].numpy() for p in (problem, few)]
    assert few.value(pruned[1]) == pytest.approx(few.value(pruned[0][:8]), rel=0.02)
