"""Row-weighted moments: against dense Jacobians, finite differences and all masks, in double precision."""

import copy
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call, jacrev
from torch.nn import functional as F

import cbs
from cbs.curvature import OutputGram, RowGram, weighted
from cbs.curvature.omega import output_weights
from cbs.curvature.weighted import paired_weighted_quadratic, row_kinds
from cbs.data import mnist
from cbs.network.layers import visiting
from cbs.network.network import Network
from cbs.zoo import mlpnet
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

CASES = {"mlp": (mlp, samples(30)), "cnn with batch norm": (convnet, image_samples(9))}
OMEGAS = ("gauss-newton", "gradient", "outputs")


def inputs_of(model, layer, data):
    """`[samples * positions, n]` inputs of a layer, a 1 for the bias at the end."""
    seen = []
    with visiting([layer.of(model)], lambda name, x, y: seen.append(layer.augmented(x))), torch.no_grad():
        model(data.inputs)
    return seen[0]


def weights_of(network, layer, omega):
    model, _, data = network.differentiable()
    found = output_weights(model, [layer.of(model)], data, network.loss, omega)[layer.name]
    return torch.cat(found).double()


@pytest.mark.parametrize("omega", OMEGAS)
@pytest.mark.parametrize("case", CASES)
def test_a_rows_matrix_is_the_weighted_second_moment_of_its_inputs(case, omega):
    make, data = CASES[case]
    network = Network(seeded(make), data)
    for share in (1.0, 0.25):
        models = network(RowGram(omega, share=share, damping=0.0))
        for layer, model in zip(network.layers, models, strict=True):
            X, w = inputs_of(network.model, layer, data), weights_of(network, layer, omega)
            w = share * w + (1 - share) * w.mean(dim=0)
            H = torch.einsum("sr,si,sj->rij", w, X, X) / len(data)
            np.testing.assert_allclose(model.H, H, rtol=1e-5, atol=1e-6 * float(H.max()))
            assert model.bias == (layer.bias is not None)


@pytest.mark.parametrize("omega", OMEGAS)
def test_a_row_of_one_position_has_its_block_of_the_dense_matrix(omega):
    data = samples(20)
    network = Network(seeded(mlp), data)
    for layer, model in zip(network.layers, network(RowGram(omega, damping=0.0)), strict=True):
        name = f"{layer.name}.weight"
        W = network.model.get_parameter(name).detach()
        H = torch.zeros(*W.shape, W.shape[1], dtype=torch.float64)
        for x, y in zip(data.inputs, data.targets, strict=True):
            call = lambda W, x=x, name=name: functional_call(network.model, {name: W}, (x[None],))[0]  # noqa: E731
            o, J = call(W).detach(), jacrev(call)(W)
            B = torch.eye(3, dtype=torch.float64)
            if omega == "gauss-newton":
                B = jacrev(jacrev(lambda o, y=y: F.cross_entropy(o[None], y[None])))(o)
            if omega == "gradient":
                g = torch.func.grad(lambda o, y=y: F.cross_entropy(o[None], y[None]))(o)
                B = torch.outer(g, g)
            H += torch.einsum("kri,kl,lrj->rij", J, B, J).detach() / len(data)
        n = layer.shape[1]
        np.testing.assert_allclose(model.H[:, :n, :n], H, rtol=1e-5, atol=1e-6 * float(H.max()))


def test_squared_outputs_are_those_of_the_output_gram():
    network = Network(seeded(mlp), samples(30))
    for one, other in zip(network(RowGram("outputs")), network(OutputGram()), strict=True):
        np.testing.assert_allclose(one.H, other.H, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_model_on_changed_inputs_is_the_weighted_error(case):
    """`1/2 E omega_r (V z - W x)^2`, by sums over samples; and its gradient by finite differences."""
    make, data = CASES[case]
    network = Network(seeded(make), data)
    pruned = copy.deepcopy(network.model)
    pruned[0].weight.data.view(len(pruned[0].weight), -1)[:, ::2] = 0.0
    index = len(network.layers) - 1
    layer = network.layers[index]
    Z, X = (inputs_of(model, layer, data) for model in (pruned, network.model))
    assert float((Z - X).abs().max()) > 0.1
    w, W = weights_of(network, layer, "gauss-newton"), torch.from_numpy(network.dense[index].augmented)

    def cost(V):
        return 0.5 * (w * (Z @ V.T - X @ W.T) ** 2).sum(dim=0).div(len(data)).numpy()

    for groups in (None, 1):
        model = paired_weighted_quadratic(network, index, pruned, RowGram(damping=0.0, groups=groups))
        step, D = 1e-4, torch.randn(W.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        slope = (cost(W + step * D) - cost(W - step * D)) / (2 * step)
        np.testing.assert_allclose((model.gradient * D.numpy()).sum(axis=1), slope, rtol=1e-5, atol=1e-8)
        moved = np.einsum("ri,rij,rj->r", D, model.H, D) / 2 + (model.gradient * D.numpy()).sum(axis=1)
        exact = np.allclose(moved, cost(W + D) - cost(W), rtol=1e-5)
        assert exact == (groups is None)


def test_rows_of_a_kind_share_correlations_and_keep_their_own_diagonals():
    network = Network(seeded(convnet), image_samples(9))
    own, kinds = (network(RowGram(groups=groups, damping=0.0)) for groups in (None, 2))
    for one, two in zip(own, kinds, strict=True):
        diagonal = np.diagonal(one.H, axis1=1, axis2=2)
        np.testing.assert_allclose(np.diagonal(two.H, axis1=1, axis2=2), diagonal, rtol=1e-5, atol=1e-12)
        root = np.sqrt(diagonal)
        R = two.H / (root[:, :, None] * root[:, None, :])
        assert len(np.unique(R[:, 0, 1].round(7))) == min(2, len(R))
        assert np.linalg.eigvalsh(two.H).min() > -1e-12 * two.H.max()
        for row, all_rows in zip(one.H, two.H, strict=True):
            assert np.abs(row - all_rows).max() < 0.5 * row.max()
    every = network(RowGram(groups=4, damping=0.0))
    for one, other in zip(own, every, strict=True):
        assert np.array_equal(one.H, other.H)  # no layer has more rows


def test_kinds_are_found_by_how_weights_vary_and_not_by_their_size():
    rng = np.random.default_rng(0)
    patterns = rng.random((200, 3)) ** 4
    truth = rng.integers(3, size=12)
    sizes = 10.0 ** rng.uniform(-3, 3, size=12)
    omega = patterns[:, truth] * sizes * (1 + 0.01 * rng.random((200, 12)))
    found = row_kinds(omega, 3, seed=0)
    assert len({(int(a), int(b)) for a, b in zip(truth, found, strict=True)}) == len(set(found)) == 3
    assert row_kinds(np.ones((5, 4)), 3).tolist() == [0, 0, 0, 0]
    assert row_kinds(np.zeros((5, 4)), 3).tolist() == [0, 0, 0, 0]
    assert len(set(row_kinds(omega, 2))) == 2


def test_a_row_that_the_loss_does_not_see_is_damped_as_the_one_it_sees_least():
    model = seeded(mlp)
    model[2].weight.data[:, 1] = 0.0
    first = Network(model, samples(30))(RowGram(damping=0.1))[0]
    seen = np.delete(first.damping, 1)
    assert first.damping[1] == seen.min()
    np.testing.assert_allclose(first.H[1], np.diag([seen.min()] * 6 + [1.0]))


def test_what_does_not_fit_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(weighted, "free_memory", lambda: 1000.0)
    with pytest.raises(ValueError, match=r"a matrix for every row takes 0\.0 GiB") as error:
        Network(seeded(mlp), samples(30))(RowGram())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pipeline", ["one-shot", "sequential"])
@pytest.mark.parametrize("case", CASES)
def test_masks_are_the_best_of_all_in_every_row(case, pipeline):
    make, data = CASES[case]
    model = seeded(make)
    network, curvature = Network(model, data), RowGram(damping=0.05)
    method = cbs.Method(curvature, cbs.Solve("branch-and-bound"), cbs.Survivors())
    result = cbs.prune(
        model, data, sparsity=0.5, method=method, scope="row", pipeline=pipeline,
        layers=[network.layers[0].name], certify=False,
    )  # fmt: skip
    (layer, *_) = network.layers
    (quadratic, *_) = network(curvature)
    (m, n), bias = layer.shape, int(quadratic.bias)
    mask = result.masks[layer.name].reshape(m, n).numpy()
    moved = result.model.get_submodule(layer.name).weight.detach().reshape(m, n).numpy()
    k = round(0.5 * n)
    for r in range(m):
        C, w = np.linalg.inv(quadratic.H[r]), quadratic.W[r]
        costs = {
            P: 0.5 * w[list(P)] @ np.linalg.solve(C[np.ix_(P, P)], w[list(P)])
            for P in itertools.combinations(range(n), k)
        }
        P = np.flatnonzero(mask[r])
        assert costs[tuple(P)] <= min(costs.values()) * (1 + 1e-9)
        best = w - C[:, P] @ np.linalg.solve(C[np.ix_(P, P)], w[P])
        np.testing.assert_allclose(
            moved[r], np.where(mask[r], 0.0, best[: n + bias][:n]), rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize(
    "ask",
    [{"sparsity": 0.6}, {"sparsity": 0.6, "scope": "layer"}, {"budget": "1:2", "along": "kernel"}],
    ids=str,
)
@pytest.mark.parametrize("pipeline", ["one-shot", "sequential"])
def test_every_budget_is_met(pipeline, ask):
    model, data = seeded(convnet), image_samples(12)
    result = cbs.prune(model, data, method="joint-loss", pipeline=pipeline, certify=False, **ask)
    for layer in result.layers:
        mask = result.masks[layer.name].flatten(1)
        if "budget" in ask:
            assert (mask.reshape(len(mask), -1, 2).sum(dim=2) == 1).all()
        if ask.get("scope") == "layer":
            assert int(mask.sum()) == round(0.6 * mask.numel())
    assert result.sparsity == pytest.approx(ask.get("sparsity", 0.5), abs=0.01)


def test_refit_by_layers_and_pruning_in_sequence_take_it():
    model, data = seeded(mlp), samples(60)
    ask = {"sparsity": 0.6, "method": "joint-loss", "certify": False, "solver": "greedy"}
    plain, refitted, sequential = (
        cbs.prune(model, data, **ask, **more) for more in ({}, {"refit": "layer"}, {"pipeline": "sequential"})
    )
    p = model(data.inputs).detach().log_softmax(dim=1)

    @torch.no_grad()
    def divergence(result):
        q = result.model(data.inputs).log_softmax(dim=1)
        return float(F.kl_div(q, p, log_target=True, reduction="sum"))

    assert divergence(refitted) < divergence(plain)
    assert divergence(sequential) < divergence(plain)
    assert all(torch.equal(plain.masks[name], refitted.masks[name]) for name in plain.masks)


@pytest.mark.slow
def test_mlpnet_in_sequence_keeps_its_accuracy():
    folder = os.environ.get("CBS_DATA")
    if folder is None:
        pytest.skip("CBS_DATA names no folder with MNIST and MLPNet's weights")
    split, model = mnist(folder), mlpnet(Path(folder) / "mlpnet_93.97.npz")
    data = split.train.inputs[:10_000], split.train.targets[:10_000]
    network = Network(model, data)
    first = network(RowGram(groups=8, damping=0.0))[0]
    w, X = weights_of(network, network.layers[0], "gauss-newton"), data[0].double()
    np.testing.assert_allclose(
        np.diagonal(first.H, axis1=1, axis2=2), w.T @ X**2 / len(X), rtol=1e-4, atol=1e-9
    )
    result = cbs.prune(
        model, data, sparsity=0.95, method="joint-loss", pipeline="sequential", certify=False, test=split.test
    )
    assert result.test_before.accuracy == pytest.approx(0.9397, abs=1e-9)
    assert result.test_after.accuracy >= 0.92
