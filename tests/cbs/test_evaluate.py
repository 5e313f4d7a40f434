import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cbs.data import Samples
from cbs.evaluate import evaluate, forward, output_errors, sample_losses
from cbs.layers import find_layers
from cbs.surgery import clone
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def test_loss_and_accuracy_are_means_over_samples():
    model, data = seeded(mlp), samples(41)
    outputs = model(data.inputs)
    for reduction in ("mean", "sum"):
        loss = lambda y, t, r=reduction: F.cross_entropy(y, t, reduction=r)  # noqa: E731
        found = evaluate(model, data, loss, batch=7)
        assert found.loss == pytest.approx(float(F.cross_entropy(outputs, data.targets).detach()), rel=1e-12)
        assert found.accuracy == pytest.approx(float((outputs.argmax(1) == data.targets).double().mean()))
        assert found.samples == 41


def test_pixels_are_classified_too():
    data = Samples(torch.randn(4, 2, 3, 5), torch.randint(3, (4, 3, 5)))
    model = nn.Conv2d(2, 3, 1)
    found = evaluate(model, data, F.cross_entropy)
    correct = (model(data.inputs).argmax(1) == data.targets).double().mean()
    assert found.accuracy == pytest.approx(float(correct))


def test_regression_has_no_accuracy():
    data = Samples(torch.randn(8, 6), torch.randn(8, 3))
    found = evaluate(seeded(mlp, dtype=torch.float32), data, F.mse_loss)
    assert found.accuracy is None
    assert found.loss > 0


def test_modes_are_left_as_they_were():
    model = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5), nn.BatchNorm1d(3)).double()
    model[2].eval()
    data = samples()
    a, b = evaluate(model, data, F.cross_entropy), evaluate(model, data, F.cross_entropy)
    assert a.loss == b.loss
    assert [module.training for module in model] == [True, True, False]
    assert int(model[2].num_batches_tracked) == 0


def test_sample_losses_are_those_of_single_samples():
    outputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    losses = sample_losses(F.cross_entropy, outputs, targets)
    torch.testing.assert_close(losses, F.cross_entropy(outputs, targets, reduction="none"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (samples(shape=(7,)), r"data: the model refuses inputs of shape \[40, 7\] and type torch.float64"),
        (samples(dtype=torch.float32), "refuses inputs of shape .* and type torch.float32"),
        (samples(classes=9), "loss refuses outputs of shape"),
        (
            Samples(samples().inputs, torch.randn(40, 2)),
            r"outputs of shape \[40, 3\] with targets",
        ),
    ],
)
def test_data_that_does_not_fit_is_refused_in_one_line(data, message):
    with pytest.raises(ValueError, match=message) as error:
        evaluate(seeded(mlp), data, F.cross_entropy)
    assert "\n" not in str(error.value)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize("model", [Pair(), nn.Flatten(0)])
def test_a_model_must_answer_every_sample(model):
    with pytest.raises(ValueError, match="model must answer a batch of 40 with as many outputs"):
        forward(model, samples().inputs)


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(600)), (convnet, image_samples(12))])
def test_output_errors_are_measured_on_dense_inputs(make, data):
    dense = seeded(make)
    layers = find_layers(dense)
    after = clone(dense)
    for layer in layers:
        module = after.get_submodule(layer.name)
        module.weight.data.mul_(0.9)
        module.bias.data.add_(0.1)
    found = output_errors(
        dense, layers, {layer.name: after.get_submodule(layer.name) for layer in layers}, data
    )
    x = data.inputs
    for i, module in enumerate(dense):
        if str(i) in found:
            change = after.get_submodule(str(i))(x) - module(x)
            expected = 0.5 * float(change.detach().square().sum()) / len(data)
            assert found[str(i)] == pytest.approx(expected, rel=1e-12)
            assert expected > 0
        x = module(x)
