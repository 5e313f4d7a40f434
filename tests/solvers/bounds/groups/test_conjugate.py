"""Steps by conjugate gradients against those of the matrix that they don't form."""

import numpy as np
import pytest

from solvers import SubsetProblem
from solvers.bounds.groups import central_path
from solvers.bounds.groups.barrier import Multipliers, Sums
from solvers.bounds.groups.central_path import group_split
from solvers.bounds.groups.conjugate import SETTLED, Matrix, Near, conjugate_step, inside
from solvers.bounds.groups.newton import newton_step
from solvers.bounds.groups.states import entries
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from tests.solvers.bounds.groups.test_barrier import BUDGETS, T, a_system
from tests.solvers.oracles import gram


def a_matrix(size, lone=(), budget="one pool"):
    _, split, system = a_system(4, size, budget, lone)
    point = system.at(system.pack(split), T)
    dual = Multipliers.central(system, point, 3.0 * T)
    sums = Sums.of(system, point, dual, T)
    return system, point, dual, sums, Matrix.of(system, point, dual, sums.curves)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("lone", [(), (1, 6, 7)])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_settled_steps_are_newtons(size, lone, budget):
    system, point, dual, sums, matrix = a_matrix(size, lone, budget)
    wanted = newton_step(system, point, dual, T)
    step = conjugate_step(system, point, dual, T, 1e-10)
    assert step.x == pytest.approx(wanted.x, rel=1e-6, abs=1e-8 * np.abs(wanted.x).max())
    largest = np.abs(wanted.dual.L).max()
    assert np.allclose(step.dual.L, wanted.dual.L, rtol=1e-6, atol=1e-8 * largest)
    assert step.slope == pytest.approx(wanted.slope, rel=1e-8)
    assert matrix @ wanted.x == pytest.approx(-sums.gradient, abs=1e-8 * np.abs(sums.gradient).max())


@pytest.mark.parametrize("size", [1, 2, 4])
def test_steps_are_as_near_as_asked(size):
    system, point, dual, sums, matrix = a_matrix(size)
    near = Near.of(system, point, dual, matrix)
    rough, fine = (conjugate_step(system, point, dual, T, settled) for settled in (SETTLED, 1e-3))
    sizes = []
    for step in (rough, fine):
        rest = -sums.gradient - matrix @ step.x
        sizes.append(float(rest @ near.solve(rest)) ** 0.5)
        assert step.slope < 0.0
    first = float(sums.gradient @ near.solve(sums.gradient)) ** 0.5
    assert sizes[0] <= SETTLED * first * (1.0 + 1e-6)
    assert sizes[1] <= 1e-3 * first * (1.0 + 1e-6)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("lone", [(), (1, 6, 7)])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_near_matrix_is_newtons_without_what_is_across_groups(size, lone, budget):
    system, point, dual, _, matrix = a_matrix(size, lone, budget)
    N, n = len(point.x), system.n
    whole = np.array([matrix @ e for e in np.eye(N)])
    assert whole == pytest.approx(whole.T, abs=1e-10 * np.abs(whole).max())
    for k, columns in enumerate(system.columns):
        others = np.arange(n, system.prices)
        for own in columns[:, system.families[k].shape[1] :][
            :, : len(entries(system.families[k].shape[1])[0])
        ]:
            for c in others:
                if c not in own:
                    i, j = system.first[c - n], system.second[c - n]
                    for e in own:
                        a, b = system.first[e - n], system.second[e - n]
                        L, S, f = dual.L, point.S, system.half[c - n] * system.half[e - n]
                        whole[e, c] -= f * (S[i, a] * L[j, b] + S[i, b] * L[j, a])
                        whole[e, c] -= f * (S[j, a] * L[i, b] + S[j, b] * L[i, a])
    near = Near.of(system, point, dual, matrix)
    again = np.array([near.solve(column) for column in whole.T])
    assert again == pytest.approx(np.eye(N), abs=1e-6)


def test_what_is_inside_a_group_is_the_trace():
    rng = np.random.default_rng(0)
    S, L, at = gram(rng, 6), gram(rng, 6), np.array([[1, 4, 5]])
    i, j, half = entries(3)
    G = np.zeros((1, 9, 9))
    inside(at, i, j, half, S, L, G)
    E = np.zeros((6, 6, 6))
    for e in range(6):
        E[e, at[0, i[e]], at[0, j[e]]] = E[e, at[0, j[e]], at[0, i[e]]] = 1.0
    traces = [[np.trace(a @ S @ b @ L) for b in E] for a in E]
    assert G[0, 3:, 3:] == pytest.approx(np.array(traces), rel=1e-12, abs=1e-12)
    assert not G[0, :3].any()


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_point_that_rounding_spoils_gives_no_step(budget):
    system, point, dual, _, _ = a_matrix(4, budget=budget)
    spoiled = Multipliers(-dual.L, dual.p)
    assert conjugate_step(system, point, spoiled, T) is None


@pytest.mark.parametrize("budget", BUDGETS)
def test_both_kinds_of_steps_lead_to_one_bound(budget, monkeypatch):
    rng = np.random.default_rng(2)
    (block,) = blocks(SubsetProblem(rng.standard_normal((1, 10)), gram(rng, 10), BUDGETS[budget]))
    (split,) = split_blocks([block])
    found, value = [], min(block.value(mask) for mask in some_masks(block, rng))
    for wide in (0, 1000):
        monkeypatch.setattr(central_path, "WIDE", wide)
        found.append(group_split(block, split.d[0], split.z, value, size=4)[1])
    assert found[0] == pytest.approx(found[1], rel=0.01)


def some_masks(block, rng):
    for _ in range(20):
        pruned = np.zeros(block.n, dtype=bool)
        for pool, count in enumerate(block.prune):
            pruned[rng.choice(np.flatnonzero(block.labels == pool), count, replace=False)] = True
        yield pruned
