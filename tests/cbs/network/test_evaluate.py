import copy
import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cbs.data import Samples
from cbs.network.evaluate import evaluate, forward, mean_loss, output_changes, require_answers
from cbs.network.layers import find_layers
from cbs.network.surgery import clone
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def test_loss_and_accuracy_are_means_over_samples():
    model, data = seeded(mlp), samples(41)
    outputs = model(data.inputs)
    for reduction in ("mean", "sum"):
        loss = lambda y, t, r=reduction: F.cross_entropy(y, t, reduction=r)  # noqa: E731
        found = evaluate(model, replace(data, batch=7), loss)
        assert found.loss == pytest.approx(float(F.cross_entropy(outputs, data.targets).detach()), rel=1e-12)
        assert found.accuracy == pytest.approx(float((outputs.argmax(1) == data.targets).double().mean()))
        assert found.samples == 41


def batched(loss, outputs, targets):
    """The mean of a loss over samples, each by itself, without vmap."""
    return sum(float(loss(o[None], t[None])) for o, t in zip(outputs, targets, strict=True)) / len(outputs)


CE = nn.CrossEntropyLoss
WEIGHTS = torch.tensor([1.0, 8.0, 0.25], dtype=torch.float64)
TOKENS = torch.randint(3, (41, 4), generator=torch.Generator().manual_seed(3))


def ragged():
    """Labels `[41, 4]` of which samples ignore from none to all."""
    return torch.where(torch.arange(4) < torch.arange(41)[:, None] % 5, TOKENS, -100)


def contrastive(outputs, targets):
    return (outputs @ outputs.T).logsumexp(dim=1).mean() - outputs.square().sum(dim=1).mean()


def in_place(outputs, targets):
    return F.cross_entropy(outputs.mul_(2.0), targets.sub_(1).remainder_(3))


def branching(outputs, targets):
    loss = F.cross_entropy(outputs, targets)
    return loss if loss.item() > 0 else 2 * loss


def smooth(**options):
    return CE(label_smoothing=0.1, **options)


ADDITIVE = {
    "mean": CE(),
    "sum": CE(reduction="sum"),
    "one a sample": CE(reduction="none"),
    "smoothed": smooth(),
    "class weights, summed": CE(weight=WEIGHTS, reduction="sum"),
    "ignored class, summed": CE(ignore_index=1, reduction="sum"),
    "changes what it is given": in_place,
    "branches on its value": branching,
    "a penalty of its own": lambda y, t: F.cross_entropy(y, t) + 0.3,
}
OTHERS = {
    "class weights": CE(weight=WEIGHTS),
    "class weights, smoothed": smooth(weight=WEIGHTS),
    "ignored class": CE(ignore_index=1),
    "batch statistics": contrastive,
    "broadcast": lambda y, t: F.mse_loss(y[:, :1], t.to(y.dtype)),
    "values of a batch": lambda y, t: F.cross_entropy(y, t, reduction="none").softmax(0),
    "penalty of a sum": lambda y, t: F.cross_entropy(y, t, reduction="sum") + 7.0,
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("batch", [1, 2, 7, 500])
@pytest.mark.parametrize("kind", ADDITIVE)
def test_additive_losses_are_the_mean_over_samples(kind, batch):
    model, data = seeded(mlp), replace(samples(41), batch=batch)
    kept = data.inputs.clone(), data.targets.clone()
    copied = lambda o, t: ADDITIVE[kind](o.clone(), t.clone())  # noqa: E731
    expected = batched(copied, model(data.inputs).detach(), data.targets)
    found = evaluate(model, data, ADDITIVE[kind])
    assert found.loss == pytest.approx(expected, rel=1e-12)
    assert mean_loss(model, data, ADDITIVE[kind]) == found.loss
    assert torch.equal(data.inputs, kept[0])
    assert torch.equal(data.targets, kept[1])


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 7, 500])
@pytest.mark.parametrize("kind", OTHERS)
def test_a_loss_that_is_no_mean_or_sum_over_samples_is_refused(kind, batch, dtype):
    loss = copy.deepcopy(OTHERS[kind])
    if isinstance(loss, nn.Module):
        loss = loss.to(dtype)
    data = replace(samples(41, dtype=dtype), batch=batch)
    with pytest.raises(ValueError, match=r"^loss .*(reduction='sum'|mean or a sum over samples)") as error:
        evaluate(seeded(mlp, dtype=dtype), data, loss)
    assert "\n" not in str(error.value)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 3).double()

    def forward(self, x):
        return self.fc(x).transpose(1, 2)


@pytest.mark.parametrize("ignore", [-100, 0, 2, 255])
def test_accuracy_counts_the_labels_that_the_loss_counts(ignore):
    model, data = seeded(Tagger), samples(41, (4, 6))
    labels = torch.where(torch.arange(4) < 3, TOKENS, ignore)
    counts = labels != ignore
    right = (model(data.inputs).argmax(1) == labels) & counts
    expected = float(right.sum() / counts.sum())
    losses = {
        "module": CE(ignore_index=ignore, reduction="sum"),
        "closure": lambda y, t: F.cross_entropy(y, t, ignore_index=ignore, reduction="sum"),
        "probabilities": lambda y, t: F.nll_loss(y.softmax(1).log(), t, ignore_index=ignore, reduction="sum"),
    }
    for name, loss in losses.items():
        found = evaluate(model, replace(data, targets=labels), loss)
        assert found.accuracy == pytest.approx(expected), name
    assert 0 < expected < 1


def test_equally_many_ignored_labels_are_a_mean_and_unequally_many_are_refused():
    model, data = seeded(Tagger), samples(41, (4, 6))
    even = replace(data, targets=torch.where(torch.arange(4) < 3, TOKENS, -100))
    expected = float(F.cross_entropy(model(even.inputs), even.targets).detach())
    assert evaluate(model, even, F.cross_entropy).loss == pytest.approx(expected, rel=1e-12)
    some = replace(
        data, targets=torch.where(torch.arange(4) < 1 + torch.arange(41)[:, None] % 3, TOKENS, -100)
    )
    with pytest.raises(ValueError, match=r"neither the mean .* reduction='sum'"):
        evaluate(model, some, F.cross_entropy)
    with pytest.raises(ValueError, match=r"loss of a sample by itself is nan .* reduction='sum'"):
        evaluate(model, replace(data, targets=ragged()), F.cross_entropy)
    summed = CE(reduction="sum")
    whole = float(summed(model(data.inputs), ragged()).detach())
    assert evaluate(model, replace(data, targets=ragged()), summed).loss == pytest.approx(
        whole / 41, rel=1e-12
    )


@pytest.mark.parametrize(
    ("loss", "targets", "message"),
    [
        (F.cross_entropy, torch.randn(40, 3), "takes class labels or probabilities.*mse_loss"),
        (CE(), torch.ones(40, 3), "do not sum to 1.*binary_cross_entropy_with_logits"),
        (functools.partial(F.cross_entropy), -torch.ones(40, 3), "mse_loss"),
        (lambda y, t: 0.0 * y.sum(), torch.zeros(40), "no gradient by the outputs"),
        (lambda y, t: F.cross_entropy(y[:, :1], t[:, None]), torch.ones(40), "no gradient .*mse_loss"),
        (lambda y, t: y.detach().sum(), torch.zeros(40), "no gradient by the outputs"),
        (lambda y, t: (y.argmax(1) != t).double().mean(), torch.zeros(40), "no gradient by the outputs"),
        (lambda y, t: 1.0, torch.zeros(40), "loss must give one value for a batch .* float"),
        (lambda y, t: y.abs(), torch.zeros(40), r"loss must give one value .* shape \[40, 3\]"),
        (F.cross_entropy, torch.zeros(40), "loss refuses outputs .*mse_loss"),
    ],
)
def test_a_loss_that_can_not_see_the_outputs_is_refused(loss, targets, message):
    data = Samples(samples().inputs, targets.double())
    with pytest.raises(ValueError, match=message) as error:
        require_answers(seeded(mlp), data, loss)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("loss", "targets", "right"),
    [
        (F.cross_entropy, torch.arange(40) % 9, r"shape \[40\] and lie in 0 to 2, or be ignored"),
        (CE(), torch.zeros(40, 1, dtype=torch.long), r"shape \[40\] and lie in 0 to 2, or be ignored"),
        (F.cross_entropy, torch.full((40,), -100), "give labels that it does not all ignore"),
        (F.mse_loss, torch.zeros(40, 2), "targets must have the shape of the outputs"),
    ],
)
def test_targets_of_a_wrong_kind_are_refused_with_what_would_be_right(loss, targets, right):
    with pytest.raises(ValueError, match=right) as error:
        require_answers(seeded(mlp), Samples(samples().inputs, targets), loss)
    assert "\n" not in str(error.value)


def test_targets_that_broadcast_are_refused():
    data = Samples(samples().inputs, torch.randn(40).double())
    model = nn.Sequential(seeded(mlp), nn.Linear(3, 1).double())
    for reduction in ("mean", "sum"):
        with (
            pytest.warns(UserWarning, match="target size"),
            pytest.raises(ValueError, match="give targets of the outputs' shape"),
        ):
            evaluate(model, data, nn.MSELoss(reduction=reduction))
    assert evaluate(model, replace(data, targets=data.targets[:, None]), F.mse_loss).loss > 0


def test_class_probabilities_are_fine():
    data = Samples(samples().inputs, torch.rand(40, 3).double().softmax(1))
    require_answers(seeded(mlp), data, F.cross_entropy)
    assert evaluate(seeded(mlp), data, F.cross_entropy).accuracy is None


class Always(nn.Module):
    """A network with dropout or noise that evaluation does not switch off."""

    def __init__(self, change):
        super().__init__()
        self.fc, self.change = nn.Linear(6, 3).double(), change

    def forward(self, x):
        return self.change(self.fc(x))


@pytest.mark.parametrize(
    "change",
    [lambda y: F.dropout(y, 0.1), lambda y: y + 0.01 * torch.randn_like(y)],
    ids=["dropout", "noise"],
)
@pytest.mark.parametrize("batch", [1, 500])
def test_a_model_that_answers_differently_every_time_is_refused(change, batch):
    data = replace(samples(), batch=batch)
    with pytest.raises(ValueError, match="answers the same inputs differently"):
        require_answers(seeded(Always, change=change), data, F.cross_entropy)


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


def test_a_model_must_answer_every_sample():
    model = nn.Flatten(0)
    with pytest.raises(ValueError, match="model must answer a batch of 40 with as many outputs"):
        forward(model, samples().inputs)


class Classes(nn.Module):
    def forward(self, x):
        return x.argmax(1)


def test_a_model_must_answer_with_real_numbers():
    with pytest.raises(ValueError, match=r"model answers with torch.int64; it must give real numbers"):
        forward(Classes(), samples().inputs)


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(600)), (convnet, image_samples(12))])
def test_output_changes_are_measured_on_dense_inputs(make, data):
    dense = seeded(make)
    layers = find_layers(dense)
    layers_by_name = {layer.name: layer for layer in layers}
    after = clone(dense)
    for layer in layers:
        module = after.get_submodule(layer.name)
        module.weight.data.mul_(0.9)
        module.bias.data.add_(0.1)
    found = output_changes(dense, layers, [layer.of(after) for layer in layers], data)
    x = data.inputs
    for i, module in enumerate(dense):
        if str(i) in found:
            change = after.get_submodule(str(i))(x) - module(x)
            change = layers_by_name[str(i)].flatten(change.detach())
            expected = 0.5 * change.square().sum(dim=0) / len(data)
            np.testing.assert_allclose(found[str(i)].rows, expected, rtol=1e-12)
            assert float(expected.min()) > 0
            X = layers_by_name[str(i)].unfold(x)
            diagonal = float(X.detach().square().sum()) / (len(data) * X.shape[1])
            assert found[str(i)].diagonal == pytest.approx(diagonal, rel=1e-12)
        x = module(x)
