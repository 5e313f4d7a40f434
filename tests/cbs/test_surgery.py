import copy

import numpy as np
import pytest
import torch
from torch.nn.utils import prune as torch_prune

from cbs import surgery
from cbs.formulation import Pruned, Weights, layer_weights
from cbs.layers import find_layers
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def operate(model, rng):
    """Prune every layer at random, and move what is left."""
    answers = {}
    for layer in find_layers(model):
        dense = layer_weights(layer)
        mask = rng.random(dense.W.shape) < 0.4
        bias = None if dense.bias is None else dense.bias + 1
        answers[layer.name] = Pruned(mask, Weights(np.where(mask, 0.0, dense.W * 1.5), bias))
        surgery.apply(layer, answers[layer.name])
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
