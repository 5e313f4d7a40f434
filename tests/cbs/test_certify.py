"""Bounds and gaps of results: against the joint optimum by brute force, and among methods."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import cbs
from cbs.curvature.output import row_scales
from cbs.memo import Memo
from cbs.network.network import Network
from cbs.references import LayerBound
from cbs.request import Request
from solvers import Budget, solve
from tests.cbs.networks import mlp, samples, seeded

MODEL, DATA = {"sizes": (6, 4, 4)}, samples(50, (6,), classes=4)
ASKS = [
    {"sparsity": 0.5, "scope": "row"},
    {"sparsity": 0.125, "scope": "layer"},
    {"sparsity": 0.5, "budget": "columns"},
    {"sparsity": None, "budget": "1:2"},
]


def optimum(network, index, budget):
    """The layer objective's least value under a budget, by brute force."""
    return solve(network(cbs.Gram())[index].problem(budget), "brute-force").value


@pytest.mark.parametrize("method", ["magnitude", "woodfisher", "cbs", "joint"])
@pytest.mark.parametrize("ask", ASKS)
def test_bounds_lie_below_the_optimum_and_values_above(method, ask):
    model = seeded(mlp, **MODEL)
    result = cbs.prune(model, DATA, method=method, solver="auto", **ask)
    network = Network(model, DATA)
    request = Request(**{k: ask[k] for k in ("sparsity", "scope", "budget") if k in ask})
    total = 0.0
    for i, layer in enumerate(result.layers):
        best = optimum(network, i, request.layer_budget(network.layers[i]))
        assert 0 < layer.bound <= best * (1 + 1e-9)
        assert layer.value >= best * (1 - 1e-9)
        assert layer.gap == pytest.approx((layer.value - layer.bound) / layer.value, abs=1e-12)
        total += best
    assert result.bound <= total * (1 + 1e-9)
    assert result.bound == pytest.approx(sum(layer.bound for layer in result.layers))
    assert result.value == pytest.approx(sum(layer.value for layer in result.layers))


@pytest.mark.parametrize("method", ["magnitude", "joint"])
@pytest.mark.parametrize("solver", ["auto", "greedy"])
@pytest.mark.parametrize("ask", [ASKS[0], ASKS[3]])
def test_rows_with_budgets_of_their_own_have_bounds_of_their_own(method, solver, ask):
    model = seeded(mlp, **MODEL)
    result = cbs.prune(model, DATA, method=method, solver=solver, **ask)
    network = Network(model, DATA)
    for i, layer in enumerate(result.layers):
        objective = network(cbs.Gram())[i]
        for r, row in enumerate(layer.rows):
            n = layer.shape[1]
            dense = objective.dense[0]
            single = replace(
                objective, dense=[type(dense)(dense.W[r : r + 1], dense.bias[r : r + 1])],
                earlier=[objective.earlier[0][r : r + 1]],
            )  # fmt: skip
            budget = Budget.n_of_m(1, 2) if "budget" in ask else Budget.per_row(n // 2)
            best = solve(single.problem(budget), "brute-force").value
            assert 0 <= row.bound <= best * (1 + 1e-9)
            assert row.value >= best * (1 - 1e-9)
            assert row.gap is not None


def network_optimum(network, count):
    """The scaled objective's least value when all layers share one budget, row by row."""
    best = np.full(count + 1, np.inf)
    best[0] = 0.0
    for objective, scales in zip(network(cbs.Gram()), row_scales(network), strict=True):
        C = np.linalg.inv(objective.H)
        m, n = objective.dense[0].W.shape
        for r in range(m):
            curve = np.full(n + 1, np.inf)
            for size in range(n + 1):
                for chosen in itertools.combinations(range(n), size):
                    P = list(chosen)
                    w = objective.dense[0].W[r, P]
                    cost = 0.5 * w @ np.linalg.solve(C[np.ix_(P, P)], w) if P else 0.0
                    curve[size] = min(curve[size], scales[r] * cost)
            best = np.array(
                [min(best[K - k] + curve[k] for k in range(min(n, K) + 1)) for K in range(count + 1)]
            )
    return best[count]


@pytest.mark.parametrize("method", ["magnitude", "cbs", "joint"])
def test_the_network_bound_lies_below_the_network_optimum(method):
    model = seeded(mlp, **MODEL)
    network = Network(model, DATA)
    result = cbs.prune(model, DATA, sparsity=0.5, scope="network", method=method)
    best = network_optimum(network, 20)
    assert 0 < result.bound <= best * (1 + 1e-9)
    assert result.value >= best * (1 - 1e-9)
    for i, layer in enumerate(result.layers):
        counts = [row.pruned for row in layer.rows]
        assert 0 <= layer.bound <= optimum(network, i, Budget.per_row(counts)) * (1 + 1e-9)
        assert all(row.bound <= row.value for row in layer.rows)


def test_without_certify_heuristics_have_no_bound():
    result = cbs.prune(seeded(mlp), samples(), sparsity=0.5, method="magnitude", certify=False)
    assert result.bound is None
    assert result.gap is None
    assert {layer.bound for layer in result.layers} == {None}
    assert result.status == "feasible"


def test_pruning_nothing_is_optimal():
    result = cbs.prune(seeded(mlp), samples(), sparsity=0.0, method="magnitude")
    assert (result.value, result.bound, result.gap, result.status) == (0, 0, 0, "optimal")


@pytest.mark.parametrize("scope", ["row", "layer", "network"])
def test_compared_methods_share_the_best_bound(scope):
    model = seeded(mlp, **MODEL)
    names = ["magnitude", "cbs-s", "joint"]
    results = cbs.compare(model, DATA, sparsities=[0.5, 0.25], methods=names, scope=scope)
    assert [(r.method, r.asked) for r in results] == [(name, s) for s in (0.5, 0.25) for name in names]
    for part in (results[:3], results[3:]):
        magnitude, _, joint = part
        assert len({r.bound for r in part}) == 1
        assert joint.value <= magnitude.value
        assert joint.gap < magnitude.gap
        single = cbs.prune(model, DATA, sparsity=magnitude.asked, method="magnitude", scope=scope)
        assert single.value == magnitude.value
        assert magnitude.bound >= single.bound * (1 - 1e-12)


def test_compare_charges_shared_curvatures_to_all_who_use_them(clock, monkeypatch):
    costly, charged = cbs.GaussNewtonDiagonal(), Memo.__call__

    def slow(memo, key, make):
        return charged(memo, key, lambda: (key == costly and clock.advance(100.0)) or make())

    monkeypatch.setattr(Memo, "__call__", slow)
    model = seeded(mlp, **MODEL)
    results = cbs.compare(model, DATA, sparsities=[0.5, 0.25], methods=["obd", "magnitude"], certify=False)
    obd, magnitude, obd_again, _ = results
    assert obd.seconds == pytest.approx(obd_again.seconds)
    assert obd.seconds >= magnitude.seconds + 100.0


def test_an_interrupted_comparison_keeps_what_is_finished():
    stop = lambda step: step.method == "magnitude"  # noqa: E731
    results = cbs.compare(
        seeded(mlp, **MODEL),
        DATA,
        sparsities=[0.5, 0.25],
        methods=["random", "magnitude", "joint"],
        callback=stop,
    )
    assert [r.method for r in results] == ["random", "magnitude", "joint"]
    assert [r.status for r in results][1] == "interrupted"
    assert {r.asked for r in results} == {0.5}


def test_bounds_join_row_by_row():
    a = LayerBound(1.0, np.array([0.2, 0.9]))
    b = LayerBound(0.5, np.array([0.6, -1.0]))
    joined = a.join(b)
    assert joined.rows.tolist() == [0.6, 0.9]
    assert joined.bound == pytest.approx(1.5)
    assert LayerBound(-2.0).join(LayerBound()).bound == 0.0
    assert LayerBound().join(LayerBound()).bound == -np.inf


@pytest.mark.parametrize("scope", ["row", "network"])
@pytest.mark.parametrize("hard", [False, True])
def test_stopping_while_bounds_are_sought_keeps_the_pruning(scope, hard):
    def stop(step):
        if hard and step.stage == "certify":
            raise KeyboardInterrupt
        return step.stage == "certify"

    results = cbs.compare(
        seeded(mlp, **MODEL),
        DATA,
        sparsities=[0.5],
        methods=["magnitude", "random"],
        scope=scope,
        callback=stop,
    )
    assert [r.method for r in results] == ["magnitude", "random"]
    assert [r.status for r in results] == ["interrupted", "feasible"]
    assert all(r.bound is None and r.sparsity == 0.5 for r in results)


def test_bounds_take_part_in_the_time_limit():
    model = seeded(mlp, **MODEL)
    hasty, calm = (
        cbs.prune(model, DATA, sparsity=0.5, method="magnitude", time_limit=limit) for limit in (1e-6, 60.0)
    )
    assert 0 <= hasty.bound <= calm.bound
    assert calm.bound > 0
