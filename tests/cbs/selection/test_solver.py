import itertools

import numpy as np
import pytest

import cbs
from cbs.change import layer_weights
from cbs.curvature.output import row_scales
from cbs.network.layers import Layer
from cbs.network.network import Network
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

SMALL = {"sizes": (4, 3, 2)}


def joint(model, data, **options):
    return cbs.prune(model, data, method="joint", certify=False, **options)


def subset_cost(network, index, r, gone):
    """Joint cost of a row that prunes the set `gone`: the closed form with the dense inverse."""
    objective = network(cbs.Gram())[index]
    C = np.linalg.inv(objective.H)
    w = objective.dense[0].W[r]
    P = np.flatnonzero(gone)
    return 0.5 * w[P] @ np.linalg.solve(C[np.ix_(P, P)], w[P]) if len(P) else 0.0


def all_masks(n, k):
    return [np.isin(np.arange(n), c) for c in itertools.combinations(range(n), k)]


@pytest.mark.parametrize("bias", [True, False])
def test_an_exact_solver_finds_the_best_mask_of_every_row(bias):
    model, data = seeded(mlp, bias=bias, **SMALL), samples(30, (4,), classes=2)
    result = joint(model, data, sparsity=0.5, scope="row", solver="brute-force")
    network = Network(model, data)
    for i, layer in enumerate(result.layers):
        m, n = layer.shape
        for r in range(m):
            costs = [subset_cost(network, i, r, mask) for mask in all_masks(n, round(0.5 * n))]
            assert layer.rows[r].value == pytest.approx(min(costs), rel=1e-8)
    assert result.status == "optimal"
    assert result.gap <= 1e-4


def network_optimum(network, count):
    """The least scaled objective of all masks that prune `count` weights of the network."""
    best = np.full(count + 1, np.inf)
    best[0] = 0.0
    for i, layer in enumerate(network.layers):
        m, n = layer.shape
        for r in range(m):
            curve = [
                row_scales(network)[i][r] * min(subset_cost(network, i, r, mask) for mask in all_masks(n, k))
                for k in range(n + 1)
            ]
            best = np.array(
                [min(best[K - k] + curve[k] for k in range(min(n, K) + 1)) for K in range(count + 1)]
            )
    return best[count]


def test_the_network_budget_is_shared_by_scaled_cost():
    model, data = seeded(mlp, sizes=(4, 3, 2)), samples(60, (4,), classes=2)
    result = joint(model, data, sparsity=0.5, scope="network", solver="brute-force")
    network = Network(model, data)
    assert sum(row.pruned for layer in result.layers for row in layer.rows) == 9
    scaled = sum(
        scale @ [row.value for row in layer.rows]
        for scale, layer in zip(row_scales(network), result.layers, strict=True)
    )
    assert result.value == pytest.approx(scaled, rel=1e-12)
    best = network_optimum(network, 9)
    assert result.value >= best * (1 - 1e-9)
    assert result.value <= best * 1.2


@pytest.mark.parametrize("solver", ["auto", "branch-and-bound"])
@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.9])
def test_an_exact_solver_proves_the_network_budget(solver, sparsity):
    model, data = seeded(mlp, **SMALL), samples(60, (4,), classes=2)
    result = cbs.prune(model, data, method="joint", sparsity=sparsity, scope="network", solver=solver)
    count = round(sparsity * 18)
    best = network_optimum(Network(model, data), count)
    assert sum(row.pruned for layer in result.layers for row in layer.rows) == count
    assert result.value == pytest.approx(best, rel=1e-4)
    assert best * (1 - 1e-4) <= result.bound <= best * (1 + 1e-12)
    assert (result.status, result.gap <= 1e-4) == ("optimal", True)


def test_layers_too_wide_to_search_leave_a_wider_but_valid_gap(monkeypatch):
    model, data = seeded(mlp, **SMALL), samples(60, (4,), classes=2)
    monkeypatch.setattr("cbs.selection.shares.WIDEST", 3)
    part = cbs.prune(model, data, method="joint", sparsity=0.5, scope="network")
    best = network_optimum(Network(model, data), 9)
    assert 0.5 * best < part.bound <= best <= part.value * (1 + 1e-12)
    assert part.bound < best * (1 - 1e-9)


@pytest.mark.parametrize("budget", ["2:4", "columns"])
def test_other_budgets_prune_their_pattern(budget):
    model, data = seeded(mlp, sizes=(8, 4, 4)), samples(30, (8,), classes=4)
    sparsity = None if budget == "2:4" else 0.5
    result = joint(model, data, sparsity=sparsity, budget=budget, solver="greedy")
    assert result.sparsity == 0.5
    for mask in result.masks.values():
        if budget == "2:4":
            assert (mask.reshape(-1, 4).sum(1) == 2).all()
        else:
            assert (mask == mask[0]).all()


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(60)), (convnet, image_samples(30))])
def test_the_move_is_a_minimum_of_the_measured_error(make, data):
    model = seeded(make)
    result = joint(model, data, sparsity=0.5, solver="greedy")
    network = Network(model, data)
    rng = np.random.default_rng(0)
    for i, layer in enumerate(network.layers):
        moved = layer_weights(Layer(layer.name, result.model.get_submodule(layer.name)))
        best = network(cbs.Gram())[i].row_values([moved])
        free = result.masks[layer.name].reshape(layer.shape).numpy()
        for _ in range(5):
            step = 1e-3 * rng.standard_normal(moved.W.shape)
            nudged = type(moved)(np.where(free, 0, moved.W + step), moved.bias + 1e-3)
            assert (network(cbs.Gram())[i].row_values([nudged]) > best).all()


def test_predictions_leave_the_damping_out():
    model, data = seeded(mlp, **SMALL), samples(30, (4,), classes=2)
    assert joint(model, data, sparsity=0.5, solver="greedy", scope="row").measured.prediction is None
    result = joint(model, data, sparsity=0.5, solver="greedy", scope="network")
    network = Network(model, data)
    total = 0.0
    for i, layer in enumerate(network.layers):
        D = layer_weights(Layer(layer.name, result.model.get_submodule(layer.name))).augmented
        D = D - network(cbs.Gram())[i].W
        H = network(cbs.Gram())[i].H.copy()
        n = layer.shape[1]
        H[np.arange(n), np.arange(n)] -= network(cbs.Gram())[i].damping
        total += sum(s * 0.5 * d @ H @ d for s, d in zip(row_scales(network)[i], D, strict=True))
    assert result.measured.prediction == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("method", ["joint", "elimination-joint", "obc"])
@pytest.mark.parametrize("make", [mlp, convnet])
def test_where_nothing_is_left_to_choose_nothing_is_searched(method, make):
    data = samples(40) if make is mlp else image_samples(10)
    nothing = cbs.prune(seeded(make), data, method=method, sparsity=0.0)
    assert (nothing.value, nothing.bound, nothing.status) == (0.0, 0.0, "optimal")
    assert "sharing" not in nothing.history[0].stats
    half = cbs.prune(seeded(make), data, method="magnitude", sparsity=0.5, certify=False)
    again = cbs.prune(half.model, data, method=method, sparsity=0.5)
    assert "sharing" not in again.history[0].stats
    assert again.value == pytest.approx(0.0, abs=1e-12)
    assert all((again.masks[name] == mask).all() for name, mask in half.masks.items())


def test_in_passing_nothing_is_proven_and_what_was_asked_for_stays():
    """A stage that others follow has its joint problems from elimination, unless a solver is named."""
    asked = cbs.Request(0.5)
    assert cbs.Solve().in_passing(asked).solver == "greedy"
    assert cbs.Solve().in_passing(cbs.Request(0.5, solver="tabu")).solver == "tabu"
    for selection in (
        cbs.Solve("alps"), cbs.Solve(problem="selection"), cbs.Solve(problem="selection", judge="loss"),
        cbs.Solve(wide="local-search"), cbs.Scores("magnitude"),
    ):  # fmt: skip
        assert selection.in_passing(asked) is asked
