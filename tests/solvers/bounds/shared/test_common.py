"""Blocks that rows share: bounds below brute force, slopes as differences, one row as good as alone."""

from dataclasses import replace

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.bounds.groups.central_path import SETTLED, CentralPath, group_split, start
from solvers.bounds.groups.clusters import clusters, joined
from solvers.bounds.groups.split import Family, GroupSplit, group_bound
from solvers.bounds.shared import common
from solvers.bounds.shared.common import HeldGroups, _Curvature, _Row, _slope, common_groups
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from tests.solvers.oracles import all_masks, gram, make_problem, optimum

BUDGETS = {"one pool": Budget.per_row(6), "pools": Budget.n_of_m(3, 6)}


def layer(rng, budget, m=3, n=12):
    """Rows of very different size, at blocks of 4 that are diagonal yet, and their optima."""
    W = rng.standard_normal((m, n)) * np.array([1.0, 30.0, 0.1])[:m, None]
    problem = SubsetProblem(W, gram(rng, n), BUDGETS[budget])
    found = blocks(problem)
    own = split_blocks(found)
    groups = clusters(np.linalg.inv(found[0].H[0] - 0.8 * np.diag(own[0].d[0])), found[0], 4)
    splits = [
        joined(row, start(row, own[0].d[0], split.z), groups) for row, split in zip(found, own, strict=True)
    ]
    masks = [
        np.repeat(mask, m, axis=0)
        for mask in all_masks(SubsetProblem(W[:1], problem.hessian, BUDGETS[budget]))
    ]
    return found, splits, np.min([problem.row_values(mask) for mask in masks], axis=0)


@pytest.mark.parametrize("budget", BUDGETS)
def test_common_blocks_lift_rows_and_never_pass_the_optimum(budget, rng):
    found, splits, best = layer(rng, budget)
    families = common_groups(found, splits, best)
    before, after = HeldGroups(found[0], splits[0].families), HeldGroups(found[0], families)
    gained = 0.0
    for block, split, value in zip(found, splits, best, strict=True):
        low = before.settled(block, split, value)[1] / value
        point, bound = after.settled(block, split, value)
        assert bound <= value
        alone = CentralPath(block, replace(split, families=families), value, held=True)
        alone.follow(lambda gap: SETTLED * gap, lambda: None)
        assert bound == pytest.approx(alone.bound, abs=1e-2 * value)
        assert (point.remainder(block.H[0]) == block.H[0] - np.asarray(after_D(families, block.n))).all()
        gained += bound / value - low
    assert gained > 0.02


def after_D(families, n):
    D = np.zeros((n, n))
    for family in families:
        D[family.members[:, :, None], family.members[:, None, :]] = family.D
    return D


@pytest.mark.parametrize("budget", BUDGETS)
def test_blocks_for_one_row_close_most_of_what_its_own_do(budget, rng):
    found, splits, best = layer(rng, budget, m=1)
    before = HeldGroups(found[0], splits[0].families).settled(found[0], splits[0], best[0])[1]
    families = common_groups(found, splits, best)
    bound = HeldGroups(found[0], families).settled(found[0], splits[0], best[0])[1]
    own = group_split(found[0], np.zeros(0), np.zeros(0), best[0], size=4, known=splits[0])[1]
    assert bound - before >= 0.8 * (own - before) > 0.0


@pytest.mark.parametrize("budget", BUDGETS)
def test_bounds_are_concave_in_the_blocks_and_have_the_slope(budget, rng):
    found, splits, best = layer(rng, budget, m=2)
    families = splits[0].scaled(0.8).families
    rows = [_Row.of(*each) for each in zip(found, splits, best, strict=True)]

    def total(blocks):
        held = HeldGroups(found[0], blocks)
        paths = [row.settled(held, 1e-6, None, lambda: None) for row in rows]
        return sum(path.bound for path in paths), _slope(held, paths)

    moves = [rng.standard_normal(family.D.shape) * family.D.max() for family in families]
    moves = [E + E.transpose(0, 2, 1) for E in moves]
    bound, slope = total(families)
    rise = sum(float((G * E).sum()) for G, E in zip(slope, moves, strict=True))
    for far in (-0.003, -0.001, 0.001, 0.003):
        moved = tuple(replace(at, D=at.D + far * E) for at, E in zip(families, moves, strict=True))
        assert total(moved)[0] <= bound + far * rise + 1e-5


def test_a_step_solves_the_system_that_its_traces_are_made_of(rng, monkeypatch):
    monkeypatch.setattr(common, "RESIDUAL", 1e-9)
    members = [np.array([[0, 3, 5], [1, 2, 4]]), np.array([[6, 7]])]
    shapes = [(len(at), at.shape[1]) for at in members]
    slope, own = ([gram_of(rng, *shape) for shape in shapes] for _ in range(2))
    S, mu = gram(rng, 8), 0.3
    curvature = _Curvature.of(members, slope, own, S, mu)
    wanted = [gram_of(rng, *shape) for shape in shapes]
    E = curvature.solve(wanted)
    D = np.zeros((8, 8))
    for at, each in zip(members, E, strict=True):
        D[at[:, :, None], at[:, None, :]] = each
    for at, each, G, A, right in zip(members, E, slope, own, wanted, strict=True):
        left = (
            mu * (S @ D @ S)[at[:, :, None], at[:, None, :]] + A @ each @ G + G @ each @ A + mu * A @ each @ A
        )
        assert np.abs(left - right).max() <= 1e-6 * np.abs(right).max()


def gram_of(rng, count, size):
    return np.array([gram(rng, size) for _ in range(count)])


def test_a_stop_leaves_valid_blocks(rng):
    found, splits, best = layer(rng, "one pool")
    for polls in (0, 5, 40, 120):
        calls = iter([False] * polls + [True] * 10_000)
        families = common_groups(found, splits, best, stopped=lambda calls=calls: next(calls))
        held = HeldGroups(found[0], families)
        for block, split, value in zip(found, splits, best, strict=True):
            assert held.settled(block, split, value)[1] <= value


def test_blocks_outside_the_curvature_are_refused(rng):
    found, splits, _ = layer(rng, "one pool")
    with pytest.raises(ValueError, match="positive definite"):
        HeldGroups(found[0], splits[0].scaled(50.0).families)
    negative = GroupSplit((Family(np.arange(12)[:, None], -np.ones((12, 1, 1))),), splits[0].q, splits[0].t)
    with pytest.raises(ValueError, match="positive definite"):
        HeldGroups(found[0], negative.families)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_points_settle_where_no_other_is_better(budget, size):
    """At blocks made for another row of the curvature: below the optimum, near the best point and price."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        problem = make_problem(rng, BUDGETS[budget], m=1, n=12)
        (block,), split = blocks(problem), split_blocks(blocks(problem))[0]
        made, _ = group_split(block, split.d[0], split.z, optimum(problem), size=size)
        W = problem.W + 0.3 * rng.standard_normal(problem.W.shape)
        other = SubsetProblem(W, problem.hessian, problem.budget)
        (moved,) = blocks(other)
        best = optimum(other)
        start_there = replace(made, q=made.q + moved.B[0, :, 0] - block.B[0, :, 0])
        found, bound = HeldGroups(moved, made.families).settled(moved, start_there, best)
        assert group_bound(moved, start_there) <= bound == group_bound(moved, found) <= best
        assert all((a.D == b.D).all() for a, b in zip(found.families, made.families, strict=True))
        for change in (1e-3, 1e-2, 0.1, 1.0):
            q = found.q + change * rng.standard_normal(block.n) * np.abs(found.q).mean()
            t = found.t * (1.0 + change * rng.standard_normal(len(found.t)))
            assert group_bound(moved, replace(found, q=q, t=t)) <= bound + 0.05 * (best - bound)
        at_once, _ = HeldGroups(moved, made.families).settled(moved, start_there, best, stopped=lambda: True)
        assert at_once.q == pytest.approx(start_there.q, rel=1e-12)
