"""Norms before a refit are recomputed where the network's outputs come nearer by it, and only there."""

import copy

import pytest
import torch
from torch.nn import functional as F

import cbs
from cbs.network.network import Network
from cbs.network.norms import recompute_norms
from cbs.refit import norms
from cbs.request import Request
from tests.cbs.networks import convnet, samples, seeded


def divergence(model, dense, x):
    with torch.no_grad():
        p, q = (F.log_softmax(net.eval()(x), dim=1) for net in (dense, model))
        return float((p.exp() * (p - q)).sum(dim=1).mean())


@pytest.fixture
def network():
    return Network(seeded(convnet), samples(80, (2, 4, 6)))


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_they_are_recomputed_exactly_where_the_divergence_falls(network, scale):
    """Layers that lost most of their size gain by it; norms that were fitted well, then bent, do not."""
    model, x = copy.deepcopy(network.model), network.samples.inputs
    with torch.no_grad():
        model[0].weight.mul_(scale)
        if scale == 1:
            model[0].weight[0] = 0
            model[3].weight.add_(0.01)
    before = copy.deepcopy(model.state_dict())
    changed = copy.deepcopy(model)
    recompute_norms(changed, network.samples, network.model)
    falls = divergence(changed, network.model, x) < divergence(model, network.model, x)
    found = norms.renormed(model, network, Request(0.5, refit="network"))
    assert found == (["1"] if falls else [])
    kept = changed.state_dict() if falls else before
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_what_is_no_better_or_interrupted_is_put_back(network, monkeypatch):
    model = copy.deepcopy(network.model)
    before = copy.deepcopy(model.state_dict())
    assert norms.renormed(model, network, Request(0.5, refit="network")) == []
    calls = []

    def interrupts(*_):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return 1.0

    monkeypatch.setattr(norms, "_distance", interrupts)
    with torch.no_grad():
        model[0].weight.mul_(0.3)
        before["0.weight"].mul_(0.3)
    with pytest.raises(KeyboardInterrupt):
        norms.renormed(model, network, Request(0.5, refit="network"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_pruning_with_a_refit_says_what_it_recomputed(monkeypatch):
    data = samples(120, (2, 4, 6))
    options = {"sparsity": 0.7, "method": "magnitude", "certify": False, "refit": "network"}
    for better in (True, False):
        seen = []
        values = iter([1.0, 0.5 if better else 1.5])
        monkeypatch.setattr(
            norms, "_distance", lambda *_, values=values, seen=seen: seen.append(1) or next(values)
        )
        result = cbs.prune(seeded(convnet), data, **options)
        assert result.history[0].norms == (["1"] if better else [])
        assert len(seen) == 2
        changed = not torch.equal(result.model[1].running_mean, seeded(convnet)[1].running_mean)
        assert changed == better
        assert torch.equal(result.undo()[1].running_mean, seeded(convnet)[1].running_mean)
    for asked in (True, False):
        result = cbs.prune(seeded(convnet), data, norms=asked, **options)
        assert result.history[0].norms == (["1"] if asked else [])
    assert len(seen) == 2
