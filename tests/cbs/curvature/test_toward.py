"""Gradients toward the dense network's outputs, against autograd, and what the joint problem makes of it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune

import cbs
from cbs.curvature import Gram
from cbs.curvature.base import Fisher, GaussNewton, GaussNewtonDiagonal
from cbs.network.network import Network, Reference
from cbs.refit.network import matching
from solvers import Budget
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

DATA = {mlp: samples(40), convnet: image_samples(12)}
CASES = pytest.mark.parametrize("make", [mlp, convnet])


def moved(make, loss="cross_entropy", refitted=False, masks=False):
    """The dense network, and one that is some way off it, perhaps with masks."""
    data = DATA[make]
    if loss == "mse_loss":
        data = replace(data, targets=torch.randn(len(data), 3, dtype=torch.float64))
    chosen = getattr(F, loss)
    dense = Network(seeded(make), data, loss=chosen)
    model = seeded(make)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    for layer in dense.layers if masks else ():
        module = layer.of(model).module
        torch_prune.custom_from_mask(
            module, "weight", torch.rand(module.weight.shape, generator=generator) > 0.4
        )
    reference = Reference(dense, matching(dense.model, data, chosen), refitted)
    return dense, Network(model, data, loss=chosen, reference=reference)


def flows(network, layer):
    """A layer's input and output in a network."""
    kept = []
    handle = layer.of(network.model).module.register_forward_hook(
        lambda module, args, output: kept.append((args[0].detach().clone(), output.detach().clone()))
    )
    with torch.no_grad():
        network.model(network.samples.inputs.clone())
    handle.remove()
    ((x, y),) = kept
    return x, y


@CASES
def test_a_layer_is_drawn_to_its_dense_outputs(make):
    """`G` is the derivative of `1/2 E|V z - W x|^2` by V, at the present weights."""
    dense, network = moved(make)
    for layer, model, plain in zip(network.layers, network.toward(Gram()), network(Gram()), strict=True):
        module = copy.deepcopy(layer.module).requires_grad_()
        z, y = flows(network, layer)[0], flows(dense, layer)[1]
        miss = 0.5 * (module(z) - y).square().sum() / len(network.samples)
        slopes = torch.autograd.grad(miss, [module.weight, module.bias])
        expected = torch.cat([slopes[0].flatten(1), slopes[1][:, None]], dim=1).numpy()
        np.testing.assert_allclose(model.gradient, expected, rtol=1e-9, atol=1e-12)
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_array_equal(model.H, plain.H)
        assert plain.gradient is None


@pytest.mark.parametrize("masks", [False, True])
def test_its_joint_problem_has_the_best_weights_there_are(masks):
    """Survivors after a refit are the ridge regression of the dense outputs on the present inputs."""
    dense, network = moved(mlp, masks=masks)
    layer, model = network.layers[0], network.toward(Gram())[0]
    pruned = network.earlier[0] | (np.arange(model.n) < 2)
    rows = model.refit([pruned])
    Z = np.pad(flows(network, layer)[0].numpy(), ((0, 0), (0, 1)), constant_values=1.0)
    Y = flows(dense, layer)[1].numpy()
    now = network.dense[0].augmented
    for r, row in enumerate(rows):
        S = np.append(~pruned[r], True)
        ridge = model.damping * np.diag(S[S] * np.append(np.ones(S.sum() - 1), 0.0))
        A = Z[:, S].T @ Z[:, S] / len(Z) + ridge
        b = Z[:, S].T @ Y[:, r] / len(Z) + ridge @ now[r, S]
        np.testing.assert_allclose(row[S], np.linalg.solve(A, b), rtol=1e-8, atol=1e-10)
        assert not row[~S].any()


def test_a_network_that_was_refitted_as_a_whole_keeps_its_layers_outputs():
    _, network = moved(mlp, refitted=True)
    assert all(model.gradient is None for model in network.toward(Gram()))
    assert network.toward(GaussNewton())[0].gradient is not None


@CASES
@pytest.mark.parametrize("curvature", [GaussNewton(), GaussNewton(apart=True)])
def test_factors_have_the_gradient_of_the_divergence(make, curvature):
    """That of `KL(p_dense || p)`, mean over the samples, by the weights of all layers or of one."""
    dense, network = moved(make)
    copied = copy.deepcopy(network.model)
    weights = [layer.of(copied).module.weight.requires_grad_() for layer in network.layers]
    x = network.samples.inputs
    with torch.no_grad():
        p = dense.model(x.clone()).softmax(dim=1)
    logs = copied(x.clone()).log_softmax(dim=1)
    slopes = torch.autograd.grad((p * (p.log() - logs)).sum(dim=1).mean(), weights)
    expected = torch.cat([slope.ravel() for slope in slopes]).numpy()
    found = np.concatenate([model.gradient.ravel() for model in network.toward(curvature)])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)
    assert np.abs(expected).max() > 1e-3


def test_of_regression_it_is_half_the_squared_distance():
    dense, network = moved(mlp, loss="mse_loss")
    (model,) = network.toward(GaussNewton())
    copied = copy.deepcopy(network.model)
    weights = [layer.of(copied).module.weight.requires_grad_() for layer in network.layers]
    with torch.no_grad():
        y = dense.model(network.samples.inputs)
    miss = 0.5 * (copied(network.samples.inputs) - y).square().sum() / len(network.samples)
    slopes = torch.autograd.grad(miss, weights)
    expected = torch.cat([slope.ravel() for slope in slopes]).numpy()
    np.testing.assert_allclose(model.gradient[0], expected, rtol=1e-9, atol=1e-14)


def test_weights_pruned_before_have_no_gradient_and_other_curvatures_none_at_all():
    _, network = moved(mlp, masks=True)
    for model in [*network.toward(Gram()), *network.toward(GaussNewton())]:
        earlier = model.join(model.earlier)
        assert earlier.any()
        assert not model.gradient[earlier].any()
        assert model.gradient[~earlier].all()
    for curvature in (GaussNewtonDiagonal(), Fisher()):
        assert all(model.gradient is None for model in network.toward(curvature))


def test_the_dense_network_has_no_reference_and_is_not_drawn():
    dense, _ = moved(mlp)
    assert dense.toward(Gram()) is dense(Gram())


@pytest.mark.parametrize("wide", [False, True])
def test_masks_of_before_cost_what_they_would_without_those_weights(wide, monkeypatch):
    """Where rows are too wide for matrices of their own, all share one in which the pruned would move."""
    if wide:
        monkeypatch.setattr("cbs.quadratic.OWN_WIDTH", 0)
    _, network = moved(mlp, masks=True)
    model, earlier = network.toward(Gram())[0], network.earlier[0]
    prune = earlier.sum(axis=1) + 1
    problem = model.problem(Budget.per_row(prune.tolist()))
    nothing = model.problem(Budget.per_row(0)).row_values(np.zeros(model.W.shape, dtype=bool))
    free = model.problem(Budget.per_row(earlier.sum(axis=1).tolist()))
    for r in range(len(earlier)):
        S = np.append(~earlier[r], True)
        H, g, w = model.H[np.ix_(S, S)], model.gradient[r, S], model.W[r, S]
        expected = {}
        for j in range(S.sum() - 1):
            rest = np.arange(S.sum()) != j
            D = np.zeros(S.sum())
            D[j] = -w[j]
            D[rest] = -np.linalg.solve(H[np.ix_(rest, rest)], H[rest, j] * D[j] + g[rest])
            expected[j] = g @ D + 0.5 * D @ H @ D
        base = -0.5 * g @ np.linalg.solve(H, g)
        start = free.row_values(model.join([earlier]))[r]
        assert start == pytest.approx(base)
        assert nothing[r] == pytest.approx(base)  # no mask costs less than those of before
        for j, cost in expected.items():
            mask = earlier.copy()
            others = [np.flatnonzero(~earlier[i])[0] for i in range(len(earlier))]
            mask[np.arange(len(earlier)), others] = True
            mask[r] = earlier[r]
            mask[r, np.flatnonzero(~earlier[r])[j]] = True
            assert problem.row_values(model.join([mask]))[r] - start == pytest.approx(cost - base, abs=1e-10)


def test_a_pruning_of_such_a_network_measures_what_it_says():
    """Objectives and measurement are of the move from the present weights, as bounds are, and agree."""
    schedule = cbs.Schedule(2, deleted="return")
    result = cbs.prune(seeded(mlp), DATA[mlp], sparsity=0.6, stages=schedule, method="joint", scope="layer")
    for layer in result.layers:
        assert layer.value == pytest.approx(layer.measured, rel=1e-9)
        assert 0 <= layer.bound <= layer.value
