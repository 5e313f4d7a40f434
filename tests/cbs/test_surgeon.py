"""Optimal Brain Surgeon, and exact selection on its curvature, against dense formulas in double precision."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call, jacrev
from torch.nn import functional as F

import cbs
from cbs.network.layers import find_layers
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

DAMPING = 0.02


class Dense:
    """The damped dense Gauss-Newton matrix by `torch.func`, a block a layer or of the whole network."""

    def __init__(self, model, data, pooled, layers=None, loss=F.cross_entropy):
        self.layers = find_layers(model, layers)
        weights = {f"{layer.name}.weight": layer.module.weight.detach() for layer in self.layers}
        p, H = sum(w.numel() for w in weights.values()), 0.0
        for x, y in zip(data.inputs, data.targets, strict=True):
            run = lambda w, x=x: functional_call(model, w, (x[None],))[0]  # noqa: E731
            parts = jacrev(run)(weights)
            J = torch.cat([parts[name].reshape(-1, w.numel()) for name, w in weights.items()], dim=1)
            B = jacrev(jacrev(lambda o, y=y: loss(o[None], y[None])))(run(weights).detach())
            H = H + (J.T @ B @ J).detach().double().numpy()
        H = H / len(data)
        w = np.concatenate([w.double().flatten().numpy() for w in weights.values()])
        ends = np.cumsum([layer.size for layer in self.layers])
        cuts = [np.arange(p)] if pooled else np.split(np.arange(p), ends[:-1])
        self.w = [w[cut] for cut in cuts]
        self.H = [H[np.ix_(cut, cut)] for cut in cuts]
        self.damped = [block + DAMPING * np.diagonal(block).mean() * np.eye(len(block)) for block in self.H]

    def split(self, values):
        """Matrices by layer name as one vector a block."""
        parts = [np.asarray(values[layer.name]).ravel() for layer in self.layers]
        return parts if len(self.w) > 1 else [np.concatenate(parts)]


def weights_of(result, layers):
    return {layer.name: result.model.get_submodule(layer.name).weight.detach().double() for layer in layers}


def one_at_a_time(w, H, labels, quota):
    """OBS by explicit inverses: `dw = -w_q / [H^-1]_qq H^-1 e_q`, least `w_q^2 / 2[H^-1]_qq`."""
    w, left = w.copy(), np.ones(len(w), dtype=bool)
    for _ in range(sum(quota.values())):
        S = np.flatnonzero(left)
        C = np.linalg.inv(H[np.ix_(S, S)])
        saliency = w[S] ** 2 / (2 * np.diagonal(C))
        saliency[[quota[label] == 0 for label in labels[S]]] = np.inf
        q = int(np.argmin(saliency))
        w[S] -= w[S[q]] / C[q, q] * C[:, q]
        quota[labels[S[q]]] -= 1
        left[S[q]] = False
        w[S[q]] = 0.0
    return w, ~left


def prune(model, data, method="obs", **options):
    return cbs.prune(model, data, method=method, certify=False, damping=DAMPING, **options)


def against_one_at_a_time(model, data, scope, layers=None, **tolerance):
    """Masks and weights of method `obs` are those of the explicit inverses, and so is its prediction."""
    result = prune(model, data, sparsity=0.5, scope=scope, layers=layers)
    dense = Dense(model, data, scope == "network", layers)
    moved, masks = dense.split(weights_of(result, dense.layers)), dense.split(result.masks)
    damage = 0.0
    for block, (w, H) in enumerate(zip(dense.w, dense.damped, strict=True)):
        width = dense.layers[block].shape[1] if scope == "row" else len(w)
        labels = np.arange(len(w)) // width
        expected, gone = one_at_a_time(w, H, labels, dict.fromkeys(labels.tolist(), round(0.5 * width)))
        assert (masks[block] == gone).all()
        np.testing.assert_allclose(moved[block], expected, **tolerance)
        damage += 0.5 * (expected - w) @ dense.H[block] @ (expected - w)
    assert damage > 0
    assert result.measured.prediction == pytest.approx(damage, rel=1e-4)


@pytest.mark.parametrize("scope", ["row", "layer", "network"])
@pytest.mark.parametrize(("make", "data"), [(mlp, samples(30)), (convnet, image_samples(10))])
def test_obs_takes_one_weight_at_a_time(make, data, scope):
    against_one_at_a_time(seeded(make), data, scope, rtol=1e-6, atol=1e-8)


def test_obs_on_the_digits_network():
    model, split = cbs.trained_digits_mlp()
    data = split.train.choose(60)
    against_one_at_a_time(model, data, "layer", ["4"], rtol=1e-2, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif("CBS_DATA" not in os.environ, reason="needs CBS_DATA")
def test_obs_on_mlpnet():
    folder = Path(os.environ["CBS_DATA"])
    model = cbs.mlpnet(folder / "mlpnet_93.97.npz")
    data = cbs.mnist(folder).train.choose(200)
    against_one_at_a_time(model, data, "network", ["fc2", "fc3"], rtol=1e-2, atol=1e-4)


def test_obs_of_the_squared_error_takes_output_gradients():
    """Hassibi & Stork 1992: `H = 1/P sum X X'`, `X = dF/dw`, for `E = 1/2P sum (t - F)^2`."""
    model = seeded(mlp, sizes=(4, 3, 1))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(25, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(25, 1, generator=generator, dtype=torch.float64)
    layers = find_layers(model)
    X = []
    for each in x:
        parts = torch.autograd.grad(model(each[None]).sum(), [layer.module.weight for layer in layers])
        X.append(torch.cat([g.flatten() for g in parts]).numpy())
    H = np.mean([np.outer(v, v) for v in X], axis=0)
    H[np.diag_indices(len(H))] += DAMPING * np.diagonal(H).mean()
    w = np.concatenate([layer.module.weight.detach().flatten().numpy() for layer in layers])
    expected, gone = one_at_a_time(w, H, np.zeros(len(w), int), {0: 7})
    result = prune(
        model, (x, y), sparsity=7 / 15, scope="network", loss=lambda o, t: 0.5 * (o - t).square().mean()
    )
    assert (np.concatenate([result.masks[layer.name].numpy().ravel() for layer in layers]) == gone).all()
    moved = torch.cat([w.flatten() for w in weights_of(result, layers).values()])
    np.testing.assert_allclose(moved.numpy(), expected, rtol=1e-6, atol=1e-9)


def test_joint_selection_is_the_best_there_is():
    model, data = seeded(mlp, sizes=(3, 3, 2)), samples(30, (3,), classes=2)
    dense = Dense(model, data, True)
    (w,), (H,) = dense.w, dense.damped
    C = np.linalg.inv(H)
    costs = {
        P: 0.5 * w[[*P]] @ np.linalg.solve(C[np.ix_(P, P)], w[[*P]])
        for P in itertools.combinations(range(15), 8)
    }
    best = min(costs, key=costs.get)
    result = prune(model, data, "obs-joint", sparsity=8 / 15)
    (mask,) = dense.split(result.masks)
    assert np.flatnonzero(mask).tolist() == [*best]
    greedy = np.flatnonzero(dense.split(prune(model, data, sparsity=8 / 15).masks)[0])
    assert costs[tuple(greedy.tolist())] >= costs[best]


def test_joint_selection_of_wide_models_is_no_worse_than_one_at_a_time():
    model, data = seeded(convnet), image_samples(20)
    results = [prune(model, data, name, sparsity=0.7, scope="network") for name in ("obs", "obs-joint")]
    assert results[1].layers[0].solver == "local-search"
    assert results[1].measured.prediction < results[0].measured.prediction


def test_a_solver_of_wide_models_must_be_known_and_gives_way_to_the_requests():
    model, data = seeded(convnet), image_samples(20)
    with pytest.raises(ValueError, match="unknown solver 'local-serch'; did you mean 'local-search'"):
        prune(
            model, data, cbs.Method(cbs.Fisher(), cbs.Solve(wide="local-serch"), cbs.Nothing()), sparsity=0.5
        )
    result = prune(model, data, "obs-joint", sparsity=0.7, scope="network", solver="greedy")
    assert result.layers[0].solver == "greedy"
