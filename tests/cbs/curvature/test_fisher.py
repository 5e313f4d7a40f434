import pytest
import torch
from torch.nn import functional as F

from cbs.curvature import fisher
from cbs.network.layers import find_layers
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(9)), (convnet, image_samples(5))])
def test_rows_are_the_gradients_of_single_samples(make, data, monkeypatch):
    model = seeded(make)
    layers = find_layers(model)
    monkeypatch.setattr(fisher, "CHUNK", 2 * sum(layer.size for layer in layers))
    X = fisher.gradient_factor(model, layers, data, F.cross_entropy)
    assert X.dtype == torch.float64
    for s in range(len(data)):
        loss = F.cross_entropy(model(data.inputs[s : s + 1]), data.targets[s : s + 1])
        gradients = torch.autograd.grad(loss, [layer.module.weight for layer in layers])
        expected = torch.cat([g.flatten() for g in gradients])
        torch.testing.assert_close(X[s], expected, rtol=1e-10, atol=1e-12)


def test_a_loss_that_sums_and_one_that_averages_agree():
    model, data = seeded(mlp), samples(4)
    factors = [
        fisher.gradient_factor(
            model, find_layers(model), data, lambda y, t, r=r: F.cross_entropy(y, t, reduction=r)
        )
        for r in ("sum", "mean", "none")
    ]
    assert float(factors[0].abs().max()) > 0
    torch.testing.assert_close(factors[0], factors[1])
    torch.testing.assert_close(factors[0], factors[2])
