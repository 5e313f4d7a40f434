import pytest
import torch
from torch import nn

import cbs
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

WEIGHTS = [name for name, facts in cbs.methods().items() if "weights" in facts["granularity"]]

DATA = {mlp: samples(40), convnet: image_samples(10)}


@pytest.mark.parametrize("how", ["weights", "inputs"])
def test_a_value_that_running_the_layer_contradicts_is_an_error(monkeypatch, how):
    """As a layer would be that passed every check and yet computes something else."""
    if how == "weights":
        plain = nn.Linear.forward
        monkeypatch.setattr("cbs.network.network.misbehaving", lambda *args: {})
        monkeypatch.setattr(nn.Linear, "forward", lambda self, x: 1.01 * plain(self, x))
    else:
        plain = cbs.network.layers.Layer.augmented
        monkeypatch.setattr("cbs.network.layers.Layer.augmented", lambda self, x: 1.01 * plain(self, x))
    with pytest.raises(ValueError, match="layer '0' does not do what its weights say") as error:
        cbs.prune(seeded(mlp), samples(), sparsity=0.5, method="joint", solver="greedy", certify=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [mlp, convnet])
@pytest.mark.parametrize("scope", ["layer", "network"])
def test_without_a_gram_the_value_is_the_measured_one(make, scope, monkeypatch):
    ask = {"sparsity": 0.5, "method": "magnitude", "scope": scope}
    full = cbs.prune(seeded(make), DATA[make], certify=True, **ask)
    monkeypatch.setattr("cbs.curvature.gram.layer_grams", lambda *args: pytest.fail("a Gram was computed"))
    quick = cbs.prune(seeded(make), DATA[make], certify=False, **ask)
    assert quick.value == pytest.approx(full.value, rel=1e-9)
    for a, b in zip(quick.layers, full.layers, strict=True):
        assert a.value == a.measured == pytest.approx(b.value, rel=1e-9)
        assert a.damping == pytest.approx(b.damping, rel=1e-12)
        assert [row.value for row in a.rows] == pytest.approx([row.value for row in b.rows], rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("make", [mlp, convnet])
def test_values_are_those_of_the_weights_as_they_are_stored(make, dtype):
    model = seeded(make).to(dtype)
    data = cbs.Samples(DATA[make].inputs.to(dtype), DATA[make].targets)
    result = cbs.prune(model, data, sparsity=0.5, method="joint", solver="greedy", certify=False)
    for layer in result.layers:
        assert layer.measured == pytest.approx(layer.value, rel=1e-9)
    assert {p.dtype for p in result.permanent().parameters()} == {dtype}


def test_a_layer_by_itself_is_a_network():
    model, data = seeded(nn.Linear, in_features=6, out_features=3).double(), samples()
    for method in WEIGHTS:
        result = cbs.prune(model, data, sparsity=0.5, method=method, solver="auto", certify=False)
        assert list(result.masks) == [""]
        assert result.permanent().weight.eq(0).sum() == 9
