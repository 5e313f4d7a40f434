import numpy as np
import pytest
import torch
from torch.func import functional_call, jacrev
from torch.nn import functional as F

import cbs
from cbs.curvature import gauss_newton, moments
from cbs.data import Samples
from cbs.network.layers import find_layers
from cbs.network.network import Network
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def one_by_one(model, data, layer):
    """Per-sample squared gradients and Gauss-Newton diagonals of a layer's weights, `[N, m, n]` each."""
    name, W = f"{layer.name}.weight", layer.module.weight.detach()
    squares, diagonals = [], []
    for x, y in zip(data.inputs, data.targets, strict=True):
        run = lambda w, x=x: functional_call(model, {name: w}, (x[None],))[0]  # noqa: E731
        J = jacrev(run)(W).detach().reshape(-1, layer.size)
        p = F.softmax(run(W), dim=0).detach()
        g = J.T @ (p - F.one_hot(y, len(p)))
        B = torch.diag(p) - torch.outer(p, p)
        squares.append(g.square().reshape(layer.shape))
        diagonals.append(torch.einsum("ap,ab,bp->p", J, B, J).reshape(layer.shape))
    return torch.stack(squares), torch.stack(diagonals)


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(11)), (convnet, image_samples(7))])
def test_moments_are_those_of_single_samples(make, data, monkeypatch):
    monkeypatch.setattr(gauss_newton, "CHUNK", 3 * 4 * 100)  # several batches
    model = seeded(make)
    network = Network(model, Samples(data.inputs, data.targets, batch=4))
    found = moments.fisher_diagonal(network), moments.gauss_newton_spread(network)
    for i, layer in enumerate(find_layers(model)):
        squares, diagonals = one_by_one(model, data, layer)
        np.testing.assert_allclose(found[0][i], squares.mean(dim=0), rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(found[1][i], diagonals.std(dim=0, correction=0), rtol=1e-7, atol=1e-15)


def test_first_derivatives_are_of_as_many_samples_as_were_asked_for():
    model, data = seeded(mlp), samples(40)
    some = moments.fisher_diagonal(Network(model, data, samples=10, seed=3))
    drawn = data.choose(10, 3)
    squares, _ = one_by_one(model, drawn, find_layers(model)[0])
    np.testing.assert_allclose(some[0], squares.mean(dim=0), rtol=1e-9)


def test_a_single_sample_has_no_spread():
    with pytest.raises(ValueError) as error:
        cbs.prune(seeded(mlp), samples(40), method="obd-sd-spread", sparsity=0.5, samples=1)
    assert str(error.value) == (
        "method 'obd-sd-spread' takes a spread over samples, of which there is 1; give 2 or more, or take "
        "method 'obd'"
    )
