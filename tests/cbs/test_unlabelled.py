"""Targets that a network draws: in the mean they give its Fisher information."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.curvature.output import row_scales
from cbs.data import Samples
from cbs.network.network import Network
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(8)), (convnet, image_samples(8))])
def test_row_scales_are_those_of_the_fisher_in_the_mean(make, data):
    """`E_x sum_c p_c (dlog p_c / da_r)^2`, over samples and positions, by autograd."""
    model, repeats = seeded(make), 4000
    many = data.inputs.repeat_interleave(repeats, dim=0)
    drawn = cbs.unlabelled(model, many, seed=1)
    network = Network(model, drawn, loss=F.cross_entropy)
    found = row_scales(network)
    for layer, scales in zip(network.layers, found, strict=True):
        kept = []
        module = network.model.get_submodule(layer.name)
        handle = module.register_forward_hook(
            lambda module, args, y, kept=kept: kept.append(y.requires_grad_()) or y.clone()
        )
        logs = network.model(data.inputs.clone()).log_softmax(dim=1)
        handle.remove()
        expected = np.zeros(layer.shape[0])
        for c in range(logs.shape[1]):
            (slope,) = torch.autograd.grad(logs[:, c].sum(), kept, retain_graph=True)
            p = logs[:, c].exp().detach().reshape(-1, *[1] * (slope.ndim - 1))
            expected += layer.flatten(p * slope**2).mean(dim=0).numpy()
        np.testing.assert_allclose(scales, expected, rtol=0.08)


def test_what_is_drawn_has_the_outputs_moments():
    x = torch.zeros(20_000, 2)
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    classes = cbs.unlabelled(model, x).targets
    share = torch.bincount(classes, minlength=3) / len(x)
    torch.testing.assert_close(share, model.bias.detach().softmax(dim=0), rtol=0, atol=0.02)
    labels = cbs.unlabelled(model, x, loss="binary_cross_entropy_with_logits").targets
    torch.testing.assert_close(labels.mean(dim=0), model.bias.detach().sigmoid(), rtol=0, atol=0.02)
    numbers = cbs.unlabelled(model, x, loss="mse_loss").targets
    torch.testing.assert_close(numbers.mean(dim=0), model.bias.detach(), rtol=0, atol=0.04)
    torch.testing.assert_close(numbers.std(dim=0), torch.ones(3), rtol=0, atol=0.04)


def test_a_network_is_pruned_without_labels():
    data = samples(40)
    other = Samples(data.inputs, 2 - data.targets)
    drawn = [
        cbs.unlabelled(seeded(mlp), given, seed=3) for given in (data.inputs, data.inputs.numpy(), other)
    ]
    assert all(torch.equal(one.targets, drawn[0].targets) for one in drawn)
    assert not torch.equal(cbs.unlabelled(seeded(mlp), data.inputs, seed=4).targets, drawn[0].targets)
    result = cbs.prune(seeded(mlp), drawn[0], sparsity=0.5, certify=False, solver="greedy")
    assert result.sparsity == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "l1_loss"}, "loss l1_loss is no likelihood to draw targets from; known: cross_entropy, "),
        ({"loss": nn.CrossEntropyLoss()}, "loss CrossEntropyLoss is no likelihood"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
    ],
)
def test_what_can_not_be_drawn_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cbs.unlabelled(seeded(mlp), samples(4).inputs, **options)


def test_outputs_of_one_class_are_refused():
    with pytest.raises(ValueError, match=r"model answers with \[4, 1\]; classes are drawn from outputs"):
        cbs.unlabelled(nn.Linear(6, 1).double(), samples(4).inputs)


def test_tokens_are_drawn_place_by_place():
    """For inputs of any structure, with an output by name."""

    class Tagger(nn.Module):
        def forward(self, logits, shift):
            return {"other": -logits, "tags": logits + shift}

    p = torch.tensor([0.7, 0.1, 0.2])
    inputs = {
        "logits": p.log().expand(4000, 2, 3),
        "shift": torch.zeros(4000, 1, 1),
        "labels": torch.zeros(4000),
    }
    found = cbs.unlabelled(Tagger(), inputs, loss="token_cross_entropy", output="tags")
    assert found.targets.shape == (4000, 2)
    torch.testing.assert_close(found.targets.flatten().bincount() / 8000, p, rtol=0, atol=0.02)
    assert [*found.inputs.given()] == ["logits", "shift"]
