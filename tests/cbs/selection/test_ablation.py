"""Measured importances: against networks in which the weight is really taken away."""

import numpy as np
import pytest
import torch
from torch import nn

import cbs
from cbs.curvature import Gram, OutputDiagonal, OutputGram
from cbs.network.network import Network
from cbs.references import References
from cbs.request import Request
from cbs.selection import Job, ablation
from cbs.selection.ablation import ablation_scores
from cbs.watch import Watch
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


class Residual(nn.Module):
    """No chain: a layer around which its input passes, and one on positions."""

    def __init__(self):
        super().__init__()
        self.each, self.fc, self.out = nn.Linear(2, 2), nn.Linear(6, 6), nn.Linear(6, 3, bias=False)

    def forward(self, x):
        """Outputs `[N, 3]`."""
        h = torch.tanh(self.each(x.reshape(-1, 3, 2))).flatten(1)
        return self.out(h + torch.relu(self.fc(h)))


def prelu():
    parts = nn.Sequential(nn.Linear(6, 5), nn.PReLU()), nn.Linear(5, 3)
    return nn.Sequential(*parts).double().eval()


def job_of(model, data, callback=None, **options):
    network = Network(model, data)
    request = Request(0.5, method="elimination-nonlinear", **options)
    watch = Watch("elimination-nonlinear", request, len(network.layers), callback)
    watch.resume()
    curvature = Gram().damped(network.damping)
    return Job(network, curvature, request, watch, References(network), np.random.default_rng(0))


def brute_force(network, index):
    """Every weight of a layer taken away in turn, its bias shifted by hand."""
    layer, x = network.layers[index], network.samples.inputs
    seen = []
    handle = layer.module.register_forward_hook(lambda module, args, out: seen.append(args[0].clone()))
    with torch.no_grad():
        y = network.model(x)
        handle.remove()
        mean = torch.cat([layer.unfold(x) for x in seen]).mean(dim=0)
        W, b = layer.module.weight, layer.module.bias
        (m, n), found = layer.shape, np.zeros(layer.shape)
        for i in range(m):
            for j in range(n):
                flat = W.view(m, n)
                w = flat[i, j].clone()
                flat[i, j] = 0.0
                if b is not None:
                    b[i] += w * mean[j]
                found[i, j] = 0.5 * (network.model(x) - y).square().flatten(1).sum(dim=1).mean()
                flat[i, j] = w
                if b is not None:
                    b[i] -= w * mean[j]
    return found


class Twice(nn.Module):
    """A layer that runs twice a pass, the first time on inputs of which one is constant."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        """Outputs `[N, 3]`."""
        first = torch.cat([x[:, :5], torch.ones_like(x[:, :1])], dim=1)
        return self.out(torch.tanh(self.fc(torch.tanh(self.fc(first)))))


CASES = {
    "run twice": (lambda: Twice().double().eval(), {}, samples(20)),
    "mlp": (mlp, {}, samples(30)),
    "without biases": (mlp, {"bias": False}, samples(30)),
    "nested chain with prelu": (prelu, {}, samples(30)),
    "cnn with batch norm": (convnet, {}, image_samples(9)),
    "no chain": (lambda: Residual().double().eval(), {}, samples(20)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_weight_is_measured_as_if_it_were_gone(case):
    make, options, data = CASES[case]
    job = job_of(seeded(make, **options), data)
    for i, model in enumerate(job.quadratics):
        found, expected = ablation_scores(job, model), brute_force(job.network, i)
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12 * expected.max())
        assert ablation_scores(job, model) is found  # measured once


@pytest.mark.parametrize(
    "curvature", [Gram(0.3), OutputGram(), OutputGram(0.0), OutputDiagonal()], ids=lambda each: each.words
)
def test_what_is_measured_does_not_depend_on_the_curvature(curvature):
    model, data = seeded(mlp), samples(30)
    plain = job_of(model, data)
    job = job_of(model, data)
    job.curvature = curvature.damped(job.network.damping)
    for of_gram, other in zip(plain.quadratics, job.quadratics, strict=True):
        np.testing.assert_allclose(ablation_scores(job, other), ablation_scores(plain, of_gram), rtol=1e-9)
    method = cbs.Method(curvature, cbs.Scores("ablation"), cbs.OwnBias())
    result = cbs.prune(model, data, method=method, sparsity=0.5, scope="layer", certify=False)
    masks = cbs.prune(
        model, data, method="elimination-nonlinear", sparsity=0.5, scope="layer", certify=False
    ).masks
    assert all((result.masks[name] == mask).all() for name, mask in masks.items())


@pytest.mark.parametrize("make", [mlp, convnet])
def test_layers_of_which_no_weight_matters_are_free(make):
    data = samples(30) if make is mlp else image_samples(9)
    model = seeded(make)
    model[0].weight.data.zero_()
    job = job_of(model, data)
    assert not ablation_scores(job, job.quadratics[0]).any()
    lone = cbs.prune(seeded(mlp), samples(30), sparsity=0.5, method="elimination-nonlinear", samples=1)
    assert lone.loss_increase == pytest.approx(0.0, abs=1e-9)


def test_many_copies_in_small_parts_are_the_same(monkeypatch):
    model, data = seeded(mlp), samples(30)
    job = job_of(model, data)
    whole = ablation_scores(job, job.quadratics[0])
    monkeypatch.setattr(ablation, "CHUNK", 200)
    parts = [(data.inputs[i : i + 7], data.targets[i : i + 7]) for i in range(0, 30, 7)]
    job = job_of(model, parts)
    np.testing.assert_allclose(ablation_scores(job, job.quadratics[0]), whole, rtol=1e-10)


def test_constant_inputs_and_weights_of_zero_cost_nothing_and_take_no_pass():
    model, data = seeded(mlp), samples(30)
    data.inputs[:, 1] = 0.7
    model[0].weight.data[2] = 0.0
    job = job_of(model, data)
    scores = ablation_scores(job, job.quadratics[0])
    assert (scores[:, 1] == 0).all()
    assert (scores[2] == 0).all()
    assert (np.delete(np.delete(scores, 1, axis=1), 2, axis=0) > 0).all()


def test_what_a_stopped_run_did_not_measure_is_estimated_to_first_order(monkeypatch):
    monkeypatch.setattr(ablation, "CHUNK", 1)
    monkeypatch.setattr(ablation, "HEARTBEAT", 0.0)
    told = []
    job = job_of(seeded(mlp), samples(30), callback=lambda step: told.append(step) or len(told) == 6)
    expected = brute_force(job.network, 0)
    scores = ablation_scores(job, job.quadratics[0])
    assert [step.stage for step in told if step.stage == "select"]
    linear = 0.5 * job.network(OutputDiagonal())[0].diagonal * job.network.dense[0].W ** 2
    measured = job.stats["ablation"]["measured"]
    assert 0 < measured < scores.size
    np.testing.assert_allclose(scores.ravel()[:measured], expected.ravel()[:measured], rtol=1e-7)
    np.testing.assert_allclose(scores.ravel()[measured:], linear.ravel()[measured:], rtol=1e-12)


def test_a_time_limit_that_is_up_leaves_the_linear_rule():
    model, data = seeded(mlp), samples(30)
    cut = cbs.prune(model, data, sparsity=0.5, method="elimination-nonlinear", time_limit=1e-9, certify=False)
    linear = cbs.prune(model, data, sparsity=0.5, method="elimination", certify=False)
    for name, mask in linear.masks.items():
        assert (cut.masks[name] == mask).all()
    assert cut.history[0].stats["ablation"]["measured"] == 0


def test_networks_too_large_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(ablation, "LIMIT", 1e3)
    with pytest.raises(
        ValueError, match="'elimination-nonlinear' takes a pass over the data for each of"
    ) as error:
        cbs.prune(seeded(mlp), samples(30), sparsity=0.5, method="elimination-nonlinear")
    assert "\n" not in str(error.value)


def test_a_network_that_mixes_samples_into_positions_is_refused():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 3)

        def forward(self, x):
            return self.fc(x.reshape(-1, 2)).reshape(len(x), -1)

    job = job_of(seeded(Flat).double().eval(), samples(10))
    with pytest.raises(ValueError, match=r"layer 'fc' has inputs of shape \[30, 2\] in a batch of 10"):
        ablation_scores(job, job.quadratics[0])


def test_networks_of_half_precision_are_measured_in_single():
    model, data = seeded(mlp), samples(30)
    job = job_of(model.bfloat16(), (data.inputs.bfloat16(), data.targets))
    wide = job_of(model.double(), (data.inputs.bfloat16().double(), data.targets))
    found, expected = (ablation_scores(j, j.quadratics[0]) for j in (job, wide))
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=1e-3 * expected.max())


def test_sequential_is_refused():
    with pytest.raises(ValueError, match="measures weights in the dense network"):
        cbs.prune(
            seeded(mlp), samples(30), sparsity=0.5, method="elimination-nonlinear", pipeline="sequential"
        )
