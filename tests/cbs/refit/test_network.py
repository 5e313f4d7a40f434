"""The network refit as users call it: after any mask, with masks kept, judged by samples held back."""

import copy
import math
import os
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.data import Samples
from cbs.network.surgery import clone
from cbs.refit import network as refitting
from cbs.refit.network import hold_back, matching, refit_network
from tests.cbs.networks import convnet, masked, mlp, residual, samples, seeded

IMAGES = samples(120, (2, 4, 6))
VECTORS = samples(120)
CASES = {"mlp": (mlp, VECTORS), "convnet": (convnet, IMAGES), "residual": (residual, IMAGES)}


@torch.no_grad()
def divergence(model, dense, data):
    p, q = (net(data.inputs.clone()).log_softmax(dim=1) for net in (dense, model))
    return float((p.exp() * (p - q)).sum(dim=1).mean())


@torch.no_grad()
def apart(model, dense, data):
    return 0.5 * float((model(data.inputs) - dense(data.inputs)).square().sum(dim=1).mean())


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_outputs_come_back_and_masks_stay(name, written, monkeypatch):
    make, data = CASES[name]
    if not written:
        monkeypatch.setattr(refitting, "MEMORY", 0)
    model, dense = masked(seeded(make), 0.3), seeded(make)
    before = copy.deepcopy(model.state_dict())
    found = refit_network(model, dense, data, steps=2, seed=1)
    fit, held = hold_back(data, 1)
    assert found.stats["solved_by"] == ("normal equations" if written else "conjugate gradients")
    assert (found.stats["fitted_on"], found.stats["held_back"]) == (len(fit), len(held)) == (88, 32)
    assert found.stats["moved"] > 0
    assert found.after < 0.5 * found.before
    assert found.after == pytest.approx(divergence(model, dense, held), rel=1e-9)
    step = found.steps[found.chosen - 1]
    assert step.held == found.after
    if found.chosen > found.stats.get("features", {"steps": 0})["steps"]:
        assert step.fit == pytest.approx(divergence(model, dense, fit), rel=1e-9)
    after = model.state_dict()
    for key, values in before.items():
        if key.endswith("_mask") or "running" in key or "tracked" in key:
            assert torch.equal(after[key], values), key
        elif key.endswith("_orig"):
            mask = before[key.removesuffix("_orig") + "_mask"]
            assert not bool(after[key][mask == 0].any())
            assert not torch.equal(after[key], values)
        else:
            assert not torch.equal(after[key], values), key
    assert not any(p.grad is not None for p in model.parameters())


def test_labels_overfit_and_the_samples_held_back_tell():
    """Labels that mean nothing: the fit goes on falling, and what was held back says so."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(130, 30, generator=generator)
    y = torch.randint(2, (130,), generator=generator)
    model = masked(seeded(mlp, sizes=(30, 10, 2), dtype=torch.float32), 0.1)
    found = refit_network(model, model, Samples(x, y), labels=True)
    assert found.stats["matched"] == "the loss on labels"
    last = found.steps[-1]
    assert last.fit < 0.85 * found.stats["fit_before"]
    assert last.held > found.after
    assert found.after <= found.before
    assert found.chosen < len(found.steps)
    assert found.why == "nothing more is gained on the samples held back"


def test_the_same_seed_gives_the_same_network():
    states = []
    for seed in (0, 0, 1):
        model = masked(seeded(residual), 0.3)
        torch.rand(1)
        refit_network(model, seeded(residual), IMAGES, seed=seed, steps=1)
        states.append(model.state_dict())
    same = [all(torch.equal(states[0][key], other[key]) for key in other) for other in states[1:]]
    assert same == [True, False]


def test_too_few_samples_take_a_careful_step_and_say_so():
    model, data = masked(seeded(mlp), 0.3), samples(95)
    with pytest.warns(
        cbs.RefitWarning, match="95 samples are too few to hold 32 back .* give 96 samples or more"
    ):
        found = refit_network(model, seeded(mlp), data)
    assert (len(found.steps), found.stats["held_back"], found.steps[0].held) == (1, 0, None)
    assert found.after < found.before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refit_network(masked(seeded(mlp), 0.3), seeded(mlp), samples(96)).stats["held_back"] == 32


def test_a_tenth_is_held_back_and_nothing_twice():
    data = Samples(torch.arange(1000.0)[:, None], torch.arange(1000))
    fit, held = hold_back(data, 3)
    assert (len(fit), len(held)) == (900, 100)
    assert sorted([*fit.targets.tolist(), *held.targets.tolist()]) == list(range(1000))
    assert not torch.equal(held.targets, hold_back(data, 4)[1].targets)


def test_a_network_whose_outputs_are_not_finite_is_left_as_it_is():
    model = masked(seeded(mlp), 0.3)
    with torch.no_grad():
        model[4].bias[0] = math.inf
    before = copy.deepcopy(model.state_dict())
    with pytest.warns(
        cbs.RefitWarning, match="is left out: the divergence of the pruned network's outputs is"
    ):
        found = refit_network(model, seeded(mlp), samples(120))
    assert (found.chosen, found.why) == (0, "the divergence is not finite at first")
    assert all(torch.equal(values, before[key]) for key, values in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refitted_in_single(dtype):
    data = Samples(VECTORS.inputs.to(dtype), VECTORS.targets)
    model, dense = masked(seeded(mlp, dtype=dtype), 0.3), seeded(mlp, dtype=dtype)
    found = refit_network(model, dense, data, steps=3)
    assert found.after < 0.3 * found.before
    assert model[0].weight_orig.dtype == dtype
    assert divergence(clone(model).float(), clone(dense).float(), VECTORS_SINGLE) < 0.5 * found.before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_is_told_of_half_precision_is_of_the_weights_as_they_are_kept(dtype):
    data = Samples(VECTORS.inputs.to(dtype), VECTORS.targets)
    dense, (_, held) = seeded(mlp, dtype=dtype), hold_back(data, 0)
    for share in (0.3, 0.0):  # without a mask there is less to gain than rounding costs
        model = masked(seeded(mlp, dtype=dtype), share)
        kept = copy.deepcopy(model.state_dict())
        found = refit_network(model, dense, data, steps=3)
        with torch.no_grad():
            p = dense(held.inputs).double().log_softmax(dim=1)
            q = clone(model).float()(held.inputs.float()).double().log_softmax(dim=1)
        assert found.after == pytest.approx(float((p.exp() * (p - q)).sum(dim=1).mean()), rel=1e-3)
        assert found.after <= found.before
        assert bool(found.chosen) == bool(share)
        if not found.chosen:
            assert all(torch.equal(values, kept[key]) for key, values in model.state_dict().items())


VECTORS_SINGLE = Samples(VECTORS.inputs.float(), VECTORS.targets)


def test_what_is_matched_can_be_said():
    data = Samples(VECTORS.inputs, VECTORS.inputs[:, :3])
    model, dense = masked(seeded(mlp), 0.3), seeded(mlp)
    before = apart(model, dense, data)
    found = refit_network(model, dense, data, loss="mse_loss", steps=3)
    assert found.stats["matched"] == "half the squared distance of the outputs"
    assert apart(model, dense, data) < 0.3 * before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "poisson_nll_loss"}, r"^match must be given for loss poisson_nll_loss"),
        ({"loss": "nonsense"}, r"^unknown loss"),
        ({"layers": ["1"]}, r"^layers: '1' has no mask"),
    ],
)
def test_what_can_not_be_done_is_refused_before_anything_moves(options, words):
    model = masked(seeded(mlp))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=words):
        refit_network(model, seeded(mlp), VECTORS, **options)
    assert all(torch.equal(values, before[key]) for key, values in model.state_dict().items())
    with pytest.raises(ValueError, match=r"^model has no masks"):
        refit_network(seeded(mlp), seeded(mlp), VECTORS)


def test_time_that_is_up_leaves_everything():
    model = masked(seeded(mlp))
    before = copy.deepcopy(model.state_dict())
    found = refit_network(model, seeded(mlp), VECTORS, until=-math.inf)
    assert (found.chosen, found.why) == (0, "time limit")
    assert all(torch.equal(values, before[key]) for key, values in model.state_dict().items())


def test_several_places_of_a_sample_are_matched_one_by_one():
    class Places(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, x):
            return self.last(self.norm(self.first(x).tanh())).transpose(1, 2)

    x = torch.randn(120, 5, 6, generator=torch.Generator().manual_seed(0))
    data = Samples(x, torch.zeros(120, 5, dtype=torch.long))
    model, dense = masked(seeded(Places), 0.3), seeded(Places)
    found = refit_network(model, dense, data, steps=3)
    assert found.after < 0.3 * found.before
    assert type(matching(dense, data, F.cross_entropy)).__name__ == "Probabilities"


@pytest.mark.slow
def test_mnist_gains_what_was_measured_before():
    folder = os.environ.get("CBS_DATA")
    if folder is None:
        pytest.skip("CBS_DATA names no folder with MNIST and MLPNet's weights")
    dense, split = cbs.mlpnet(f"{folder}/mlpnet_93.97.npz"), cbs.mnist(folder)
    result = cbs.prune(
        dense, split.train, sparsity=0.98, samples=10_000, refit="network", certify=False, patience=5.0,
        test=split.test,
    )  # fmt: skip
    (stage,) = result.history
    assert stage.refit["solved_by"] == "normal equations"
    assert stage.test_pruned.accuracy < 0.885
    assert result.test_after.accuracy > 0.90
    assert stage.refitted_divergence < 0.6 * stage.divergence
    assert np.isclose(result.sparsity, 0.98, atol=1e-4)
