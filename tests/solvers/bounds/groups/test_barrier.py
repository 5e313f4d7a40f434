"""The barrier problem of a row's blocks and its steps, against dense algebra and automatic derivatives."""

import numpy as np
import pytest
import torch

from solvers import Budget, SubsetProblem
from solvers.bounds.groups.barrier import GroupSystem, Multipliers, central
from solvers.bounds.groups.central_path import start
from solvers.bounds.groups.clusters import clusters, joined
from solvers.bounds.groups.newton import compliance, newton_step
from solvers.bounds.groups.split import group_bound, secure_groups
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from tests.solvers.oracles import gram

BUDGETS = {"one pool": Budget.per_row(5), "pools": Budget.n_of_m(2, 5), "whole pools": Budget.n_of_m(1, 2)}
T = 0.03


def a_system(seed, size, budget="one pool", lone=(), value=1.3):
    rng = np.random.default_rng(seed)
    H = gram(rng, 10)
    for i in lone:
        H[i], H[:, i] = 0.0, 0.0
        H[i, i] = rng.uniform(0.5, 2.0)
    (block,) = blocks(SubsetProblem(rng.standard_normal((1, 10)), H, BUDGETS[budget]))
    (split,) = split_blocks([block])
    split = joined(block, start(block, split.d[0], split.z), clusters(H, block, size))
    return block, split, GroupSystem(block, split, value)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_packing_and_unpacking_change_nothing(size, budget):
    block, split, system = a_system(0, size, budget, lone=(3,))
    x = system.pack(split)
    x += 1e-3 * np.random.default_rng(0).standard_normal(len(x))
    again = system.unpack(split, x)
    assert np.allclose(system.pack(again), x, rtol=1e-13, atol=0.0)
    R = again.remainder(block.H[0]) / 1.3
    assert np.allclose(system.H - system.whole(x), R, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_objective_is_minus_the_bound(size, budget):
    block, split, system = a_system(1, size, budget)
    point = system.at(system.pack(split), T)
    bound = group_bound(block, secure_groups(block.H[0], split))
    assert -1.3 * point.objective == pytest.approx(bound, rel=1e-8)
    assert point.excess > 0.0
    assert system.at(system.pack(split.scaled(1.5)), T) is None


def test_levels_are_those_of_the_central_path():
    scores = np.random.default_rng(0).standard_normal((5, 8))
    for weight in (1e-6, 0.1, 10.0):
        tau = central(scores, weight)
        assert (tau > scores.max(axis=1)).all()
        assert (weight / (tau[:, None] - scores)).sum(axis=1) == pytest.approx(np.ones(5), rel=1e-8)


def system_price(system, x, k):
    """`[B, 2^s]` what the states of a family pay for what they keep."""
    states = system.states[k]
    return 0.0 if states.pattern else x[system.columns[k][:, -1:]] * states.kept.sum(axis=1)


def merit(system, z, extra):
    """The barrier problem's objective in all variables, tau among them, state by state.

    Keeping an entry costs its `extra [n]` besides its pool's price.
    """
    n, prices = system.n, system.prices
    q, entries, t = z[:n], z[n:prices], z[prices : prices + len(system.keep)]
    tau = iter(z[prices + len(system.keep) :])
    first, second = torch.as_tensor(system.first), torch.as_tensor(system.second)
    D = torch.zeros(n, n, dtype=torch.float64).index_put((first, second), entries)
    D = D.index_put((second, first), entries)
    R, r = torch.as_tensor(system.H) - D, torch.as_tensor(system.b) - q
    total = 0.5 * r @ torch.linalg.solve(R, r) + t @ torch.as_tensor(system.keep) - system.constant
    total = total - T * torch.logdet(R)
    for at, columns, states, weight in zip(
        system.families, system.columns, system.states, system.weights, strict=True
    ):
        top = states.kept.sum(axis=1).max()
        for members, own in zip(at.tolist(), columns.tolist(), strict=True):
            level = next(tau)
            total = total + level
            most = []
            for kept in states.kept:
                S = [i for i, inside in zip(members, kept, strict=True) if inside]
                score = 0.5 * q[S] @ torch.linalg.solve(D[S][:, S], q[S]) - extra[S].sum()
                if not states.pattern:
                    score = score - len(S) * z[own[-1]]
                total = total - weight * T * torch.log(level - score)
                if len(S) == top:
                    most.append(torch.logdet(D[S][:, S]))
            total = total - T * len(members) / top * torch.stack(most).mean()
    return total


def everything(system, point):
    """All variables of `merit` at a point."""
    tau = np.concatenate([slack.min(axis=1) for slack in point.slack])
    tops = [(h.h - system_price(system, point.x, k)).max(axis=1) for k, h in enumerate(point.states)]
    return torch.as_tensor(np.concatenate([point.x, tau + np.concatenate(tops)]))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("lone", [(), (1, 6, 7)])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_step_with_central_multipliers_is_newtons(size, lone, budget):
    _, split, system = a_system(2, size, budget, lone)
    point = system.at(system.pack(split), T)
    step = newton_step(system, point, Multipliers.central(system, point, T), T)
    z, free = everything(system, point), torch.zeros(10, dtype=torch.float64)
    full = torch.autograd.functional.hessian(lambda z: merit(system, z, free), z).numpy()
    slope = torch.autograd.functional.jacobian(lambda z: merit(system, z, free), z).numpy()
    newton = -np.linalg.solve(full, slope)
    assert float(merit(system, z, free)) == pytest.approx(point.merit(T), rel=1e-10)
    assert step.x == pytest.approx(newton[: len(step.x)], rel=1e-6, abs=1e-8 * np.abs(newton).max())
    assert step.slope == pytest.approx(slope @ newton, rel=1e-6)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_compliance_is_the_curvature_in_prices_on_single_entries(size, budget, held):
    block, split, _ = a_system(4, size, budget, lone=(2,))
    system = GroupSystem(block, split, 1.3)
    point = system.at(system.pack(split), T)
    both = torch.cat([everything(system, point), torch.zeros(10, dtype=torch.float64)])
    full = torch.autograd.functional.hessian(lambda z: merit(system, z[:-10], z[-10:]), both).numpy()
    fast = np.arange(system.n, system.prices) if held else np.zeros(0, int)
    moving = np.setdiff1d(np.arange(len(both) - 10), fast)
    across = full[moving][:, -10:]
    given = np.linalg.solve(full[np.ix_(moving, moving)], across)
    want = np.diagonal(full)[-10:] - (across * given).sum(axis=0)
    own = GroupSystem(block, split, 1.3, held=held)
    point = own.at(own.pack(split), T)
    assert compliance(own, point, Multipliers.central(own, point, T), T) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_multipliers_move_as_their_equations_say_and_stay_positive(size):
    _, split, system = a_system(3, size)
    point = system.at(system.pack(split), T)
    dual = Multipliers.central(system, point, 3.0 * T)
    step = newton_step(system, point, dual, T)
    h = 1e-6 / np.abs(step.x).max()
    moved = system.at(point.x + h * step.x, T)
    # (L + dL)(R - dD) = T I to first order, symmetrised; L = 3 T S here
    R, dR = system.H - system.whole(point.x), -system.whole(step.x)
    left = step.dual.L @ R + dual.L @ dR
    want = T * np.eye(10) - dual.L @ R
    assert 0.5 * (left @ point.S + (left @ point.S).T) == pytest.approx(want @ point.S, abs=1e-8)
    for k, a in enumerate(system.weights):
        p, s = dual.p[k], point.slack[k]
        ds = (moved.slack[k] - s) / h
        change = a * T / s - p - p / s * ds
        assert step.dual.p[k] == pytest.approx(change, rel=1e-3, abs=1e-4 * np.abs(change).max())
    for factor in (1.0, 100.0):
        grown = Multipliers(factor * step.dual.L, tuple(factor * p for p in step.dual.p))
        after, share = dual.moved(grown)
        assert 0.0 < share <= 1.0
        assert np.linalg.eigvalsh(after.L)[0] > 0.0
        assert all((p > 0.0).all() for p in after.p)


def test_multipliers_that_rounding_left_indefinite_stay_where_they_are():
    n = 4
    dual = Multipliers(-np.eye(n), (np.ones((1, 2)),))
    after, share = dual.moved(Multipliers(np.zeros((n, n)), (np.zeros((1, 2)),)))
    assert share == 0.0
    assert after is dual
