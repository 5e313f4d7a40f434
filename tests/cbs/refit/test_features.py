"""Features against what the layers are given, and refits of networks that their outputs do not determine."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

import cbs
from cbs.data import Samples
from cbs.network.surgery import clone
from cbs.refit.features import Features, find_features, watched
from cbs.refit.movable import find_movable
from cbs.refit.network import refit_network
from cbs.refit.passes import Passes
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def pruned(model, data, sparsity=0.5):
    return cbs.prune(model, data, sparsity=sparsity, method="magnitude", scope="layer", certify=False).model


def inputs_of(model, names, x):
    seen = {}

    def keep(name):
        def hook(module, args):
            seen[name] = args[0].clone()

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(keep(name)) for name in names if name]
    seen[""] = model(x)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(60)), (convnet, image_samples(30))])
def test_features_are_the_inputs_that_pruning_changed_by_their_variance(make, data):
    model = seeded(make)
    small = clone(pruned(model, data))
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        found = dict(find_features(model, small, layers, data))
        assert set(found) == {*layers[1:], ""}  # the first one's inputs are the data
        dense, now = (inputs_of(net, found, data.inputs) for net in (model, small))
        total = torch.zeros(len(data), dtype=torch.float64)
        for name, scale in found.items():
            x = dense[name].reshape(len(data), -1)
            variance = (x - x.mean(dim=0)).square().sum(dim=1).mean()
            assert scale == pytest.approx(float(variance) ** -0.5)
            total += 0.5 * (now[name] - dense[name]).reshape(len(data), -1).square().sum(dim=1) / variance
        match = Features(watched(clone(model), list(found.items())))
        o = watched(clone(small), list(found.items()))(data.inputs.clone())
        torch.testing.assert_close(match.values(o, data.inputs), total)


def test_gradient_and_products_are_those_of_a_dense_jacobian():
    model, data = seeded(mlp), samples(30)
    masked = pruned(model, data)
    small = clone(masked)
    features = find_features(model, small, ["2", "4"], data)
    assert [name for name, _ in features] == ["2", "4", ""]
    movable = find_movable(masked, small)
    passes = Passes(watched(clone(small), features), movable, Features(watched(clone(model), features)))
    known = Samples(data.inputs, data.inputs)
    vector = movable.vector(movable.base)

    def residuals(v):
        parameters = dict(small.named_parameters())
        for part in movable.parts:
            flat = parameters[part.name].detach().reshape(-1).clone()
            place = slice(part.start, part.start + part.count)
            parameters[part.name] = flat.index_put((part.index,), v[place]).reshape(
                parameters[part.name].shape
            )
        x, rows = data.inputs, []
        for name, scale in features:
            wanted = small[: int(name)] if name else small
            inner = {key: value for key, value in parameters.items() if not name or int(key[0]) < int(name)}
            away = functional_call(wanted, inner, (x,)) - (model[: int(name)] if name else model)(x)
            rows.append(scale * away)
        return torch.cat([row.reshape(-1) for row in rows])

    with torch.no_grad():
        r, J = residuals(vector), jacrev(residuals)(vector)
    value, g = passes.gradient(vector, known)
    assert value == pytest.approx(0.5 * float(r @ r) / len(data))
    torch.testing.assert_close(g, J.T @ r / len(data))
    v = torch.from_numpy(np.random.default_rng(0).standard_normal(len(vector)))
    torch.testing.assert_close(passes.product(vector, v, known), J.T @ (J @ v) / len(data))


def test_few_samples_are_refitted_by_features_and_never_to_worse_outputs_on_those_held_back():
    model = nn.Sequential(
        nn.Linear(12, 40), nn.ReLU(inplace=True), nn.Linear(40, 40), nn.ReLU(inplace=True), nn.Linear(40, 3)
    ).double()
    rng = np.random.default_rng(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(
                torch.from_numpy(rng.standard_normal(parameter.shape) / parameter.shape[-1] ** 0.5)
            )
    X = torch.from_numpy(rng.standard_normal((160, 12)))
    data = Samples(X, model(X).argmax(dim=1).detach())
    masked = pruned(model.eval(), data, 0.4)
    before = {name: mask.clone() for name, mask in masked.named_buffers() if "mask" in name}
    found = refit_network(masked, model, data)
    assert found.stats["features"]["count"] == 3
    assert 0 < found.stats["features"]["steps"] <= len(found.steps)
    assert [step.index for step in found.steps] == list(range(1, len(found.steps) + 1))
    assert found.after < found.before
    judged = [step.held for step in found.steps]
    assert found.after == min(judged) == judged[found.chosen - 1]
    for name, mask in before.items():
        assert torch.equal(masked.get_buffer(name), mask)


def test_layers_that_run_twice_or_not_at_all_are_no_features():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again, self.idle, self.last = (nn.Linear(6, 6) for _ in range(4))

        def forward(self, x):
            x = torch.tanh(self.first(x))
            return self.last(torch.tanh(self.again(torch.tanh(self.again(x)))))

    model = seeded(Twice).double().eval()
    small = clone(model)
    with torch.no_grad():
        small.first.weight.zero_()
    found = find_features(model, small, ["first", "again", "idle", "last"], samples(20, (6,)))
    assert [name for name, _ in found] == ["last", ""]


def test_a_network_whose_inputs_are_all_as_they_were_has_outputs_alone():
    model, data = seeded(mlp), samples(20)
    assert [name for name, _ in find_features(model, clone(model), ["2", "4"], data)] == [""]
