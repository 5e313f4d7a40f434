import json
import math

import pytest
import torch
from torch import nn

import cbs
from cbs.network.surgery import clone
from tests.cbs.diagnosis.test_damage import CASES, pruned
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def outputs(model, x):
    """Outputs of every leaf module by name, by hand."""
    found = {}
    handles = [
        module.register_forward_hook(lambda m, a, y, name=name: found.__setitem__(name, y.clone()))
        for name, module in model.named_modules()
        if not any(module.children())
    ]
    with torch.no_grad():
        model.eval()(x.clone())
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("case", CASES)
def test_errors_are_those_of_the_modules_outputs(case):
    make, data = CASES[case]
    result = pruned(make, data)
    found = cbs.trace(result, cbs.Samples(data.inputs, data.targets, 7))
    dense, after = outputs(result.undo(), data.inputs), outputs(result.permanent(), data.inputs)
    assert [module.name for module in found.modules] == [*dense]
    for module in found.modules:
        y, z = dense[module.name], after[module.name]
        assert module.error == pytest.approx(float((z - y).norm() / y.norm()), rel=1e-9)
        if module.error:
            assert module.snr == pytest.approx(-20 * math.log10(module.error))
        assert module.differs == (module.name in result.masks)
    assert found.output == pytest.approx(found.modules[-1].error)
    assert found.left_out == {}
    assert found.samples == len(data)


def test_a_planted_collapse_is_found_where_it_begins():
    data = CASES["residual"][1]
    result = pruned(CASES["residual"][0], data, sparsity=0.02)
    assert cbs.trace(result, data).collapse is None
    ruined = clone(result.model)
    with torch.no_grad():
        ruined.norm1.weight.mul_(-1)
    found = cbs.trace(ruined, data, dense=result.undo())
    assert found.collapse.name == "norm1"
    assert found.collapse.error > 1
    assert "reaches 1 first at 'norm1' (BatchNorm2d" in found.verdict
    assert [m.name for m in found.modules if m.differs] == ["conv1", "norm1", "conv2"]


def test_dead_outputs_and_drifting_norms_are_counted():
    model, data = seeded(convnet), image_samples(30)
    with torch.no_grad():
        x = model[0](data.inputs)
        model[1].running_mean.copy_(x.mean(dim=(0, 2, 3)))
        model[1].running_var.copy_(x.var(dim=(0, 2, 3), unbiased=False))
    other = clone(model)
    with torch.no_grad():
        other[0].weight[1] = 0  # a constant output
        other[0].bias[2] += 3 * float(x[:, 2].std())
        other[1].bias[0] = -100  # a ReLU that never fires
    found = {module.name: module for module in cbs.trace(other, data, dense=model).modules}
    assert (found["0"].dead, found["0"].dead_before, found["0"].channels) == (1, 0, 3)
    assert (found["1"].dead, found["2"].dead) == (1, 2)
    with torch.no_grad():
        scale = (model[1].running_var + model[1].eps).sqrt()
        u = other[0](data.inputs)
        off = (u.mean(dim=(0, 2, 3)) - model[1].running_mean) / scale
        ratio = (u.var(dim=(0, 2, 3), unbiased=False) + model[1].eps).sqrt() / scale
    assert found["1"].drift == pytest.approx(float(off.square().mean().sqrt()), rel=1e-6)
    assert found["1"].drift_before == pytest.approx(0, abs=1e-6)
    assert found["1"].spread == pytest.approx(float(ratio.log().mean().exp()), rel=1e-3)
    assert found["0"].drift is None
    assert "drift" in cbs.trace(other, data, dense=model).table()[0]


class Choosing(nn.Module):
    """A module that runs twice, one that never does, and one that gives a tuple."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.twice = nn.Linear(4, 4)
        self.never = nn.Linear(4, 4)

    def forward(self, x):
        y, _ = self.gru(x)
        return self.twice(torch.tanh(self.twice(y[:, -1])))


def test_modules_that_run_otherwise_are_told():
    model = seeded(Choosing).eval()
    other = clone(model)
    with torch.no_grad():
        other.gru.weight_hh_l0[::2] = 0
        other.twice.weight[0] = 0
    found = cbs.trace(other, (torch.randn(9, 5, 4),), dense=model)
    assert [module.name for module in found.modules] == ["gru", "twice"]
    assert found.left_out == {"never": "it did not run as a module"}
    assert 0 < found.modules[0].error < found.modules[1].error


def test_it_stops_and_can_be_kept():
    result = pruned(mlp, samples(60))
    data = cbs.Samples(samples(60).inputs, None, 20)
    found = cbs.trace(result, data, callback=lambda step: step.index == 2)
    assert (found.status, found.samples) == ("interrupted", 40)
    assert found.output == pytest.approx(cbs.trace(result, data.few(40)).output)
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["modules"][0]["name"] == "0"
    assert record["verdict"] == found.verdict
    assert repr(found).splitlines()[0].split() == ["module", "kind", "error", "SNR", "dB", "dead", "before"]


def test_an_output_that_was_zero_has_an_infinite_error():
    model = seeded(mlp)
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.zero_()
    other = clone(model)
    with torch.no_grad():
        other[0].bias += 1
    found = cbs.trace(other, samples(10), dense=model)
    assert found.modules[0].error == math.inf
    assert found.modules[0].snr == -math.inf
    assert found.collapse.name == "0"
    assert found.to_dict()["modules"][0]["error"] is None


def test_outputs_without_channels_have_one():
    """Networks and modules may answer with `[N]`, in batches of differing length too."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0))
    other = clone(model)
    with torch.no_grad():
        other[0].weight[0] = 0
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    found = cbs.trace(other, cbs.Samples(x, None, 4), dense=model)
    assert found.left_out == {}
    y, z = model(x).detach(), other(x).detach()
    assert found.output == pytest.approx(float((z - y).norm() / y.norm()))
    last = found.modules[-1]
    assert (last.name, last.channels) == ("3", 1)
