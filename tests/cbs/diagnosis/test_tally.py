import pytest
import torch
from torch.nn import functional as F

from cbs.diagnosis.tally import Tally, divergence_of
from cbs.network.evaluate import evaluate
from cbs.refit.divergence import Probabilities, Squares
from tests.cbs.networks import mlp, samples, seeded


def test_it_adds_up_to_an_evaluation():
    model, other, data = seeded(mlp), seeded(mlp, seed=1), samples(40)
    divergence = divergence_of(model, data, F.cross_entropy)
    assert isinstance(divergence, Probabilities)
    tally, dense = Tally(F.cross_entropy, divergence), Tally(F.cross_entropy, divergence)
    with torch.no_grad():
        for inputs, targets in data.batches(7):
            tally.add(other(inputs), targets, model(inputs))
            dense.add(model(inputs), targets, model(inputs))
        p, q = (m(data.inputs).log_softmax(dim=1) for m in (model, other))
    before, after = dense.effect(None), tally.effect(dense.effect(None))
    for effect, network in ((before, model), (after, other)):
        expected = evaluate(network, data, F.cross_entropy)
        assert effect.loss == pytest.approx(expected.loss, rel=1e-12)
        assert effect.accuracy == expected.accuracy
    assert before.loss_increase == before.divergence == 0.0
    assert after.loss_increase == pytest.approx(after.loss - before.loss)
    assert after.divergence == pytest.approx(float((p.exp() * (p - q)).sum(dim=1).mean()), rel=1e-12)


def test_where_no_divergence_goes_with_the_loss_it_is_the_squared_distance():
    model, other, data = seeded(mlp), seeded(mlp, seed=1), samples(40)
    divergence = divergence_of(model, data, lambda o, t: (o - t).abs().sum(dim=1))
    assert isinstance(divergence, Squares)
    tally = Tally(F.cross_entropy, divergence)
    with torch.no_grad():
        o, dense = other(data.inputs), model(data.inputs)
    tally.add(o, data.targets, dense)
    expected = float(0.5 * (o - dense).square().sum(dim=1).mean())
    assert tally.effect(None).divergence == pytest.approx(expected, rel=1e-12)
