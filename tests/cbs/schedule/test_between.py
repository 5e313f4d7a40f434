"""What the next stage is held against."""

from dataclasses import replace

import pytest
from torch.nn import functional as F

from cbs.network.network import Network
from cbs.refit.divergence import Probabilities
from cbs.request import Request
from cbs.schedule.between import stage_network
from tests.cbs.networks import mlp, samples, seeded


@pytest.mark.parametrize(
    ("options", "referred", "refitted"),
    [
        ({}, True, False),
        ({"refit": "layer"}, True, False),
        ({"refit": "network"}, True, True),
        ({"finetune": 1}, False, False),
        ({"finetune": 1, "refit": "network"}, True, True),
    ],
)
def test_a_stage_is_held_against_the_dense_network_unless_labels_trained_it(options, referred, refitted):
    dense = Network(seeded(mlp), samples(40), loss=F.cross_entropy)
    dense.hold_out(samples(10))
    network = stage_network(seeded(mlp, seed=1), dense, Request(0.5, stages=2, **options))
    assert network.test_before is not None
    assert (network.reference is not None) == referred
    if referred:
        assert network.reference.network is dense
        assert network.reference.refitted == refitted
        assert isinstance(network.reference.divergence, Probabilities)


def test_without_a_refit_a_loss_of_ones_own_has_no_divergence():
    def loss(outputs, targets):
        return F.cross_entropy(outputs, targets)

    dense = Network(seeded(mlp), samples(40), loss=loss)
    request = Request(0.5, stages=2, loss=loss)
    assert stage_network(seeded(mlp), dense, request).reference.divergence is None
    with pytest.raises(ValueError, match="match must be given for loss"):
        stage_network(seeded(mlp), dense, replace(request, refit="network"))
    request = replace(request, refit="network", match="probabilities")
    assert stage_network(seeded(mlp), dense, request).reference.divergence is not None
