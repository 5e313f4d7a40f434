import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

import cbs
from cbs.curvature import hessian_diagonal as exact
from cbs.network.layers import find_layers
from cbs.network.network import Network
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def dense_hessian(model, layers, data):
    """`[p, p]` Hessian of the mean cross entropy by all layers' weights, by `torch.func`."""
    sizes = [layer.size for layer in layers]

    def value(flat):
        parts = torch.split(flat, sizes)
        parameters = {
            f"{layer.name}.weight": part.reshape(layer.module.weight.shape)
            for layer, part in zip(layers, parts, strict=True)
        }
        return F.cross_entropy(functional_call(model, parameters, (data.inputs,)), data.targets)

    return jacrev(jacrev(value))(torch.cat([layer.module.weight.detach().flatten() for layer in layers]))


class Twice(nn.Module):
    """A layer that runs twice, and one that runs on a sequence."""

    def __init__(self):
        super().__init__()
        self.twice, self.along, self.out = nn.Linear(6, 6), nn.Linear(3, 3), nn.Linear(6, 3)

    def forward(self, x):
        x = torch.tanh(self.twice(torch.tanh(self.twice(x))))
        return self.out(torch.tanh(self.along(x.reshape(-1, 2, 3))).flatten(1))


@pytest.mark.parametrize("make", [mlp, convnet, lambda: Twice().double().eval()])
def test_diagonal_is_that_of_the_dense_hessian(make):
    data = image_samples(5) if make is convnet else samples(7)
    model = seeded(make)
    layers = find_layers(model)
    found = exact.hessian_diagonal(model, layers, data, F.cross_entropy)
    flat = torch.cat([found[layer.name].flatten() for layer in layers])
    expected = torch.diagonal(dense_hessian(model, layers, data)).detach()
    assert bool((expected < 0).any())
    assert bool((expected > 0).any())
    torch.testing.assert_close(flat, expected, rtol=1e-9, atol=1e-12)


def test_places_are_of_layers_that_run_once():
    twice = Twice().double().eval()
    assert exact.single_runs(twice, find_layers(twice), samples(3)) == {"along": 2, "out": 1}
    conv = seeded(convnet)
    assert exact.single_runs(conv, find_layers(conv), image_samples(3)) == {"0": 12, "3": 12, "6": 1}


def test_too_many_products_are_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(exact, "LIMIT", 50)
    model, data = seeded(convnet), image_samples(6)
    with pytest.raises(
        ValueError, match=r"'obd-exact' needs 87 Hessian products .* 50; take method"
    ) as error:
        cbs.prune(model, data, sparsity=0.5, method="obd-exact")
    assert "\n" not in str(error.value)
    assert cbs.prune(seeded(mlp), samples(6), sparsity=0.5, method="obd-exact", certify=False)


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(7)), (convnet, image_samples(5))])
def test_products_are_those_of_the_dense_hessian(make, data):
    model = seeded(make)
    layers = find_layers(model)
    H = dense_hessian(model, layers, data).detach()
    v = torch.randn(3, len(H), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = sum(exact.hessian_products(model, layers, data, F.cross_entropy, v)) / len(data)
    torch.testing.assert_close(found, v @ H, rtol=1e-9, atol=1e-12)


def test_hutchinsons_estimate_comes_to_the_diagonal_and_knows_how_far_it_is():
    model, data = seeded(mlp), samples(20)
    layers = find_layers(model)
    expected = torch.diagonal(dense_hessian(model, layers, data)).detach()
    network = Network(model, data)
    few, many = (exact.hutchinson_estimate(network, probes, 0) for probes in (50, 3200))
    away, errors = [], []
    for estimate, error in (few, many):
        away.append(torch.cat([torch.from_numpy(part).flatten() for part in estimate]) - expected)
        errors.append(torch.cat([torch.from_numpy(part).flatten() for part in error]))
    for distance, error in zip(away, errors, strict=True):
        assert 0.7 < float((distance / error).square().mean().sqrt()) < 1.4
    assert float(errors[1].norm() / errors[0].norm()) == pytest.approx(1 / 8, rel=0.2)


def test_the_same_seed_draws_the_same_probes():
    model, data = seeded(mlp), samples(20)
    drawn = [cbs.Hutchinson(20, seed).values(Network(model, data)) for seed in (3, 3, 4)]
    assert all((a == b).all() for a, b in zip(drawn[0], drawn[1], strict=True))
    assert not any((a == b).any() for a, b in zip(drawn[0], drawn[2], strict=True))
