import copy
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from cbs.change import Change, Weights, layer_weights
from cbs.network import surgery
from cbs.network.layers import find_layers
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def operate(model, rng):
    """Prune every layer at random, and move what is left."""
    answers = {}
    for layer in find_layers(model):
        dense = layer_weights(layer)
        mask = rng.random(dense.W.shape) < 0.4
        bias = None if dense.bias is None else dense.bias + 1
        answers[layer.name] = Change(mask, Weights(np.where(mask, 0.0, dense.W * 1.5), bias))
        surgery.apply([layer], [answers[layer.name]])
    return answers


@pytest.mark.parametrize("make", [mlp, convnet])
@pytest.mark.parametrize("bias", [True, False])
def test_answers_go_in_and_come_out(make, bias, rng):
    model = seeded(make, bias=bias)
    answers = operate(model, rng)
    masks = surgery.read_masks(model)
    assert list(masks) == list(answers)
    for layer in find_layers(model):
        answer = answers[layer.name]
        assert torch_prune.is_pruned(layer.module)
        assert masks[layer.name].shape == layer.module.weight.shape
        np.testing.assert_array_equal(masks[layer.name].reshape(layer.shape).numpy(), answer.mask)
        found = layer_weights(layer)
        np.testing.assert_array_equal(found.augmented, answer.weights.augmented)


@pytest.mark.parametrize(("make", "data"), [(mlp, samples()), (convnet, image_samples())])
def test_masks_can_be_made_permanent(make, data, rng):
    model = seeded(make)
    names = list(model.state_dict())
    operate(model, rng)
    before = model(data.inputs)
    assert surgery.make_permanent(model) is model
    assert surgery.read_masks(model) == {}
    assert sorted(model.state_dict()) == sorted(names)
    assert torch.equal(model(data.inputs), before)


@pytest.mark.parametrize(("make", "data"), [(mlp, samples()), (convnet, image_samples())])
@pytest.mark.parametrize("permanent", [True, False])
def test_dense_weights_can_be_put_back(make, data, permanent, rng):
    model = seeded(make)
    before = model(data.inputs)
    saved = surgery.save(find_layers(model))
    operate(model, rng)
    assert not torch.equal(model(data.inputs), before)
    if permanent:
        surgery.make_permanent(model)
    surgery.undo(model, saved)
    assert surgery.read_masks(model) == {}
    assert torch.equal(model(data.inputs), before)


def test_undo_refuses_another_network():
    saved = surgery.save(find_layers(seeded(mlp)))
    for other in (seeded(mlp, sizes=(6, 5, 4, 2)), seeded(mlp, sizes=(6, 5))):
        state = copy.deepcopy(other.state_dict())
        with pytest.raises(ValueError, match="undo: model has no layer '"):
            surgery.undo(other, saved)
        assert all(torch.equal(other.state_dict()[name], value) for name, value in state.items())


def test_pruned_networks_are_cloned_without_their_masks(rng):
    model = seeded(mlp)
    operate(model, rng)
    model(samples().inputs)
    twin = surgery.clone(model)
    assert surgery.read_masks(twin) == {}
    assert len(surgery.read_masks(model)) == 3
    assert torch.equal(twin(samples().inputs), model(samples().inputs))
    twin[0].weight.data.zero_()
    assert float(model[0].weight.detach().abs().max()) > 0


def test_gradients_stay_zero_where_pruned(rng):
    model = seeded(mlp)
    operate(model, rng)
    model(samples().inputs).square().sum().backward()
    for layer in find_layers(model):
        mask = surgery.read_masks(model)[layer.name]
        gradient = layer.module.weight_orig.grad
        assert float(gradient[mask].abs().max()) == 0
        assert float(gradient[~mask].abs().max()) > 0


def test_zero_writes_the_dense_weight_without_the_pruned():
    dense, weight = torch.arange(1.0, 9.0).reshape(2, 2, 2), torch.zeros(2, 2, 2)
    mask = np.array([[True, False, False, False], [False, False, True, True]])
    surgery.zero(weight, dense, mask)
    assert weight.flatten().tolist() == [0, 2, 3, 4, 5, 6, 0, 0]


class Keeping(nn.Module):
    """Keeps of its forward pass, wherever attributes can."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5).double(), nn.Linear(5, 3).double()
        self.register_buffer("mean", torch.zeros(5, dtype=torch.float64))

    def forward(self, x):
        h = torch.tanh(self.a(x))
        self.last, self.kept = h, {"list": [h, (h[:1], {"deep": h.sum()})]}
        self.mean = h.mean(0)
        self.a.seen = x
        return self.b(h)


def test_what_a_forward_pass_left_is_copied_without_its_history():
    model = seeded(Keeping)
    x = samples().inputs.clone().requires_grad_()
    model(x).square().sum().backward()
    twin = surgery.clone(model)
    assert torch.equal(twin.last, model.last)
    assert not twin.last.requires_grad
    assert torch.equal(twin.kept["list"][1][1]["deep"], model.kept["list"][1][1]["deep"])
    assert twin.kept["list"][0] is twin.last
    assert twin.last is not model.last
    assert torch.equal(twin.mean, model.mean)
    assert torch.equal(twin.a.seen, x)
    assert twin.a.seen.grad is None
    assert all(p.grad is None and p.requires_grad and p.is_leaf for p in twin.parameters())
    assert x.grad is not None
    assert all(p.grad is not None for p in model.parameters())


def test_tensors_of_inference_mode_are_copied_as_plain_ones():
    with torch.inference_mode():
        model = seeded(Keeping)
        model(samples().inputs)
    twin = surgery.clone(model)
    twin(samples().inputs).square().sum().backward()
    assert not any(tensor.is_inference() for tensor in [*twin.parameters(), *twin.buffers()])


@pytest.mark.parametrize("thing", [threading.Lock(), (i for i in range(3))])
def test_models_that_cannot_be_copied_are_refused_in_one_line(thing):
    model = seeded(mlp)
    model.thing = [thing]
    with pytest.raises(
        ValueError, match=r"model Sequential can't be copied .* copy.deepcopy refuses"
    ) as error:
        surgery.clone(model)
    assert "\n" not in str(error.value)


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3))
        self.list = nn.ParameterList([nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.zeros(1))])
        self.cell = nn.GRUCell(3, 2)
        self.last = nn.Linear(2, 2)
        self.last.bias.requires_grad_(False)


def names(model):
    parameters = [(name, p.requires_grad, p.dtype, p.shape) for name, p in model.named_parameters()]
    return parameters, [name for name, _ in model.named_buffers()], list(model.state_dict())


def test_parameters_keep_their_order_through_masks_and_back(rng):
    dense = seeded(Nested).to(memory_format=torch.channels_last)
    model = copy.deepcopy(dense)
    saved = surgery.save(find_layers(model))
    operate(model, rng)
    masked = [name.removesuffix("_orig") for name, _ in model.named_parameters()]
    assert masked == [name for name, _ in dense.named_parameters()]
    assert names(surgery.clone(model)) == names(dense)
    assert names(surgery.undo(surgery.clone(model), saved)) == names(dense)
    for twin in (model, surgery.clone(model)):
        assert twin.first[0].weight.stride() == dense.first[0].weight.stride()


@pytest.mark.parametrize("order", [("weight",), ("bias",), ("bias", "weight"), ("weight", "bias")])
def test_masks_that_others_made_come_off_in_order_too(order):
    model = seeded(Nested)
    for name in order:
        for module in (model.first[0], model.first[1], model.last):
            torch_prune.random_unstructured(module, name, 1)
    torch_prune.random_unstructured(model.cell, "weight_hh", 1)
    torch_prune.random_unstructured(model.cell, "bias_ih", 1)
    twin = surgery.clone(model)
    plain, dense = names(twin), names(seeded(Nested))
    assert sorted(plain[0]) == sorted(dense[0])
    assert [name for name in plain[2] if "cell" not in name] == [n for n in dense[2] if "cell" not in n]
    assert surgery.read_masks(twin, "bias") == {}
    for key, mask in surgery.read_masks(model, "bias").items():
        assert not twin.get_submodule(key).bias[mask].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_are_written_in_the_layers_own_type(dtype, rng):
    model = seeded(mlp, dtype=dtype)
    model[0].weight = nn.Parameter(torch.empty(6, 5, dtype=dtype).T.copy_(model[0].weight.detach()))
    layer = find_layers(model)[0]
    W, stride = rng.standard_normal((5, 6)), layer.module.weight.stride()
    surgery.write(layer, Weights(W, rng.standard_normal(5)))
    assert torch.equal(layer.module.weight, torch.from_numpy(W).to(dtype))
    assert layer.module.weight.stride() == stride
    if dtype is torch.float16:
        with pytest.raises(ValueError, match=r"layer '0': weights after pruning reach 1e.06, too large for"):
            surgery.write(layer, Weights(np.full((5, 6), 1e6), None))
