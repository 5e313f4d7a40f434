import pytest
import torch
from torch import nn

import cbs
from cbs.curvature.output import output_scales
from cbs.data import Samples
from cbs.network.distance import by_distance
from cbs.network.evaluate import evaluate
from cbs.network.layers import find_layers
from tests.cbs.networks import mlp, seeded

X = torch.randn(100, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_dense_network_is_at_0_and_one_that_says_nothing_at_1():
    net = seeded(mlp)
    loss, samples = by_distance(net, Samples(X))
    assert evaluate(net, samples, loss).loss == 0
    silent = seeded(mlp)
    nn.init.zeros_(silent[4].weight)
    nn.init.zeros_(silent[4].bias)
    found = evaluate(silent, samples, loss)
    assert found.loss == pytest.approx(1)
    assert found.measure == "distance of outputs"
    assert found.accuracy is None


def test_rows_of_the_last_layer_are_seen_alike():
    """An output's move counts `2 / scale` times its square, by any signs."""
    net = seeded(mlp)
    loss, samples = by_distance(net, Samples(X))
    layers = find_layers(net)
    scales = output_scales(net, layers, samples, loss)
    torch.testing.assert_close(scales["4"], torch.full((3,), 2 / loss.scale, dtype=torch.float64))


@pytest.mark.parametrize(
    "options",
    [
        {"method": "magnitude"},
        {"method": "obc", "scope": "row"},
        {"method": "obc"},
        {"method": "joint-loss"},
        {"method": "joint", "scope": "row", "refit": "network"},
        {"method": "magnitude", "finetune": 3},
        {"method": "magnitude", "stages": 2},
        {"method": "magnitude", "granularity": "neurons"},
    ],
)
def test_data_without_labels_prunes(options):
    result = cbs.prune(seeded(mlp), X, test=X[:30], sparsity=0.5, certify=False, time_limit=2, **options)
    assert result.before.loss == 0
    assert 0 < result.after.loss < 2
    assert 0 < result.test_after.loss < 2
    assert "distance of outputs 0.0000 -> " in repr(result)
    dense, pruned = (model(X).detach() for model in (seeded(mlp), result.permanent()))
    expected = float((dense - pruned).square().sum() / dense.square().sum())
    assert result.after.loss == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "obd"}, "method 'obd' needs labels, and the data has none; give .* cbs.unlabelled"),
        ({"method": "woodfisher"}, "method 'woodfisher' needs labels"),
        (
            {"method": "magnitude", "refit": "network", "labels": True},
            "labels=True is about the loss on labels",
        ),
    ],
)
def test_what_needs_labels_says_so_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        cbs.prune(seeded(mlp), X, sparsity=0.5, **options)
    assert "\n" not in str(error.value)


def test_labels_for_tests_alone_are_refused():
    with pytest.raises(ValueError, match="test has no labels, and the calibration data has"):
        cbs.prune(seeded(mlp), (X, torch.zeros(100).long()), test=X, sparsity=0.5, method="magnitude")


def test_outputs_of_nothing_are_refused():
    net = seeded(mlp)
    nn.init.zeros_(net[4].weight)
    nn.init.zeros_(net[4].bias)
    with pytest.raises(ValueError, match="the model's outputs on it are zero"):
        cbs.prune(net, X, sparsity=0.5, method="magnitude")
