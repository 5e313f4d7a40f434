import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cbs.curvature.output import output_scales
from cbs.network.layers import find_layers, visiting
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def inplace():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)).double()


@pytest.mark.parametrize(
    ("make", "data"), [(mlp, samples(6)), (convnet, image_samples(5)), (inplace, samples(6))]
)
def test_scales_are_mean_squared_gradients_of_pre_activations(make, data):
    model = seeded(make)
    layers = find_layers(model)
    scales = output_scales(model, layers, data, F.cross_entropy)
    for layer in layers:
        rows = []
        for x, y in zip(data.inputs, data.targets, strict=True):
            shift = []

            def visit(name, inputs, output, shift=shift):
                shift.append(torch.zeros_like(output, requires_grad=True))
                return output + shift[0]

            with visiting([layer], visit):
                F.cross_entropy(model(x[None]), y[None]).backward()
            rows.append(layer.flatten(shift[0].grad))
        expected = torch.cat(rows).square().mean(dim=0)
        assert float(expected.min()) > 0
        torch.testing.assert_close(scales[layer.name], expected, rtol=1e-10, atol=1e-14)


def test_rows_that_the_loss_ignores_have_scale_zero():
    model, data = seeded(mlp), samples(6)
    scales = output_scales(model, find_layers(model), data, lambda y, t: y[:, 0].square().mean())
    assert float(scales["4"][0]) > 0
    assert scales["4"][1:].tolist() == [0, 0]
