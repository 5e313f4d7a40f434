import numpy as np
import pytest
import torch
from torch.nn.utils import prune

import cbs
from cbs.curvature.diagonal import network_diagonal
from cbs.curvature.output import row_scales
from cbs.network.network import Network
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
