from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

import cbs
from cbs.curvature import gauss_newton
from cbs.network.layers import find_layers
from solvers import FactorHessian
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def oracle(model, layers, data, loss):
    """The dense `1/N sum_s J_s' B_s J_s` of all layers' weights."""
    weights = {f"{layer.name}.weight": layer.module.weight.detach() for layer in layers}
    total = 0
    for x, y in zip(data.inputs, data.targets, strict=True):
        run = lambda w, x=x: functional_call(model, w, (x[None],))[0]  # noqa: E731
        parts = jacrev(run)(weights)
        J = torch.cat([parts[name].reshape(-1, weights[name].numel()) for name in weights], dim=1)
        B = jacrev(jacrev(lambda o, y=y: loss(o[None], y[None])))(run(weights))
        total = total + J.T @ B @ J
    return total.detach() / len(data)


def squared_error(outputs, targets):
    return (outputs - torch.eye(3, dtype=outputs.dtype)[targets]).square().sum()


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(7)), (convnet, image_samples(4))])
@pytest.mark.parametrize("loss", [F.cross_entropy, squared_error])
def test_rows_are_a_factor_of_the_dense_gauss_newton_matrix(make, data, loss, monkeypatch):
    model = seeded(make)
    layers = find_layers(model)
    p = sum(layer.size for layer in layers)
    monkeypatch.setattr(gauss_newton, "CHUNK", 3 * 3 * p)
    X = gauss_newton.gauss_newton_factor(model, layers, data, loss)
    assert X.shape == (3 * len(data), p)
    assert X.dtype == torch.float64
    expected = oracle(model, layers, data, loss)
    assert float(expected.diagonal().max()) > 0
    torch.testing.assert_close(X.T @ X / len(X), expected, rtol=1e-9, atol=1e-12)


def test_rows_of_the_cross_entropy_are_scaled_jacobians():
    """With two classes `B = q (1 - q) [1, -1]' [1, -1]`: one row a sample, the other zero."""
    model, data = seeded(mlp, sizes=(4, 3, 2)), samples(5, (4,), classes=2)
    layers = find_layers(model)
    X = gauss_newton.gauss_newton_factor(model, layers, data, F.cross_entropy).reshape(5, 2, -1)
    weights = [layer.module.weight for layer in layers]
    for s in range(5):
        output = model(data.inputs[s : s + 1])[0]
        q = float(torch.softmax(output.detach(), 0)[0])
        slope = torch.autograd.grad(output[0] - output[1], weights)
        expected = q * (1 - q) * torch.cat([g.flatten() for g in slope]).square()
        torch.testing.assert_close(X[s].square().sum(dim=0) / 2, expected, rtol=1e-8, atol=1e-12)


def test_what_vmap_cannot_follow_is_done_sample_by_sample():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = seeded(mlp)

        def forward(self, x):
            return self.inner(x) * (2.0 if float(x.sum()) > 1e9 else 1.0)

    data, model = samples(6), Branching().double().eval()
    found = [
        gauss_newton.gauss_newton_factor(net, find_layers(net), data, F.cross_entropy)
        for net in (model, model.inner)
    ]
    torch.testing.assert_close(found[0].T @ found[0], found[1].T @ found[1], rtol=1e-9, atol=1e-12)


def test_what_does_not_fit_into_memory_is_refused(monkeypatch):
    model, data = seeded(mlp), samples(6)
    monkeypatch.setattr("cbs.curvature.fisher.free_memory", lambda: 2000.0)
    with pytest.raises(ValueError, match="gradients of 6 samples by 3 outputs by 62 weights take") as error:
        cbs.prune(model, data, method=method(), sparsity=0.5)
    assert "\n" not in str(error.value)
    assert "fewer `samples`" in str(error.value)


@pytest.mark.parametrize("value", [-1.0, float("nan"), True])
def test_a_wrong_damping_is_refused(value):
    with pytest.raises(ValueError, match="damping must be a finite number >= 0"):
        cbs.GaussNewton(damping=value)


def test_blocks_are_those_of_the_whole_where_no_budget_is_shared():
    network = cbs.network.network.Network(seeded(mlp), samples(20))
    (whole,), blocks = network(cbs.GaussNewton()), network(cbs.GaussNewton(apart=True))
    assert whole.H.n == sum(block.H.n for block in blocks)
    start = 0
    for block in blocks:
        assert (whole.H.X[:, start : start + block.H.n] == block.H.X).all()
        start += block.H.n
    assert cbs.GaussNewton().within(SimpleNamespace(pooled=False)).apart
    assert not cbs.GaussNewton().within(SimpleNamespace(pooled=True)).apart


def method():
    return cbs.Method(cbs.GaussNewton(), cbs.Solve("obs"), cbs.Survivors())


def test_the_damping_is_alpha_of_the_recursion_over_samples():
    """From `C = I / alpha` a rank-one update a row, `C - C x x' C / (P + x' C x)` (Hassibi & Stork 1992)."""
    model, data = seeded(mlp), samples(12)
    X = gauss_newton.gauss_newton_factor(model, find_layers(model), data, F.cross_entropy).numpy()
    H, every = FactorHessian(X, 0.03), np.arange(X.shape[1])
    C = np.eye(X.shape[1]) / 0.03
    for x in X:
        C -= np.outer(C @ x, C @ x) / (len(X) + x @ C @ x)
    np.testing.assert_allclose(np.diagonal(C), H.inverse_diagonal(0, every), rtol=1e-9)
    np.testing.assert_allclose(C[:, 4], H.solve(0, every, np.eye(H.n)[4]), rtol=1e-7, atol=1e-9)
