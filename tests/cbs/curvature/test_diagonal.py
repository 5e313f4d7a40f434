import pytest
import torch
from torch.func import functional_call, jacrev
from torch.nn import functional as F

from cbs.curvature import diagonal, gauss_newton
from cbs.network.layers import find_layers
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def oracle(model, layer, data, loss):
    """`[m, n]` diagonal of the dense `1/N sum J' B J` of one layer's weights."""
    name = f"{layer.name}.weight"
    total = torch.zeros(layer.size, dtype=torch.float64)
    for x, y in zip(data.inputs, data.targets, strict=True):
        run = lambda w, x=x: functional_call(model, {name: w}, (x[None],))[0]  # noqa: E731
        J = jacrev(run)(layer.module.weight.detach()).reshape(-1, layer.size)
        B = jacrev(jacrev(lambda o, y=y: loss(o[None], y[None])))(run(layer.module.weight.detach()))
        total += torch.einsum("ap,ab,bp->p", J, B, J)
    return (total.detach() / len(data)).reshape(layer.shape)


def squared_error(outputs, targets):
    return (outputs - torch.eye(3, dtype=outputs.dtype)[targets]).square().sum()


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(7)), (convnet, image_samples(4))])
@pytest.mark.parametrize("kind", ["cross entropy", "squared error"])
def test_diagonal_is_that_of_the_dense_gauss_newton_matrix(make, data, kind, monkeypatch):
    model = seeded(make)
    layers = find_layers(model)
    loss = F.cross_entropy if kind == "cross entropy" else squared_error
    monkeypatch.setattr(gauss_newton, "CHUNK", 3 * 3 * sum(layer.size for layer in layers))
    found = diagonal.gauss_newton_diagonal(model, layers, data, loss)
    for layer in layers:
        expected = oracle(model, layer, data, loss)
        assert float(expected.max()) > 0
        torch.testing.assert_close(found[layer.name], expected, rtol=1e-9, atol=1e-12)


def test_the_negative_curvature_of_a_loss_is_left_out():
    model, data = seeded(mlp), samples(5)
    found = diagonal.gauss_newton_diagonal(model, find_layers(model), data, lambda y, t: -y.square().sum())
    assert all(float(h.abs().max()) == 0 for h in found.values())
