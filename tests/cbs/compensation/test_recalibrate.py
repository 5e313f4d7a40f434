import numpy as np
import pytest
import torch

import cbs
from cbs.change import Change
from cbs.compensation.recalibrate import recalibrate
from cbs.network.network import Network
from cbs.plan import LayerPlan
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

WANDA = cbs.Method(cbs.Gram(damping=1e-4), cbs.Scores("wanda"), cbs.Survivors())


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(60)), (convnet, image_samples(30))])
@pytest.mark.parametrize("method", ["joint", "sparsegpt", WANDA], ids=["joint", "sparsegpt", "custom"])
def test_recalibration_brings_the_outputs_nearer_to_the_dense_ones(make, data, method):
    model = seeded(make)
    options = {
        "sparsity": 0.6, "solver": "greedy", "scope": "network", "damping": 1e-4, "certify": False,
        "method": method,
    }  # fmt: skip
    plain, refitted = (cbs.prune(model, data, refit=refit, **options) for refit in (None, "layer"))
    for name, mask in plain.masks.items():
        assert torch.equal(mask, refitted.masks[name])
    with torch.no_grad():
        dense = model(data.inputs)
        before, after = ((run.model(data.inputs) - dense).square().sum() for run in (plain, refitted))
    assert after < before
    first = plain.layers[0].name
    torch.testing.assert_close(
        plain.model.get_submodule(first).weight, refitted.model.get_submodule(first).weight
    )


@pytest.mark.parametrize("method", ["wanda", "cbs", "magnitude"])
def test_methods_that_move_no_survivors_on_the_gram_are_not_recalibrated(method):
    model, data = seeded(mlp), samples(60)
    ask = {"sparsity": 0.5, "method": method, "certify": False}
    plain, same = (cbs.prune(model, data, refit=refit, **ask) for refit in (None, "layer"))
    assert all(torch.equal(plain.state[name], value) for name, value in same.state.items())


def test_recalibration_follows_the_order_in_which_layers_run():
    class Backwards(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Linear(5, 3).double()
            self.first = torch.nn.Linear(6, 5).double()

        def forward(self, x):
            return self.last(torch.tanh(self.first(x)))

    model, data = seeded(Backwards), samples(60)
    network = Network(model, data)
    rng = np.random.default_rng(0)
    masks = [rng.random(dense.W.shape) < 0.5 for dense in network.dense]
    parts = zip(network.dense, masks, strict=True)
    plans = [LayerPlan(Change(mask, dense), "test") for dense, mask in parts]
    found = recalibrate(network, plans, cbs.Gram(damping=1e-2))
    moved = torch.from_numpy(found[1].change.weights.W), torch.from_numpy(found[1].change.weights.bias)
    Z = torch.tanh(torch.nn.functional.linear(data.inputs, *moved)).numpy()
    X = torch.tanh(model.first(data.inputs)).detach().numpy()
    target = model.last(torch.from_numpy(X)).detach().numpy()
    Z = np.column_stack([Z, np.ones(60)])
    c = 1e-2 * np.mean(Z[:, :5] ** 2)
    for r in range(3):
        keep = np.append(~plans[0].change.mask[r], True)
        ridge = np.sqrt(60 * c) * np.eye(6)[:5]
        dense = network.dense[0].augmented[r]
        A, b = np.vstack([Z, ridge])[:, keep], np.concatenate([target[:, r], ridge @ dense])
        expected = np.linalg.lstsq(A, b, rcond=None)[0]
        np.testing.assert_allclose(found[0].change.weights.augmented[r][keep], expected, atol=1e-9)
