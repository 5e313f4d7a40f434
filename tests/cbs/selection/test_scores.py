import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import cbs
from cbs.curvature.diagonal import network_diagonal
from cbs.curvature.output import row_scales
from cbs.network.network import Network
from cbs.selection import Job
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

ASK = {"certify": False, "damping": 0.01}


def pruned_by(result):
    return {name: mask.flatten(1).numpy() for name, mask in result.masks.items()}


def dense(model):
    return {
        name: module.weight.detach().flatten(1).numpy()
        for name, module in model.named_modules()
        if getattr(module, "weight", None) is not None and module.weight.ndim > 1
    }


@pytest.mark.parametrize(("make", "data"), [(mlp, samples()), (convnet, image_samples())])
def test_magnitude_prunes_the_smallest(make, data):
    model = seeded(make)
    W = dense(model)
    result = cbs.prune(model, data, sparsity=0.5, method="magnitude", scope="layer", **ASK)
    for name, mask in pruned_by(result).items():
        kept, gone = np.abs(W[name])[~mask], np.abs(W[name])[mask]
        assert gone.max() < kept.min()
        assert len(gone) == round(0.5 * mask.size)
    masks = pruned_by(cbs.prune(model, data, sparsity=0.5, method="magnitude", scope="network", **ASK))
    size = np.concatenate([np.abs(W[name]).ravel() for name in masks])
    gone = np.concatenate([mask.ravel() for mask in masks.values()])
    assert size[gone].max() < size[~gone].min()
    assert gone.sum() == round(0.5 * gone.size)


def test_random_masks_follow_the_seed():
    model, data = seeded(mlp), samples()
    runs = [cbs.prune(model, data, sparsity=0.5, method="random", seed=s, **ASK) for s in (0, 0, 1)]
    masks = [np.concatenate([m.ravel() for m in pruned_by(run).values()]) for run in runs]
    assert (masks[0] == masks[1]).all()
    assert (masks[0] != masks[2]).any()


def test_obd_saliency_is_half_h_w_squared():
    model, data = seeded(mlp), samples()
    result = cbs.prune(model, data, sparsity=0.5, method="obd", scope="network", **ASK)
    W, masks = dense(model), pruned_by(result)
    network = Network(model, data)
    saliency = {
        layer.name: 0.5 * h * W[layer.name] ** 2
        for layer, h in zip(network.layers, network_diagonal(network), strict=True)
    }
    s = np.concatenate([saliency[name].ravel() for name in masks])
    gone = np.concatenate([mask.ravel() for mask in masks.values()])
    assert s[gone].max() < s[~gone].min()
    assert result.measured.prediction == pytest.approx(s[gone].sum(), rel=1e-9)
    assert "Gauss-Newton" in result.measured.prediction_model


@pytest.mark.parametrize("method", ["magnitude", "random", "obd"])
def test_survivors_and_biases_stay(method):
    model, data = seeded(mlp), samples()
    result = cbs.prune(model, data, sparsity=0.5, method=method, **ASK)
    for name, mask in result.masks.items():
        before, after = model.get_submodule(name), result.model.get_submodule(name)
        assert (after.weight[~mask] == before.weight[~mask]).all()
        assert (after.bias == before.bias).all()
        assert float(after.weight[mask].abs().max().detach()) == 0


def grams(model, data):
    """Inputs of every layer of an MLP as rows, and their undamped second moments."""
    x, found = data.inputs, {}
    for name, module in model.named_children():
        if hasattr(module, "weight"):
            X = x.numpy()
            found[name] = X.T @ X / len(X), np.column_stack([X, np.ones(len(X))])
        x = module(x).detach()
    return found


@pytest.mark.parametrize("rule", ["wanda", "obd", "obs"])
def test_rules_on_the_gram_are_their_formulas(rule):
    """Only OBS, which takes the inverse with the bias, sees the damping."""
    model, data = seeded(mlp), samples()
    method = cbs.Method(cbs.Gram(), cbs.Scores(rule), cbs.Nothing())
    masks = pruned_by(cbs.prune(model, data, sparsity=0.5, method=method, scope="layer", **ASK))
    for name, (H, X) in grams(model, data).items():
        W, n = dense(model)[name], len(H)
        if rule == "obs":
            K = X.T @ X / len(X) + np.diag(np.append(np.full(n, 0.01 * np.diagonal(H).mean()), 0.0))
            scores = W**2 / np.diagonal(np.linalg.inv(K))[:n]
        else:
            scores = W**2 * np.diagonal(H)
        gone = masks[name]
        assert scores[gone].max() < scores[~gone].min()
        assert gone.sum() == round(0.5 * gone.size)


def test_a_networks_wanda_scores_are_scaled_by_what_each_row_matters_to_the_loss():
    model, data = seeded(mlp), samples()
    masks = pruned_by(cbs.prune(model, data, sparsity=0.5, method="wanda", scope="network", **ASK))
    scales = dict(zip(masks, row_scales(Network(model, data)), strict=True))
    W, moments = dense(model), grams(model, data)
    scores = {name: scales[name][:, None] * W[name] ** 2 * np.diagonal(moments[name][0]) for name in masks}
    s, gone = (np.concatenate([part[name].ravel() for name in masks]) for part in (scores, masks))
    assert s[gone].max() < s[~gone].min()
    assert gone.sum() == round(0.5 * gone.size)


@pytest.mark.filterwarnings("error")
def test_a_row_that_matters_nothing_to_the_loss_keeps_what_was_pruned_before_out():
    model, data = seeded(mlp), samples()
    *_, hidden, last = (module for module in model.modules() if hasattr(module, "weight"))
    torch.nn.init.zeros_(last.weight)  # no row before it matters
    prune.random_unstructured(hidden, "weight", amount=0.4)
    before = hidden.weight_mask == 0
    result = cbs.prune(model, data, sparsity=0.6, method="wanda", scope="network", **ASK)
    (name,) = (name for name, module in model.named_modules() if module is hidden)
    assert (result.masks[name] | ~before).all()


class Gated(nn.Module):
    """Channels that are added up, of which a map goes into a layer: every kind of row and column."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.head = (
            nn.Conv2d(2, 4, 3),
            nn.Conv2d(4, 4, 1, bias=False),
            nn.Linear(32, 3),
        )
        self.double().eval()

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        return self.head((x + self.inner(x)).flatten(1))


CURVATURES = {
    "magnitude": cbs.Identity(),
    "obd": cbs.GaussNewtonDiagonal(),
    "obs": cbs.Fisher(),
    "wanda": cbs.Gram(),
    "obd-gram": cbs.Gram(),
    "obs-gram": cbs.Gram(),
}


def one_by_one(name, network, models):
    """Scores `[m, n]` of every layer's weights, and `[m]` of its biases, from dense curvatures."""
    W, B = [dense.W for dense in network.dense], [dense.bias for dense in network.dense]
    none = [np.zeros(len(w)) for w in W]
    if name == "magnitude":
        return [w**2 for w in W], none
    if name == "obs":
        flat = np.concatenate([0.5 * model.W[0] ** 2 * invert(model) for model in models])
        parts = np.split(flat, np.cumsum([w.size for w in W])[:-1])
        return [part.reshape(w.shape) for part, w in zip(parts, W, strict=True)], none
    if name == "obd":
        return [0.5 * model.diagonal * w**2 for model, w in zip(models, W, strict=True)], none
    half = 1.0 if name == "wanda" else 0.5
    weights, biases = [], []
    for model, w, b, scale in zip(models, W, B, row_scales(network), strict=True):
        h = np.diagonal(model.H) - model.damping
        if name == "obs-gram":
            h = 1 / np.diagonal(np.linalg.inv(model.H))
        weights.append(scale[:, None] * half * h[: w.shape[1]] * w**2)
        counts = b is not None and name != "obs-gram"
        biases.append(scale * half * model.H[-1, -1] * b**2 if counts else np.zeros(len(w)))
    return weights, biases


@pytest.mark.parametrize("name", CURVATURES)
@pytest.mark.parametrize("scope", ["layer", "network"])
@pytest.mark.parametrize(
    ("make", "data"), [(mlp, samples()), (convnet, image_samples()), (Gated, image_samples())]
)
def test_a_neuron_scores_what_its_weights_do_one_by_one(name, scope, make, data):
    """By loops over single weights, each of which counts once."""
    curvature, rule = CURVATURES[name], name.removesuffix("-gram")
    method = cbs.Method(curvature, cbs.Scores(rule), cbs.Nothing(), name="scored")
    result = cbs.prune(
        seeded(make), data, sparsity=0.5, method=method, scope=scope, granularity="neurons", **ASK
    )
    network = Network(seeded(make), data, damping=0.01)
    asked = curvature.within(result.request).damped(0.01)
    single, bias = one_by_one(name, network, network(asked))
    job = Job(network, asked, result.request, None, None, np.random.default_rng(0))
    found = method.selection.neuron_scores(job, network.neurons)
    taken, left = [], []
    for group, lost, summed in zip(network.neurons, result.neurons, found, strict=True):
        scores = []
        for j in range(group.count):
            touched, total = set(), 0.0
            for i, layer in enumerate(network.layers):
                if layer.name in group.rows:
                    r = group.rows[layer.name][j]
                    touched |= {(i, r, c) for c in range(layer.shape[1])}
                    total += bias[i][r]
                if layer.name in group.columns:
                    at = group.columns[layer.name][j]
                    touched |= {(i, r, c) for r in range(layer.shape[0]) for c in at}
            scores.append(total + sum(single[i][r, c] for i, r, c in touched))
        np.testing.assert_allclose(summed, scores, rtol=1e-9)
        gone = np.isin(np.arange(group.count), lost.neurons)
        taken.append(np.array(scores)[gone])
        left.append(np.sort(np.array(scores)[~gone]))
    assert any(map(len, taken))
    if scope == "layer":
        assert all(a.max() < b[0] for a, b in zip(taken, left, strict=True))
    else:  # but for the best of each group, which stays whatever it scores
        assert max(np.concatenate(taken)) < min(np.concatenate([b[:-1] for b in left]), default=np.inf)
        assert all(a.max(initial=0) < b[-1] for a, b in zip(taken, left, strict=True))


def invert(model):
    """`1 / [H^-1]_qq` of a damped Fisher, as a dense matrix."""
    H = model.H.X.T @ model.H.X / len(model.H.X)
    return 1 / np.diagonal(np.linalg.inv(H + model.damping * np.eye(len(H))))


def test_random_draws_one_number_for_a_neuron():
    model, data = seeded(mlp), samples()
    runs = [
        cbs.prune(model, data, sparsity=0.5, method="random", granularity="neurons", seed=s, **ASK)
        for s in (0, 0, *range(1, 9))
    ]
    gone = [[group.neurons for group in run.neurons] for run in runs]
    assert gone[0] == gone[1]
    assert len({str(lost) for lost in gone}) > 4


BIASED = (cbs.Gram(), cbs.OutputGram(), cbs.OutputGram(0.0), cbs.OutputDiagonal())


@pytest.mark.parametrize("granularity", ["weights", "neurons"])
@pytest.mark.parametrize("rule", ["magnitude", "random", "obd", "obs", "wanda", "elimination", "ablation"])
@pytest.mark.parametrize("curvature", BIASED, ids=lambda each: each.words)
def test_every_rule_runs_on_every_curvature_with_biases_or_is_refused(curvature, rule, granularity):
    if rule == "obs" and not curvature.coupled:
        with pytest.raises(ValueError, match="needs an inverse"):
            cbs.Method(curvature, cbs.Scores(rule), cbs.OwnBias())
        return
    method = cbs.Method(curvature, cbs.Scores(rule), cbs.OwnBias())
    result = cbs.prune(seeded(mlp), samples(), sparsity=0.5, method=method, granularity=granularity, **ASK)
    assert np.isfinite(result.after.loss)


def test_a_bias_counts_by_its_own_curvature_whatever_its_form():
    network = Network(seeded(mlp), samples())
    whole, apart = network(cbs.OutputGram(0.0)), network(cbs.OutputDiagonal())
    for full, diagonal in zip(whole, apart, strict=True):
        np.testing.assert_allclose(diagonal.constant, full.H[:, -1, -1], rtol=1e-9)
