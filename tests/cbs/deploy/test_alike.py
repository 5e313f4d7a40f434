import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cbs.deploy.alike import difference


class Kept:
    def __init__(self, size):
        self.size = size


class Slotted:
    __slots__ = ("size",)

    def __init__(self, size):
        self.size = size


def scaled(by):
    return lambda x: x * by


class Holder(nn.Module):
    """A network with things in attributes that no state dict has."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("scale", torch.ones(2), persistent=False)
        self.act, self.times, self.late = F.relu, scaled(2.0), functools.partial(F.softplus, beta=2)
        self.mean, self.table = torch.tensor([1.0, float("nan")]), np.arange(3.0)
        self.settings = {"sizes": [1, (2.0, None)], "kind": torch.float32}
        self.kept, self.slotted, self.private, self._private = Kept(3), Slotted(3), "a", 1.5
        self.unregistered = [nn.Linear(2, 2)]
        nn.init.ones_(self.unregistered[0].weight)
        nn.init.ones_(self.unregistered[0].bias)
        self.circle = [self, self.settings]
        self.bound = self.shifted

    def shifted(self, x):
        return x + 1


def put(name, value):
    return lambda model: setattr(model, name, value)


CHANGES = {
    "scale": lambda model: model.scale.fill_(3.0),
    "act": put("act", torch.tanh),
    "times": put("times", scaled(3.0)),
    "late": put("late", functools.partial(F.softplus, beta=3)),
    "mean": put("mean", torch.tensor([2.0, float("nan")])),
    "table": lambda model: model.table.fill(0),
    "settings": lambda model: model.settings["sizes"].append(1),
    "kept": lambda model: setattr(model.kept, "size", 4),
    "slotted": lambda model: setattr(model.slotted, "size", 4),
    "_private": put("_private", 1.0),
    "unregistered": lambda model: model.unregistered[0].weight.data.zero_(),
    "forward": put("forward", lambda x: x),
    "added": put("added", None),
    "bound": put("bound", scaled(1.0)),
}


def test_networks_made_alike_differ_in_nothing():
    assert difference(Holder(), Holder()) is None
    assert difference(nn.LSTM(3, 4, bidirectional=True), nn.LSTM(3, 4, bidirectional=True)) is None


@pytest.mark.parametrize("name", CHANGES)
def test_what_no_state_dict_has_is_seen(name):
    changed = Holder()
    CHANGES[name](changed)
    assert difference(changed, Holder()) == f"the network has another {name}"
    assert difference(Holder(), changed) == f"the network has another {name}"


def test_hooks_are_compared_with_what_they_hold():
    def hooked(by):
        model = nn.Linear(3, 2)
        model.register_forward_hook(lambda module, args, output: output * by)
        return model

    assert difference(hooked(2.0), hooked(2.0)) is None
    assert difference(hooked(2.0), hooked(3.0)) == "the network has other hooks"
    assert difference(hooked(2.0), nn.Linear(3, 2)) == "the network has other hooks"
