"""Weights of rows: against dense derivatives by offsets of every layer's outputs, in double precision."""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev
from torch.nn import functional as F

import cbs
from cbs.curvature import omega as module
from cbs.curvature.omega import output_weights, row_weights
from cbs.network.layers import visiting
from cbs.network.network import Network
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


class Twice(nn.Module):
    """A layer that runs twice a pass."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        """Outputs `[N, 3]`."""
        return self.out(torch.tanh(self.fc(torch.tanh(self.fc(x)))))


CASES = {
    "mlp": (mlp, samples(20)),
    "cnn with batch norm": (convnet, image_samples(7)),
    "run twice": (lambda: Twice().double().eval(), samples(12)),
}


def by_offsets(network, layer, curvature):
    """Every run's `omega [samples, positions, m]`: by what is added to the layer's outputs."""
    found = []
    for x, target in zip(network.samples.inputs, network.samples.targets, strict=True):
        shapes = []
        with visiting([layer], lambda name, x, y, shapes=shapes: shapes.append(y.shape)), torch.no_grad():
            network.model(x[None])

        def outputs(offsets, x=x):
            left = iter(offsets)
            with visiting([layer], lambda name, x, y: y + next(left)):
                return network.model(x[None])[0]

        zeros = tuple(torch.zeros(shape, dtype=torch.float64) for shape in shapes)
        B = curvature(outputs(zeros).detach(), target)
        runs = []
        for J in jacrev(outputs)(zeros):
            rows = torch.stack([layer.flatten(part) for part in J])  # [k, positions, m]
            runs.append(torch.einsum("kpm,kl,lpm->pm", rows, B, rows))
        found.append(torch.cat(runs))
    return torch.stack(found).detach()


def curvatures(loss=F.cross_entropy):
    def squared(o, y):
        g = torch.func.grad(lambda o: loss(o[None], y[None]))(o)
        return torch.outer(g, g)

    return {
        "gauss-newton": lambda o, y: jacrev(jacrev(lambda o: loss(o[None], y[None])))(o),
        "gradient": squared,
        "outputs": lambda o, y: torch.eye(len(o), dtype=o.dtype),
    }


@pytest.mark.parametrize("omega", ["gauss-newton", "gradient", "outputs"])
@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_of_dense_derivatives(case, omega):
    make, data = CASES[case]
    network = Network(seeded(make), data)
    for i, layer in enumerate(network.layers):
        expected = by_offsets(network, layer, curvatures()[omega])
        runs = row_weights(network, omega, i)
        found = torch.cat([run.reshape(len(data), -1, run.shape[1]) for run in runs], dim=1)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6 * float(expected.max()))


def test_curvatures_of_other_losses():
    data = samples(15)
    targets = torch.rand(15, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    regression = cbs.Samples(data.inputs, targets)
    for loss, times in ((F.mse_loss, 3 / 2), (F.binary_cross_entropy_with_logits, 3.0), (quartic, 1.0)):
        network = Network(seeded(mlp), regression, loss=loss)
        for i, layer in enumerate(network.layers):
            expected = times * by_offsets(network, layer, curvatures(loss)["gauss-newton"])[:, 0]
            (found,) = row_weights(network, "gauss-newton", i)
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6 * float(expected.max()))


def quartic(o, y):
    """A loss that says nothing of what the outputs are."""
    return (o - y).pow(4).sum(dim=1).mean()


def test_no_label_enters_but_by_the_gradient():
    data = samples(20)
    others = cbs.Samples(data.inputs, (data.targets + 1) % 3)
    for omega, same in (("gauss-newton", True), ("outputs", True), ("gradient", False)):
        one, other = (row_weights(Network(seeded(mlp), part), omega, 0)[0] for part in (data, others))
        assert torch.equal(one, other) == same


def test_many_outputs_are_combined_at_random_and_right_in_expectation(monkeypatch):
    network = Network(seeded(mlp), samples(4))
    (exact,) = row_weights(network, "gauss-newton", 0)
    monkeypatch.setattr(module, "EXACT", 2)
    monkeypatch.setattr(module, "DRAWS", 2000)
    model, layers, data = network.differentiable()
    found = [
        output_weights(model, layers, data, network.loss, "gauss-newton", seed)["0"] for seed in (0, 0, 1)
    ]
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.equal(found[0][0], found[2][0])
    np.testing.assert_allclose(found[0][0], exact, rtol=0.25, atol=0.05 * float(exact.max()))
    np.testing.assert_allclose(found[0][0].mean(), exact.mean(), rtol=0.05)


def test_layers_are_done_one_by_one_where_all_do_not_fit_and_refused_where_one_does_not(monkeypatch):
    data = image_samples(7)
    whole = Network(seeded(convnet), data)
    apart = Network(seeded(convnet), data)
    sizes = [4 * 7 * 3 * 4 * 3, 4 * 7 * 4 * 4 * 3, 4 * 7 * 3]
    monkeypatch.setattr(module, "free_memory", lambda: max(sizes) / module.SHARE)
    for i in range(3):
        parts = row_weights(apart, "outputs", i)
        assert sum(part.numel() * 4 for part in parts) == sizes[i]
    assert ("omega", "outputs") not in apart.memo
    monkeypatch.setattr(module, "free_memory", lambda: sum(sizes) / module.SHARE)
    for i in range(3):
        for one, other in zip(
            row_weights(whole, "outputs", i), row_weights(apart, "outputs", i), strict=True
        ):
            torch.testing.assert_close(one, other)
    assert ("omega", "outputs") in whole.memo
    monkeypatch.setattr(module, "free_memory", lambda: (max(sizes) - 1) / module.SHARE)
    with pytest.raises(
        ValueError, match=r"^layer '3': weights of its rows at every position of 7 samples"
    ) as e:
        row_weights(Network(seeded(convnet), data), "outputs", 1)
    assert "\n" not in str(e.value)


def test_partial_losses_are_known():
    network = Network(seeded(mlp), samples(9), loss=functools.partial(F.cross_entropy, label_smoothing=0.1))
    plain = Network(seeded(mlp), samples(9))
    one, other = (row_weights(each, "gauss-newton", 1)[0] for each in (network, plain))
    torch.testing.assert_close(one, other)
