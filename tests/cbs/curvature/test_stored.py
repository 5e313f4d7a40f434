"""Grams that are computed some layers at a time and kept on disk."""

import numpy as np
import pytest
import torch
from torch import nn

import cbs
from cbs.curvature import Gram, gram
from cbs.curvature.stored import OneByOne, blocks
from cbs.network.network import Network


def network():
    torch.manual_seed(0)
    parts = [nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 9), nn.Tanh(), nn.Linear(9, 4)]
    return nn.Sequential(*parts)


def data():
    torch.manual_seed(1)
    return torch.randn(40, 1, 6, 6), torch.arange(40) % 4


@pytest.fixture
def on_disk(monkeypatch):
    monkeypatch.setattr(gram, "SHARE", 1e-9)  # not even one layer fits


def test_blocks_hold_neighbours_that_fit():
    assert list(blocks([3, 1, 1, 9, 2, 2], 5)) == [[0, 1, 2], [3], [4, 5]]
    assert list(blocks([], 5)) == []


def test_models_are_those_that_are_kept_in_memory(monkeypatch):
    kept = Network(network(), data())(Gram())
    monkeypatch.setattr(gram, "SHARE", 1e-9)
    stored = Network(network(), data())(Gram())
    assert isinstance(kept, list)
    assert isinstance(stored, OneByOne)
    assert len(stored) == 3
    for one, other in zip(kept, stored, strict=True):
        assert one.name == other.name
        np.testing.assert_allclose(other.H, one.H, rtol=1e-14)
    assert stored[1] is not stored[1]
    assert [model.name for model in stored[1:]] == ["3", "5"]


@pytest.mark.parametrize(
    "options",
    [
        {"method": "joint"},
        {"method": "joint", "scope": "row"},
        {"method": "wanda"},
        {"method": "joint", "pipeline": "sequential", "scope": "layer"},
        {"method": "obc", "refit": "layer"},
        {"method": "magnitude", "stages": 2},
        {"method": "joint", "stages": 2, "scope": "layer", "certify": False},
        {"method": "neuron-joint"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_prunings_are_those_of_grams_in_memory(options, monkeypatch):
    asked = {"sparsity": 0.5, "solver": "greedy"} | options
    known = cbs.prune(network(), data(), **asked)
    monkeypatch.setattr(gram, "SHARE", 1e-9)
    found = cbs.prune(network(), data(), **asked)
    assert found.value == pytest.approx(known.value, rel=1e-9)
    assert (found.bound is None) == (known.bound is None)
    for name, mask in known.masks.items():
        assert bool((found.masks[name] == mask).all()), name


def test_files_go_with_the_network(on_disk, tmp_path, monkeypatch):
    import gc
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dense = Network(network(), data())
    assert dense(Gram())[0].H.shape == (10, 10)
    assert len(list(tmp_path.glob("cbs-grams-*/*.npy"))) == 3
    del dense
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_layer_too_wide_for_the_limit_is_refused_in_one_line():
    model = nn.Sequential(nn.Linear(700, 2))
    with pytest.raises(ValueError, match=r"^layer '0' has 700 inputs, and 5 matrices.*`layers`$"):
        cbs.prune(model, (torch.randn(8, 700), torch.arange(8) % 2), sparsity=0.5, memory=1 / 64)
