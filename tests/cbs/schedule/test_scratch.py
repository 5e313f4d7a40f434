"""The pruned architecture with other weights: masks and shapes are the result's, weights are not."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import cbs
from tests.cbs.networks import convnet, mlp, samples, seeded

SINGLE = {"dtype": torch.float32}
DATA = {mlp: samples(40, **SINGLE), convnet: samples(12, (2, 4, 6), **SINGLE)}


def pruned(make, **options):
    model = seeded(make, **SINGLE)
    torch_prune.random_unstructured(model[-1], "bias", 1)
    options = {"sparsity": 0.6, "method": "magnitude", "certify": False, **options}
    return cbs.prune(model, DATA[make], **options)


@pytest.mark.parametrize("make", [mlp, convnet])
def test_random_weights_are_those_of_a_fresh_network_under_the_same_masks(make):
    result = pruned(make)
    model = cbs.from_scratch(result, seed=5)
    fresh = seeded(make, seed=5, **SINGLE)
    for name, module in model.named_modules():
        if name in result.masks:
            keep = ~result.masks[name]
            torch.testing.assert_close(module.weight.detach(), fresh.get_submodule(name).weight * keep)
            assert torch.equal(module.weight_orig, module.weight)
    assert torch.equal(model[-1].bias_mask, result.model[-1].bias_mask)
    if make is convnet:
        assert torch.equal(model[1].running_mean, torch.zeros(3))
    cbs.train(model, DATA[make], epochs=3)
    for name, mask in result.masks.items():
        assert not model.get_submodule(name).weight[mask].any()


def test_the_same_seed_gives_the_same_and_nothing_else_is_drawn():
    result, before = pruned(mlp), torch.get_rng_state()
    one, other, third = (cbs.from_scratch(result, seed=seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("as_state", [False, True])
def test_the_original_weights_under_the_masks(as_state):
    result, first = pruned(convnet), seeded(convnet, seed=9, **SINGLE)
    model = cbs.from_scratch(result, "original", initial=first.state_dict() if as_state else first)
    for name, mask in result.masks.items():
        expected = first.get_submodule(name).weight.detach().masked_fill(mask, 0)
        assert torch.equal(model.get_submodule(name).weight, expected)
    assert torch.equal(model[0].bias, first[0].bias)


@pytest.mark.parametrize("how", ["random", "original"])
@pytest.mark.parametrize("make", [mlp, convnet])
def test_where_neurons_went_the_network_is_the_smaller_one(make, how):
    result = pruned(make, granularity="neurons", scope="layer", sparsity=0.4)
    initial = seeded(make, seed=9, **SINGLE) if how == "original" else None
    model = cbs.from_scratch(result, how, initial=initial)
    small = result.permanent()
    shapes = [p.shape for p in small.parameters()]
    assert [p.shape for p in model.parameters()] == shapes
    assert shapes != [p.shape for p in seeded(make).parameters()]
    if initial is not None:
        kept = result.neurons[0].kept
        torch.testing.assert_close(model[0].weight, initial[0].weight[kept])
    cbs.train(model, DATA[make], epochs=1)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.inner = nn.Linear(6, 3)

    def forward(self, x):
        return self.scale * self.inner(x)


def test_what_can_not_be_drawn_anew_is_refused_in_one_line():
    result = cbs.prune(Own(), DATA[mlp], sparsity=0.5, method="magnitude", certify=False)
    with pytest.raises(ValueError, match=r"module 'model' \(Own\) holds 'scale' and has no reset_parameters"):
        cbs.from_scratch(result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"how": "zero"}, "unknown how 'zero'; known: random, original"),
        ({"how": "original"}, "how 'original' takes a model or state dict as initial"),
        ({"initial": {}}, "how 'random' takes no initial: it draws its weights"),
        ({"how": "original", "initial": 3}, "initial must be a model or a state dict, not int"),
        ({"how": "original", "initial": {}}, "initial is of another network than the result's"),
        ({"how": "original", "initial": seeded(convnet)}, "initial is of another network than the result's"),
        ({"seed": "x"}, "seed must be a whole number >= 0, got 'x'"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"result": nn.Linear(2, 2)}, "result must be what cbs.prune gives, not Linear"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        cbs.from_scratch(**{"result": pruned(mlp), **arguments})
    assert len(str(error.value).splitlines()) == 1
