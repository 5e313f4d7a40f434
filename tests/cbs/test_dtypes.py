"""Networks in half precision, bfloat16 and double precision, by every method."""

import functools

import pytest
import torch
from torch import nn

import cbs
from cbs.data import Samples
from cbs.network.layers import find_layers, visiting
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

WEIGHTS = [name for name, facts in cbs.methods().items() if "weights" in facts["granularity"]]

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
DATA = {mlp: samples(40), convnet: image_samples(12)}


def change_of_outputs(result, layer, model, inputs):
    """Half the mean squared change of a layer's output, and its damping, in double precision."""
    seen = []
    dense = [one for one in find_layers(model) if one.name == layer.name]
    with visiting(dense, lambda name, x, y: seen.append(dense[0].augmented(x))), torch.no_grad():
        model(inputs)
    (X,) = seen
    after = result.permanent().get_submodule(layer.name).requires_grad_(False)
    before = dense[0].module.requires_grad_(False)
    move = (after.weight.double() - before.weight.double()).flatten(1)
    total = 0.5 * layer.damping * float(move.square().sum())
    move = torch.cat([move, (after.bias.double() - before.bias.double())[:, None]], dim=1)
    return total + 0.5 * float((X @ move.T).square().sum()) / len(inputs)


@functools.cache
def loss_in_double(make, dtype):
    """Of a network whose weights and inputs are rounded to a type, computed in double precision."""
    data = Samples(DATA[make].inputs.to(dtype).double(), DATA[make].targets)
    model = seeded(make, dtype=dtype).double()
    return cbs.prune(model, data, method="magnitude", sparsity=0.5, certify=False).before.loss


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("make", "data"), DATA.items())
@pytest.mark.parametrize("method", WEIGHTS)
def test_weights_keep_their_type_and_values_are_those_of_what_is_stored(method, make, data, dtype):
    model = seeded(make, dtype=dtype)
    data = Samples(data.inputs.to(dtype), data.targets)
    result = cbs.prune(
        model, data, method=method, sparsity=0.5, scope="row", certify=False, solver="greedy", damping=0.1
    )
    slack = 1e-9 if dtype == torch.float64 else 1e-4
    for layer in result.layers:
        after = result.permanent().get_submodule(layer.name)
        assert after.weight.dtype == after.bias.dtype == dtype
        mask = result.masks[layer.name]
        assert bool((after.weight[mask] == 0).all())
        assert layer.value == pytest.approx(change_of_outputs(result, layer, model, data.inputs), rel=slack)
        assert layer.measured == pytest.approx(layer.value, rel=slack)
    assert result.undo()[0].weight.equal(model[0].weight)
    want = loss_in_double(make, dtype)
    assert result.before.loss == pytest.approx(want, rel=20 * torch.finfo(dtype).eps)


def test_losses_with_weights_in_low_precision_are_computed_in_single():
    loss = nn.CrossEntropyLoss(weight=torch.ones(3, dtype=torch.bfloat16), reduction="sum")
    model, data = seeded(mlp, dtype=torch.bfloat16), samples(40, dtype=torch.bfloat16)
    result = cbs.prune(model, data, method="obd", sparsity=0.5, certify=False, loss=loss)
    assert result.before == cbs.prune(model, data, method="obd", sparsity=0.5, certify=False).before
    assert loss.weight.dtype == torch.bfloat16


class Mixed(nn.Module):
    """A network half of which is in bfloat16, whatever it is converted to."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 5).bfloat16(), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(self.first(x.bfloat16()).relu().float())


def test_a_network_that_can_not_be_single_precision_is_refused_where_that_is_needed():
    data = samples(40, dtype=torch.float32)
    for method, scope in (("cbs", "row"), ("obd", "row"), ("joint", "network")):
        with pytest.raises(ValueError, match=r"model can't run in float32, .*as float32") as error:
            cbs.prune(seeded(Mixed), data, method=method, sparsity=0.5, scope=scope)
        assert "\n" not in str(error.value)
    for method in ("magnitude", "joint"):
        assert cbs.prune(seeded(Mixed), data, method=method, sparsity=0.5, scope="row").value > 0


def test_complex_networks_and_data_are_refused():
    with pytest.raises(ValueError, match=r"parameter 'weight' of torch.complex64"):
        cbs.prune(nn.Linear(6, 3, dtype=torch.complex64), samples(), sparsity=0.5)
    data = samples().inputs.to(torch.complex64), samples().targets
    with pytest.raises(ValueError, match="complex64; give a dense tensor of real numbers"):
        cbs.prune(seeded(mlp), data, sparsity=0.5)
