import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import cbs
from cbs.curvature.fisher import gradient_factor
from cbs.methods import get_method
from cbs.network.layers import find_layers
from solvers import get_solver
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

DAMPING = 0.02


class Dense:
    """The damped empirical Fisher as dense matrices, layer by layer or of the whole network."""

    def __init__(self, model, data, pooled):
        self.layers = find_layers(model)
        X = gradient_factor(model, self.layers, data, F.cross_entropy).numpy()
        w = np.concatenate([layer.module.weight.detach().flatten().numpy() for layer in self.layers])
        ends = np.cumsum([layer.size for layer in self.layers])
        cuts = [np.arange(len(w))] if pooled else np.split(np.arange(len(w)), ends[:-1])
        self.X = [X[:, cut] for cut in cuts]
        self.w = [w[cut] for cut in cuts]
        self.H = []
        for part in self.X:
            H = part.T @ part / len(part)
            self.H.append(H + DAMPING * np.diagonal(H).mean() * np.eye(len(H)))

    def split(self, result, name="weight"):
        """The pruned model's masks or weights as one vector a block."""
        parts = []
        for layer in self.layers:
            module = result.model.get_submodule(layer.name)
            values = result.masks[layer.name] if name == "mask" else module.weight.detach()
            parts.append(values.flatten().numpy())
        if len(self.w) == 1:
            return [np.concatenate(parts)]
        return parts


def surgeon_update(w, H, mask):
    """CBS-U from the dense inverse (PAPERS, section 1)."""
    C = np.linalg.inv(H)
    P = np.flatnonzero(mask)
    moved = w - C[:, P] @ np.linalg.solve(C[np.ix_(P, P)], w[P])
    moved[P] = 0
    return moved


def run(model, data, method, **options):
    return cbs.prune(model, data, method=method, certify=False, damping=DAMPING, **options)


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize(
    ("make", "data"), [(mlp, samples(12)), (mlp, samples(90)), (convnet, image_samples(8))]
)
def test_cbs_moves_survivors_by_the_surgeons_update(make, data, pooled):
    model = seeded(make)
    scope = "network" if pooled else "layer"
    selected = run(model, data, "cbs-s", sparsity=0.6, scope=scope)
    result = run(model, data, "cbs", sparsity=0.6, scope=scope)
    dense = Dense(model, data, pooled)
    damage = 0.0
    rows = zip(
        dense.w, dense.H, dense.X, dense.split(result), dense.split(result, "mask"),
        dense.split(selected, "mask"), strict=True,
    )  # fmt: skip
    for w, H, X, moved, mask, before in rows:
        assert (mask == before).all()
        np.testing.assert_allclose(moved, surgeon_update(w, H, mask), rtol=1e-6, atol=1e-9)
        assert np.abs(moved - w)[~mask].max() > 1e-4
        damage += 0.5 * np.square(X @ (moved - w)).mean()
    assert result.measured.prediction == pytest.approx(damage, rel=1e-9)
    assert result.measured.prediction < selected.measured.prediction


def test_woodfisher_adds_up_single_updates():
    model, data = seeded(mlp), samples(12)
    result = run(model, data, "woodfisher", sparsity=0.6, scope="network")
    dense = Dense(model, data, pooled=False)
    saliencies = []
    for w, H, moved, mask in zip(
        dense.w, dense.H, dense.split(result), dense.split(result, "mask"), strict=True
    ):
        C = np.linalg.inv(H)
        saliencies.append(0.5 * w**2 / np.diagonal(C))
        expected = w.copy()
        for q in np.flatnonzero(mask):
            expected -= w[q] / C[q, q] * C[:, q]
        expected[mask] = 0
        np.testing.assert_allclose(moved, expected, rtol=1e-6, atol=1e-9)
    s, gone = np.concatenate(saliencies), np.concatenate(dense.split(result, "mask"))
    assert s[gone].max() < s[~gone].min()
    assert gone.sum() == round(0.6 * gone.size)


@pytest.mark.parametrize("budget", ["unstructured", "columns", "1:2"])
def test_selection_by_an_exact_solver_is_the_best_there_is(budget):
    model, data = seeded(mlp, sizes=(4, 2)), samples(30, (4,), classes=2)
    result = run(model, data, "cbs-s", sparsity=0.5, budget=budget, solver="brute-force")
    dense = Dense(model, data, pooled=False)
    w, X, mask = dense.w[0], dense.X[0], dense.split(result, "mask")[0]
    H = X.T @ X / len(X)  # as published: no damping
    values = {}
    for chosen in itertools.product([False, True], repeat=8):
        x = np.array(chosen).reshape(2, 4)
        fits = {
            "unstructured": x.sum() == 4,
            "columns": x[0].sum() == 2 and (x[0] == x[1]).all(),
            "1:2": (x.reshape(4, 2).sum(1) == 1).all(),
        }[budget]
        if fits:
            v = np.where(chosen, w, 0)
            values[chosen] = 0.5 * v @ H @ v
    best = min(values, key=values.get)
    assert tuple(mask.tolist()) == best
    assert result.layers[0].solver == "brute-force"


def test_a_column_without_weights_goes_first():
    model, data = seeded(mlp, sizes=(4, 3)), samples(30, (4,))
    model[0].weight.data[:, 2] = 0
    result = run(model, data, "cbs-s", sparsity=0.25, budget="columns", solver="brute-force")
    assert result.masks["0"][0].tolist() == [False, False, True, False]


def test_gradients_come_from_at_most_a_thousand_samples_unless_asked(monkeypatch):
    monkeypatch.setattr(cbs.network.network, "GRADIENTS", 15)
    model, data = seeded(mlp), samples(40)
    assert run(model, data, "cbs-s", sparsity=0.5).history[0].stats["gradient_samples"] == 15
    assert run(model, data, "cbs-s", sparsity=0.5, samples=30).history[0].stats["gradient_samples"] == 30


def test_randomized_magnitude_is_judged_by_the_loss_alone():
    """Of ten weights three stay, in three buckets: the best of all the masks that were tried."""
    model, data = seeded(mlp, bias=False, sizes=(4, 2, 1)), samples(40, (4,))
    data = replace(data, targets=data.inputs[:, :1].clone())
    tried = []
    solve = get_method("rmp").selection
    assert (solve.solver, solve.problem, solve.judge) == ("randomized-magnitude", "selection", "loss")

    class Watched(type(get_solver("randomized-magnitude"))):
        def run(self, problem, control):
            def score(mask):
                tried.append((self.score(mask), mask.copy()))
                return tried[-1][0]

            return replace(get_solver("randomized-magnitude"), score=score).run(problem, control)

    rmp = replace(get_method("rmp"), selection=replace(solve, solver=Watched()))
    result = run(model, data, rmp, sparsity=0.7, scope="network", loss="mse_loss")
    twin = copy.deepcopy(model)

    def loss(mask):
        parts = np.split(mask.ravel(), [8])
        with torch.no_grad():
            for layer, part in zip((0, 2), parts, strict=True):
                dense = model[layer].weight
                twin[layer].weight.copy_(dense * torch.from_numpy(~part).reshape(dense.shape))
        return float(F.mse_loss(twin(data.inputs), data.targets).detach())

    assert len(tried) == 50
    assert len({mask.tobytes() for _, mask in tried}) > 3
    for found, mask in tried:
        assert found == pytest.approx(loss(mask), rel=1e-12)
    kept = np.concatenate([result.masks[name].flatten().numpy() for name in ("0", "2")])
    assert loss(kept) == pytest.approx(min(found for found, _ in tried), rel=1e-12)
    w = np.concatenate([model[i].weight.detach().flatten().numpy() for i in (0, 2)])
    assert (tried[0][1].ravel() == (np.abs(w) <= np.sort(np.abs(w))[6])).all()
    for layer in (0, 2):
        gone = result.masks[str(layer)]
        moved = result.model.get_submodule(str(layer)).weight.detach()
        assert torch.equal(moved, torch.where(gone, 0.0, model[layer].weight.detach()))


LABELS = torch.arange(40) % 3


@pytest.mark.parametrize("scope", ["layer", "network"])
@pytest.mark.parametrize("name", list(cbs.methods()))
def test_what_needs_no_targets_prunes_the_same_whatever_they_are(name, scope):
    """By the table: a method that names no targets, or only for scope network, does not look at them."""
    facts, model, data = cbs.methods()[name], seeded(mlp), samples(40)
    needs = facts["needs"].split(", ")
    if "targets" in needs or (scope == "network" and "targets with scope network" in needs):
        return
    granularity = facts["granularity"].split(", ")[0]
    one, other = (
        cbs.prune(
            model, replace(data, targets=targets), method=name, sparsity=0.5, scope=scope,
            granularity=granularity, certify=False,
        )
        for targets in (data.targets, LABELS)
    )  # fmt: skip
    assert all(torch.equal(other.state[key], value) for key, value in one.state.items())


def test_layer_grams_take_targets_where_layers_share_a_budget():
    needs = {name: facts["needs"].split(", ") for name, facts in cbs.methods().items()}
    some = {name for name, words in needs.items() if "targets with scope network" in words}
    grams = {"wanda", "obc", "sparsegpt", "alps", "joint", "neuron-merge", "neuron-osscar", "neuron-joint"}
    assert some == grams
    assert needs["elimination"] == needs["elimination-nonlinear"] == ["inputs"]
