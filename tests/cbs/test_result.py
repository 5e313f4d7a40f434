"""What is printed of a pruning: a few lines, without its model or any tensor."""

import math

import torch
from torch import nn

import cbs


def network(layers):
    torch.manual_seed(0)
    stack = [module for _ in range(layers) for module in (nn.Linear(6, 6), nn.ReLU())]
    return nn.Sequential(*stack, nn.Linear(6, 3)).eval()


def data(size=40):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 6, generator=generator), torch.randint(0, 3, (size,), generator=generator)


def test_a_result_is_a_few_lines():
    result = cbs.prune(network(2), data(), method="joint", sparsity=0.5, scope="row", test=data(10))
    text = repr(result)
    assert text == str(result)
    head, losses, objective, *layers = text.splitlines()
    assert head == "PruneResult: joint, 50.0% pruned, scope row: optimal"
    before, after = result.test_before.accuracy, result.test_after.accuracy
    assert f"accuracy {before:.2%} -> {after:.2%} on test data, loss {result.before.loss:.4f} -> " in losses
    assert f"value {result.value:.7g}, bound {result.bound:.7g}" in objective
    assert [line.split()[0] for line in layers] == ["0", "2", "4"]
    assert f"18 of 36 kept, value {result.layers[0].value:.7g}" in layers[0]
    assert "tensor" not in text
    assert "Linear(" not in text
    assert len(text) < 600
    assert repr(result.layers[0]).startswith("LayerResult 0 [6, 6]: 18 of 36 kept, value ")
    assert len(repr(result.layers[0])) < 200


def test_many_layers_are_cut_and_what_is_not_known_is_called_so():
    result = cbs.prune(network(20), data(), method="magnitude", sparsity=0.5, certify=False)
    assert result.bound is None
    text = repr(result)
    assert "bound unknown, gap unknown" in text
    assert "on calibration data, loss" in text
    assert text.splitlines()[-1] == "  ... and 10 more"
    assert len(text.splitlines()) == 15


def test_a_pattern_is_named():
    result = cbs.prune(network(1), data(), method="magnitude", budget="1:3", certify=False)
    assert "budget 1:3" in repr(result).splitlines()[0]


def test_data_shows_its_shapes():
    samples = cbs.Samples(*data())
    assert repr(samples) == "Samples(40: inputs [40, 6], targets [40])"
    assert math.isclose(len(repr(cbs.Split(samples, samples))), 2 * len(repr(samples)), rel_tol=0.5)
