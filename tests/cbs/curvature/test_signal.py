"""Layers without derivatives: refused where the outputs depend on them, taken where they do not."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import cbs
from cbs.curvature import Fisher
from cbs.curvature.diagonal import network_diagonal
from cbs.curvature.output import row_scales
from cbs.network.network import Network
from tests.cbs.networks import samples, seeded

pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")


class Net(nn.Module):
    """Two layers, the first of which is run in some way."""

    def __init__(self, way):
        super().__init__()
        self.a, self.b, self.way = nn.Linear(6, 6).double(), nn.Linear(6, 3).double(), way

    def forward(self, x):
        return self.b(self.way(lambda z: self.a(z).tanh(), x))


def without_gradients(run, x):
    with torch.no_grad():
        return run(x)


def unused(run, x):
    run(x)
    return x


UNSEEN = {
    "no_grad": without_gradients,
    "detached": lambda run, x: run(x).detach(),
    "reentrant checkpoint": lambda run, x: checkpoint(run, x, use_reentrant=True),
}
FREE = {"unused": unused, "inactive": lambda run, x: x + (run(x) - 1000.0).relu()}


@pytest.mark.parametrize("way", UNSEEN)
def test_a_layer_that_matters_and_has_no_derivative_is_refused(way):
    model = seeded(lambda: Net(UNSEEN[way]))
    for method, scope in (("obd", "row"), ("cbs", "row"), ("joint", "network")):
        with pytest.raises(
            ValueError, match=r"layer 'a': outputs depend on its weights, .*`layers`"
        ) as error:
            cbs.prune(model, samples(), sparsity=0.5, method=method, scope=scope)
        assert "\n" not in str(error.value)
        cbs.prune(model, samples(), sparsity=0.5, method=method, scope=scope, layers=["b"])
    assert cbs.prune(model, samples(), sparsity=0.5, method="joint", scope="row").value > 0


@pytest.mark.parametrize("way", FREE)
def test_a_layer_that_does_not_matter_has_no_derivative(way):
    network = Network(seeded(lambda: Net(FREE[way])), samples())
    assert [bool(part.any()) for part in row_scales(network)] == [False, True]
    assert [bool(part.any()) for part in network_diagonal(network)] == [False, True]
    X = network(Fisher())[0].H.X
    assert [bool(part.any()) for part in (X[:, :36], X[:, 36:])] == [False, True]


def test_a_checkpoint_changes_no_derivative():
    plain = Network(seeded(lambda: Net(lambda run, x: run(x))), samples())
    found = Network(seeded(lambda: Net(lambda run, x: checkpoint(run, x, use_reentrant=False))), samples())
    for of in (row_scales, network_diagonal):
        for a, b in zip(of(plain), of(found), strict=True):
            assert a == pytest.approx(b, rel=1e-9)
    X, Y = (network(Fisher())[0].H.X for network in (plain, found))
    np.testing.assert_allclose(X, Y, rtol=1e-9, atol=1e-15)
