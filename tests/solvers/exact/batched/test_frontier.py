"""Searches in batches."""

import numpy as np
import pytest
import torch

from solvers import Budget, Status, solve
from solvers.bounds.split import split_blocks
from solvers.exact.batched import frontier as searching
from solvers.exact.batched.batch import Batch
from solvers.exact.batched.frontier import Costs, Frontier
from solvers.exact.batched.open_nodes import Nodes, OpenNodes
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.form.blocks import blocks
from tests.solvers.oracles import BUDGETS, block_masks, digits_rows, make_problem

GAP = 1e-6
CASES = {
    "joint": (Budget.per_row(10), {"n": 13}),
    "selection": (Budget.per_row(6), {"n": 12, "refit": False}),
    "selection with gradient": (Budget.per_row(6), {"n": 12, "refit": False, "gradient": True}),
    "pools": (Budget.n_of_m(2, 4), {"n": 12}),
    "pools of a selection": (Budget.n_of_m(1, 3), {"n": 12, "refit": False}),
    "columns": (Budget.columns(7), {"m": 3, "n": 12}),
    "columns, own curvatures": (Budget.columns(7), {"m": 3, "n": 12, "kind": "stacked"}),
    "columns of a selection": (Budget.columns(6), {"m": 3, "n": 12, "refit": False}),
}


def frontier(problem, seed=0, **options):
    """The frontier of a problem's blocks from random incumbents, and the blocks' optima."""
    found = blocks(problem)
    rng = np.random.default_rng(seed)
    pruned = [np.zeros(block.n, dtype=bool) for block in found]
    for block, mask in zip(found, pruned, strict=True):
        for p, count in enumerate(block.prune):
            mask[rng.choice(np.flatnonzero(block.labels == p), count, replace=False)] = True
    best = [min(map(block.value, block_masks(block))) if block.n < 15 else np.nan for block in found]
    options = {"gap": GAP, "memory": 1 << 26, **options}
    return Frontier(found, split_blocks(found), pruned, **options), np.array(best)


@pytest.mark.parametrize(
    ("case", "options"),
    [(case, {}) for case in CASES]
    + [("joint", {"batch": 5}), ("pools", {"memory": 0}), ("columns of a selection", {"memory": 0})],
)
def test_blocks_are_solved_and_their_bounds_rise(case, options):
    budget, settings = CASES[case]
    problem = make_problem(np.random.default_rng(1), budget, **{"m": 2, **settings})
    search, best = frontier(problem, **options)
    bounds, values = np.array(search.bounds), search.values.copy()
    search.plant()
    steps = 0
    while not search.done:
        search.step()
        steps += 1
        assert (np.array(search.bounds) >= bounds).all()
        assert (search.values <= values).all()
        assert len(search.open) <= search.open.capacity
        bounds, values = np.array(search.bounds), search.values.copy()
        assert (bounds <= best).all()
    assert steps > 2
    np.testing.assert_allclose(values, best, rtol=1e-9)
    np.testing.assert_allclose(bounds, best, rtol=2 * GAP)
    for block, mask, value in zip(search.blocks, search.pruned, values, strict=True):
        assert np.bincount(block.labels, weights=mask).tolist() == block.prune.tolist()
        assert block.value(mask) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("rounded", [1, 8])
def test_what_was_cut_off_within_a_wide_gap_stays_in_the_bound(rounded, monkeypatch):
    monkeypatch.setattr(searching, "ROUNDED", rounded)
    beaten = 0
    for seed, (budget, settings) in enumerate(CASES.values()):
        problem = make_problem(np.random.default_rng(seed), budget, **{"m": 2, **settings})
        for gap in (0.1, 0.4, 0.7):
            search, best = frontier(problem, seed, gap=gap)
            search.plant()
            while not search.done:
                search.step()
            assert (np.array(search.bounds) <= best).all()
            assert (search.values - search.bounds <= gap * np.abs(search.values) + 1e-6 * np.abs(best)).all()
            beaten += (search.values > best * (1 + 1e-9) + 1e-12).sum()
    assert beaten


def test_fixings_that_no_mask_meets_end_a_node(rng):
    search, _ = frontier(make_problem(rng, Budget.per_row(6), m=2, n=12))
    before = search.values.copy()
    search.open.nodes.fix[0] = 1
    search.step()
    assert not (search.open.nodes.owner == 0).any()
    assert search.values[0] == before[0]
    assert search.nodes == 1


def test_less_memory_means_fewer_open_nodes(rng):
    problem = make_problem(rng, Budget.per_row(9), m=1, n=15)
    most = []
    for memory in (1 << 26, 0):
        search, _ = frontier(problem, memory=memory, batch=64)
        search.plant()
        most.append(0)
        while not search.done:
            search.step()
            most[-1] = max(most[-1], len(search.open))
    assert most[1] <= 2 * 17 < most[0]


def test_planting_learns_costs_and_lifts_the_root(rng):
    problem = make_problem(rng, Budget.per_row(10), m=2, n=16)
    search, _ = frontier(problem)
    before = search.bounds
    search.plant()
    assert (np.array(search.bounds) > before).all()
    assert (search.costs.weight > 0).any(-1).all()
    assert len(search.open) == 2


def test_masks_that_planting_leaves_out_are_in_the_bound(monkeypatch):
    monkeypatch.setattr(
        Batch, "fix", lambda self, fix, found, cutoff: (fix, torch.full_like(found.lower, np.inf))
    )
    entries = 0
    for seed, (budget, settings) in enumerate(CASES.values()):
        problem = make_problem(np.random.default_rng(seed), budget, **{"m": 2, **settings})
        search, _ = frontier(problem, seed, gap=0.4)
        search.plant()
        fixed = search.open.nodes.fix.numpy()
        entries += np.count_nonzero(fixed)
        for block, fix, floor in zip(search.blocks, fixed, search.floor.tolist(), strict=True):
            masks = block_masks(block)
            out = masks[(masks & (fix > 0)).any(axis=1) | (~masks & (fix < 0)).any(axis=1)]
            assert floor <= min(map(block.value, out), default=np.inf)
    assert entries > 5


def test_costs_are_least_squares_rates():
    costs = Costs(2, 3, "cpu")
    side = torch.tensor([[-2, -2, 3, 0]])
    gain = torch.tensor([[1.0, 3.0, torch.inf, 9.0]], dtype=torch.float64)
    costs.learn(torch.tensor([1]), side, gain, torch.tensor([[0.5, 1.0, 0.5, 0.5]]))
    assert costs.moment[0, 1].tolist() == [0.0, 3.5, 0.0]
    assert costs.weight[0, 1].tolist() == [0.0, 1.25, 0.0]
    assert not costs.weight[1].any()
    down, up = costs.gains(torch.tensor([1]), torch.full((1, 1, 3), 0.5))
    np.testing.assert_allclose(down.numpy()[0, 0], 0.5 * 2.8 * np.ones(3))
    assert not up.any()


def some_nodes(owner, lower, level):
    nodes = Nodes.none(len(owner), (1, 1, 4), "cpu")
    return nodes._replace(
        owner=torch.tensor(owner),
        lower=torch.tensor(lower, dtype=torch.float64),
        level=torch.tensor(level, dtype=torch.int32),
    )


def test_open_nodes_come_by_bound_or_by_depth():
    waiting = OpenNodes(some_nodes([2, 0, 2, 2], [3.0, 1.0, 2.0, 1.0], [1, 1, 2, 3]), 1 << 20)
    blocks_, grid = waiting.next(4, False)
    assert blocks_.tolist() == [0, 2]
    assert grid.tolist() == [[1, -1], [3, 2]]
    assert waiting.next(2, True)[1].tolist() == [[1], [3]]
    assert waiting.next(1, False)[1].tolist() == [[1]]
    assert waiting.least(3).tolist() == [1.0, np.inf, 1.0]
    taken = waiting.take(grid)
    assert taken.lower[1].tolist() == [1.0, 2.0]
    assert len(waiting) == 1
    waiting.add(some_nodes([1] * 5, [4.0, 5.0, 6.0, 7.0, 8.0], [1] * 5))
    assert waiting.next(9, False)[0].tolist() == [1, 2]
    assert waiting.close(torch.tensor([9.0, 6.0, 9.0], dtype=torch.float64)).tolist() == [np.inf, 6.0, np.inf]
    assert len(waiting) == 3


@pytest.mark.parametrize("kind", ["shared", "stacked"])
@pytest.mark.parametrize(
    ("refit", "gradient"),
    [(True, True), (False, False), (False, True)],
    ids=["joint with gradient", "selection", "selection with gradient"],
)
@pytest.mark.parametrize("budget", BUDGETS)
def test_every_budget_to_a_small_gap(budget, refit, gradient, kind, rng):
    problem = make_problem(rng, BUDGETS[budget], n=9, refit=refit, gradient=gradient, kind=kind)
    best = solve(problem, "brute-force")
    found = solve(problem, BranchAndBound(engine="batched"), gap=GAP)
    assert found.status is Status.OPTIMAL
    assert found.value == pytest.approx(best.value, rel=GAP)
    assert found.bound <= best.value
    assert found.gap <= GAP
    assert found.stats.get("engine") == (None if budget == "per_layer" else "batched")


@pytest.mark.parametrize("prune", [0, 6])
@pytest.mark.parametrize("make", [Budget.per_row, Budget.columns])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_budgets_without_a_choice(refit, make, prune, rng):
    problem = make_problem(rng, make(prune), refit=refit)
    found = solve(problem, BranchAndBound(engine="batched"))
    assert found.mask.all() == (prune == 6)
    assert found.bound == pytest.approx(found.value, abs=1e-9 * problem.scale)


def test_both_engines_agree_on_rows_of_a_layer_and_again():
    problem = digits_rows(rows=4, inputs=28, prune=18)
    compiled = solve(problem, "branch-and-bound")
    first, second = (solve(problem, BranchAndBound(engine="batched")) for _ in range(2))
    assert compiled.stats["engine"] == "compiled"
    assert first.status is Status.OPTIMAL
    assert first.value == pytest.approx(compiled.value, rel=1e-4)
    assert first.bound <= compiled.value
    assert first.stats["nodes"] > 4 * first.stats["batches"] > 8
    np.testing.assert_array_equal(first.mask, second.mask)
    assert (first.bound, first.stats["nodes"]) == (second.bound, second.stats["nodes"])


def test_limits_and_interruption_keep_mask_and_bound(rng):
    problem = make_problem(rng, Budget.per_row(40), m=2, n=60)
    few = solve(problem, BranchAndBound(engine="batched", node_limit=7), gap=0.0)
    assert few.status is Status.NODE_LIMIT
    assert few.stats["nodes"] == 7
    short = solve(problem, BranchAndBound(engine="batched"), gap=0.0, time_limit=1.0)
    assert short.status is Status.TIME_LIMIT
    told = solve(problem, BranchAndBound(engine="batched"), gap=0.0, callback=lambda step: step.nodes > 0)
    assert told.status is Status.INTERRUPTED
    for found in (few, short, told):
        assert 0 < found.bound < found.value
        assert problem.pools.violation(found.mask) is None


def test_a_certificate_takes_the_compiled_engine(rng):
    problem = make_problem(rng, Budget.per_row(3))
    found = solve(problem, BranchAndBound(engine="batched"), certify=True)
    assert found.stats["engine"] == "compiled"
    assert found.certificate is not None


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match=r"engine 'gpu': not one of auto, compiled, batched"):
        BranchAndBound(engine="gpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", CASES)
def test_on_a_cuda_device(case):
    budget, settings = CASES[case]
    problem = make_problem(np.random.default_rng(1), budget, **{"m": 2, **settings})
    found = solve(problem, "branch-and-bound", gap=GAP, device="cuda")
    assert found.stats["engine"] == "batched"
    assert found.value == pytest.approx(solve(problem, "brute-force").value, rel=GAP)
    assert found.gap <= GAP
