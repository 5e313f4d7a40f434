"""One node's relaxation."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget, SubsetProblem
from solvers.bounds.evaluate import relaxed_point
from solvers.bounds.node.descent import descend
from solvers.bounds.node.newton import relax, relaxed_shares, repair
from solvers.bounds.node.oracle import best_sum, curvature, evaluate, formation, model_of
from solvers.bounds.split import split_blocks
from solvers.form.blocks import blocks
from tests.solvers.oracles import (
    BUDGETS,
    all_masks,
    exact_value,
    gram,
    make_problem,
    relaxed_value,
    unbalanced_row,
)  # fmt: skip

QUICK = settings(derandomize=True, max_examples=40, deadline=None)
CASES = pytest.mark.parametrize(
    ("budget", "refit", "kind"),
    [
        ("per_row", True, "shared"),
        ("per_row", False, "shared"),
        ("n_of_m", True, "shared"),
        ("n_of_m", False, "shared"),
        ("columns", True, "shared"),
        ("columns", True, "stacked"),
        ("columns", False, "stacked"),
    ],
)


class Node:
    """A block at its split, with the arrays that the compiled functions want."""

    def __init__(self, block, d):
        self.block, self.d, n = block, np.ascontiguousarray(d), block.n
        self.model = model_of(block, d)
        self.R, self.B = self.model.R, self.model.B
        self.L, self.q = np.empty((len(block.H), n, n)), np.empty(block.B.shape)
        self.s, self.best = np.empty(n), np.empty((2, n))

    def evaluate(self, z):
        return evaluate(self.model, np.asarray(z, dtype=float), self.L, self.q, self.s)

    def need(self, fix):
        need = self.block.keep.copy()
        np.subtract.at(need, self.block.labels[fix > 0], 1)
        return need

    def lower_bound(self, z, fix):
        _, base, rounding = self.evaluate(z)
        need = self.need(fix)
        ends = np.empty(len(need)), np.empty(len(need))
        return base - best_sum(self.s, fix, self.block.labels, need, *ends) - rounding

    def relax(self, fix, z, *, cutoff=np.inf, tight=1e-7, steps=100, halted=False):
        z = np.array(z, dtype=float)
        bound, f, taken = relax(
            self.model, self.need(fix), fix, z, cutoff, tight, steps,
            self.L, self.q, self.s, self.best, np.array([halted]),
        )  # fmt: skip
        return bound, f, taken, z


def make_node(rng, budget="per_row", refit=True, kind="shared", n=6, m=2):
    problem = make_problem(
        rng, BUDGETS.get(budget, budget), n=n, m=m, refit=refit, kind=kind, gradient=not refit
    )
    block = blocks(problem)[0]
    (best,) = split_blocks([block])
    return Node(block, best.d), best.z


def random_fixings(rng, block):
    """Fixings that leave every pool a choice, or decide it whole."""
    fix = np.zeros(block.n, np.int8)
    for p, (keep, prune) in enumerate(zip(block.keep, block.prune, strict=True)):
        pool = rng.permutation(np.flatnonzero(block.labels == p))
        fix[pool[: rng.integers(0, keep)]] = 1
        fix[pool[len(pool) - rng.integers(0, prune) :]] = -1
    return fix


@CASES
def test_a_binary_point_costs_what_its_mask_costs(budget, refit, kind, rng):
    node, _ = make_node(rng, budget, refit, kind)
    problem = make_problem(rng, BUDGETS[budget], refit=refit, kind=kind)
    for mask in list(all_masks(problem))[:20]:
        fix = np.where(mask[0], -1, 1).astype(np.int8)
        value = node.block.value(mask[0])
        scale = node.block.scale
        assert node.evaluate(~mask[0])[0] == pytest.approx(value, rel=1e-9, abs=1e-12 * scale)
        bound = node.lower_bound(~mask[0], fix)
        assert value - 1e-9 * scale < bound <= value


@CASES
def test_scores_are_the_negative_gradient_and_curvature_its_slope(budget, refit, kind, rng):
    node, _ = make_node(rng, budget, refit, kind)
    n, step = node.block.n, 1e-6
    for zeros in ((), (1, 4)):
        z = rng.uniform(0.2, 0.8, n)
        z[list(zeros)] = 0.0
        work = np.flatnonzero(rng.random(n) < 0.8)
        f = node.evaluate(z)[0]
        s, K = node.s.copy(), np.empty((n, n))
        curvature(node.model, z, node.L, node.q, work, K)
        for a, i in enumerate(work):
            ahead = z.copy()
            ahead[i] += step
            value, s_ahead = node.evaluate(ahead)[0], node.s.copy()
            if i in zeros:  # one-sided: z can't go below 0
                assert (value - f) / step == pytest.approx(-s[i], rel=1e-3, abs=1e-4)
                slope = -(s_ahead - s) / step
            else:
                back = z.copy()
                back[i] -= step
                value_back, s_back = node.evaluate(back)[0], node.s.copy()
                assert (value - value_back) / (2 * step) == pytest.approx(-s[i], rel=1e-5, abs=1e-6)
                slope = -(s_ahead - s_back) / (2 * step)
            np.testing.assert_allclose(K[a, : len(work)], slope[work], rtol=2e-3, atol=2e-3 * np.abs(K[a, a]))


@CASES
@pytest.mark.parametrize("seed", range(4))
def test_newton_reaches_the_optimum_of_a_generic_solver(budget, refit, kind, seed):
    rng = np.random.default_rng(seed)
    node, z = make_node(rng, budget, refit, kind)
    fix = random_fixings(rng, node.block) if seed else np.zeros(node.block.n, np.int8)
    bound, f, _, z = node.relax(fix, z)
    expected = relaxed_value(node.block, node.d, fix)
    unit = max(abs(expected), 1e-3 * node.block.scale)
    assert f == pytest.approx(expected, abs=1e-5 * unit)
    assert bound <= expected + 1e-7 * unit
    assert bound == pytest.approx(expected, abs=1e-4 * unit)
    assert ((z >= 0) & (z <= 1)).all()
    np.testing.assert_array_equal(z[fix > 0], 1.0)
    np.testing.assert_array_equal(z[fix < 0], 0.0)
    np.testing.assert_allclose(np.bincount(node.block.labels, weights=z), node.block.keep, atol=1e-8)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_newton_converges_on_larger_rows_in_few_steps(refit, rng):
    for seed in range(6):
        node, z = make_node(np.random.default_rng(seed), Budget.per_row(18), refit, n=24)
        fix = random_fixings(rng, node.block)
        fix[: len(fix) // 2] = 0
        bound, f, steps, _ = node.relax(fix, z)
        assert f - bound <= 1e-5 * abs(f)
        assert steps < 60


def test_a_relaxation_stops_once_its_bound_passes_the_cutoff(rng):
    node, z = make_node(rng, Budget.per_row(18), n=24)
    fix = np.zeros(24, np.int8)
    full, _, steps, _ = node.relax(fix, np.full(24, 0.25))
    early, _, fewer, _ = node.relax(fix, np.full(24, 0.25), cutoff=0.5 * full)
    assert fewer < steps
    assert 0.5 * full <= early <= full * (1 + 1e-9)
    assert node.relax(fix, z, steps=0)[2] == 0
    assert node.relax(fix, z, halted=True)[2] == 0


@QUICK
@given(seed=st.integers(0, 10**6), refit=st.booleans(), spread=st.sampled_from([0.0, 1.0, 2.0]))
def test_bounds_of_decided_nodes_are_below_the_exact_cost(seed, refit, spread):
    """With all entries fixed the bound is the mask's cost, less the margin for rounding."""
    check_against_exact_costs(unbalanced_row(seed, refit, spread), 1e-8)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_bounds_survive_cancellation(refit):
    """Inputs that are all but copies, pruned so that they cancel: sums of 1e4 that leave 1e-2."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        n = 8
        v = np.array([1.0, -1.0] * 4) * (1 + 1e-7 * rng.standard_normal(n))
        H = 1e4 * np.outer(v, v) + (0.1 if refit else 1e-3) * np.diag(rng.uniform(0.5, 1, n))
        W = 1 + 1e-3 * rng.standard_normal((1, n))
        check_against_exact_costs(SubsetProblem(W, 0.5 * (H + H.T), Budget.per_row(4), refit=refit), 1e-6)


def check_against_exact_costs(problem, widest):
    """The margin is all that a bound lacks; it grows as entries of d shrink, up to `widest` of the scale."""
    (block,) = blocks(problem)
    node = Node(block, split_blocks([block])[0].d)
    forming = formation(block, node.d)
    for mask in all_masks(problem):
        bound = node.lower_bound(~mask[0], np.where(mask[0], -1, 1).astype(np.int8)) - forming
        margin = forming + node.evaluate(~mask[0])[2]
        exact = exact_value(problem, 0, mask[0])
        assert Fraction(bound) <= exact
        assert float(exact - Fraction(bound)) <= 1.1 * margin + 1e-14 * block.scale
        assert margin <= widest * block.scale


@QUICK
@given(
    s=st.lists(st.integers(-4, 4).map(float), min_size=6, max_size=6),
    fix=st.lists(st.sampled_from([-1, 0, 0, 1]), min_size=6, max_size=6),
    data=st.data(),
)
def test_best_sum_against_sorting(s, fix, data):
    s, fix, labels = np.array(s), np.array(fix, np.int8), np.array([0, 0, 0, 1, 1, 1])
    free = [[i for i in range(6) if labels[i] == p and fix[i] == 0] for p in range(2)]
    need = np.array([data.draw(st.integers(0, len(pool))) for pool in free])
    inner, outer = np.empty(2), np.empty(2)
    total = s[fix > 0].sum()
    found = best_sum(s, fix, labels, need, inner, outer)
    for p, pool in enumerate(free):
        ranked = sorted(s[pool], reverse=True)
        total += sum(ranked[: need[p]])
        assert inner[p] == (ranked[need[p] - 1] if need[p] else np.inf)
        assert outer[p] == (ranked[need[p]] if need[p] < len(ranked) else -np.inf)
    assert found == pytest.approx(total, abs=1e-12)


@QUICK
@given(
    z=st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), min_size=6, max_size=6),
    fix=st.lists(st.sampled_from([-1, 0, 0, 1]), min_size=6, max_size=6),
    data=st.data(),
)
def test_repair_makes_any_point_feasible(z, fix, data):
    fix, labels = np.array(fix, np.int8), np.array([0, 0, 0, 1, 1, 1])
    count = [int(((fix == 0) & (labels == p)).sum()) for p in range(2)]
    need = np.array([data.draw(st.integers(0, k)) for k in count])
    z = np.array(z)
    repair(z, fix, labels, need)
    assert ((z >= 0) & (z <= 1 + 1e-12)).all()
    np.testing.assert_array_equal(z[fix != 0], fix[fix != 0] > 0)
    for p in range(2):
        assert z[(fix == 0) & (labels == p)].sum() == pytest.approx(need[p], abs=1e-12)
    again = z.copy()
    repair(again, fix, labels, need)
    np.testing.assert_allclose(again, z, atol=1e-12)


@QUICK
@given(seed=st.integers(0, 10**6), pools=st.integers(1, 2))
def test_steps_stay_feasible_and_lower_the_model(seed, pools):
    rng = np.random.default_rng(seed)
    n = 8
    labels = np.arange(n) * pools // n
    z = np.clip(rng.uniform(-0.5, 1.5, n), 0.0, 1.0)
    s, K = rng.standard_normal(n), gram(rng, n)
    work = np.flatnonzero(rng.random(n) < 0.8)
    p, w = np.full(n, np.nan), len(work)
    descend(K[np.ix_(work, work)].copy(), s, z, work, labels, p)
    step = p[:w]
    assert np.isfinite(step).all()
    assert ((z[work] + step >= -1e-9) & (z[work] + step <= 1 + 1e-9)).all()
    np.testing.assert_allclose(np.bincount(labels[work], weights=step, minlength=pools), 0.0, atol=1e-8)
    assert 0.5 * step @ K[np.ix_(work, work)] @ step - s[work] @ step <= 1e-9


def test_an_unhindered_step_is_newtons(rng):
    n = 6
    s, K, z = 1e-3 * rng.standard_normal(n), gram(rng, n) + np.eye(n), np.full(n, 0.5)
    p, labels = np.empty(n), np.array([0, 0, 0, 1, 1, 1])
    descend(K, s, z, np.arange(n), labels, p)
    E = np.equal.outer(np.arange(2), labels).astype(float)
    system = np.block([[K, E.T], [E, np.zeros((2, 2))]])
    expected = np.linalg.solve(system, np.concatenate([s, np.zeros(2)]))[:n]
    np.testing.assert_allclose(p, expected, rtol=1e-6, atol=1e-9)


@CASES
def test_relaxed_shares_solve_the_relaxation_of_a_block(budget, refit, kind, rng):
    node, _ = make_node(rng, budget, refit, kind)
    start = node.block.keep[node.block.labels] / np.bincount(node.block.labels)[node.block.labels]
    before = start.copy()
    z = relaxed_shares(node.block, node.d, start, tolerance=1e-7)
    np.testing.assert_array_equal(start, before)
    assert node.evaluate(z)[0] == pytest.approx(relaxed_value(node.block, node.d), rel=1e-5, abs=1e-6)


@CASES
def test_scores_are_those_of_the_tight_point(budget, refit, kind, rng):
    """The bound's scores at z come from `u = relaxed_point(z)`."""
    node, z = make_node(rng, budget, refit, kind)
    node.evaluate(z)
    u = relaxed_point(node.block, node.d, z)
    if refit:
        q = node.B - np.stack([R @ v for R, v in zip(node.R, u, strict=True)])
        expected = ((q * q).sum(axis=2) / (2 * node.d)).sum(axis=0)
    else:
        expected = node.R[0] @ u[0, :, 0] + 0.5 * node.d[0] - node.B[0, :, 0]
    np.testing.assert_allclose(node.s, expected, rtol=1e-7, atol=1e-10)
