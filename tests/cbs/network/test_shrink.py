import copy
import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.network.layers import find_layers
from cbs.network.neurons import neurons_of
from cbs.network.shrink import Removed, shrink, tried
from tests.cbs.network.test_neurons import Custom, Residual
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def removal(model, data, some=lambda j: j % 2 == 0):
    """Some neurons of every group, with their columns zeroed in the model."""
    lost = []
    for group in neurons_of(model, find_layers(model), data.first(4)).groups:
        out = [j for j in range(group.count) if some(j)]
        tables = [
            {name: at[out].ravel().tolist() for name, at in table.items()}
            for table in (group.rows, group.columns, group.norms)
        ]
        for name, columns in tables[1].items():
            with torch.no_grad():
                model.get_submodule(name).weight.flatten(1)[:, columns] = 0
        lost.append(Removed(group.name, group.count, out, *tables))
    return lost


def count(model):
    return sum(values.numel() for values in model.parameters())


def normed():
    model = convnet()
    generator = torch.Generator().manual_seed(0)
    for values in (model[1].weight.data, model[1].bias.data, model[1].running_mean, model[1].running_var):
        values.copy_(torch.rand(3, generator=generator) + 0.5)
    return model


CASES = {
    "chain": (mlp, samples(), (2 * 6 + 2) + (2 * 2 + 2) + (3 * 2 + 3)),
    "batch norm": (normed, image_samples(), (1 * 12 + 1) + 2 + (2 * 4 + 2) + (3 * 24 + 3)),
    "residual": (Residual, image_samples(), 2 * 18 + 4 + (1 * 18 + 1) + 1 + (2 * 1 + 2) + (3 * 2 + 3)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("make", "data", "parameters"), CASES.values(), ids=CASES.keys())
@torch.no_grad()
def test_a_smaller_network_gives_the_same_outputs(make, data, parameters, dtype):
    model, data = seeded(make), cbs.Samples(data.inputs.to(dtype), data.targets)
    lost = removal(model.to(dtype), data)
    small = shrink(model, lost)
    assert tried(model, lost, data.inputs) is None
    before, tolerance = model(data.inputs), 1e-12 if dtype == torch.float64 else 1e-6
    assert (small(data.inputs) - before).abs().max() <= tolerance * before.abs().max()
    assert count(small) == parameters < count(model)
    for name, module in small.named_modules():
        if isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features)
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels)
        if isinstance(module, nn.BatchNorm2d):
            assert len(module.running_mean) == len(module.weight) == module.num_features
        if isinstance(module, nn.PReLU):
            assert len(module.weight) == module.num_parameters
        if not isinstance(model.get_submodule(name), nn.Sequential | Residual):
            assert type(module) is type(model.get_submodule(name))


def test_a_smaller_network_trains_as_a_network_does():
    model, data = seeded(Residual), image_samples()
    small = shrink(model, removal(model, data)).train()
    F.cross_entropy(small(data.inputs), data.targets).backward()
    assert all(values.grad.shape == values.shape for values in small.parameters())
    frozen = seeded(Residual)
    frozen.stem.weight.requires_grad_(False)
    assert not shrink(frozen, removal(frozen, data)).stem.weight.requires_grad


def test_records_of_a_report_do_as_well():
    model, data = seeded(mlp), samples()
    lost = removal(model, data)
    records = json.loads(json.dumps([vars(group) for group in lost]))
    assert count(shrink(model, records)) == count(shrink(model, lost))


def test_a_column_that_is_not_zero_is_refused():
    model = seeded(mlp)
    lost = removal(model, samples())
    model[2].weight.data[1, 0] = 0.1
    with pytest.raises(ValueError, match="layer '2': a column behind a removed neuron is not zero any more"):
        shrink(model, lost)


def test_groups_that_are_none_or_another_networks_are_refused_in_one_line():
    result = cbs.prune(
        seeded(mlp), samples(40), sparsity=0.5, method="magnitude", granularity="neurons", certify=False
    )
    records, small = result.to_dict()["neurons"], result.permanent()
    cases = [
        (small, records, "groups are of another network: module '[024]'"),
        (seeded(convnet), records, "groups are of another network: module '[024]'"),
        (nn.Sequential(), records, "groups are of another network: .* but there is none"),
        (result.model, [{"rows": {}}], "groups must be the neurons of a result or a report"),
        (result.model, 3, "groups must be the neurons of a result or a report"),
    ]
    for model, groups, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            shrink(model, groups)
        assert len(str(error.value).splitlines()) == 1


def test_parts_of_a_channel_are_refused():
    model, data = seeded(convnet), image_samples()
    first, second = removal(model, data)
    part = Removed(first.name, 3, first.neurons, first.rows, {"3": first.columns["3"][:-1]}, first.norms)
    with pytest.raises(ValueError, match="layer '3': the columns to remove are no whole channels"):
        shrink(model, [part, second])


def fixed_view(m, x):
    return m.b(torch.relu(m.a(x)).view(-1, 2, 2).flatten(1))


def weighed(m, x):
    return m.b(m.a(x) * torch.arange(4.0))


@pytest.mark.parametrize("run", [fixed_view, weighed])
def test_what_expects_its_channels_is_found_out(run):
    model = seeded(lambda: Custom(run, a=nn.Linear(6, 4), b=nn.Linear(4, 3)))
    data = samples()
    lost = Removed("a", 4, [0], {"a": [0]}, {"b": [0]})
    model.b.weight.data[:, 0] = 0
    assert "the smaller network does not run" in tried(model, [lost], data.inputs)
    stays = Removed("a", 4, [0], {"a": [0]}, {"b": [0]}, stays="for a reason")
    assert tried(model, [stays], data.inputs) is None
    assert count(shrink(model, [stays])) == count(model)


def test_outputs_that_change_are_found_out():
    model = seeded(
        lambda: Custom(lambda m, x: m.b(m.a(x)) / len(m.a.weight), a=nn.Linear(6, 4), b=nn.Linear(4, 3))
    )
    model.b.weight.data[:, 0] = 0
    why = tried(model, [Removed("a", 4, [0], {"a": [0]}, {"b": [0]})], samples().inputs)
    assert why == "outputs change by 3.3e-01 of the largest"


def test_the_model_is_left_as_it_was():
    model, data = seeded(normed), image_samples()
    lost = removal(model, data)
    before = copy.deepcopy(model.state_dict())
    shrink(model, lost)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
