import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F

import cbs
from cbs.curvature import linear_operators as operators
from cbs.data import Samples
from cbs.network.layers import find_layers
from cbs.network.network import Network
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

pytest.importorskip("curvlinops")


def flat_run(model, layers, x):
    """Outputs of a sample as a function of all layers' weights in one vector."""
    sizes = [layer.size for layer in layers]

    def run(flat):
        parts = torch.split(flat, sizes)
        parameters = {
            f"{layer.name}.weight": part.reshape(layer.module.weight.shape)
            for layer, part in zip(layers, parts, strict=True)
        }
        return functional_call(model, parameters, (x[None],))[0]

    return run, torch.cat([layer.module.weight.detach().flatten() for layer in layers])


def dense(model, layers, data, kind, loss=F.cross_entropy):
    """`[p, p]` Gauss-Newton matrix or Hessian of the mean loss, sample by sample by `torch.func`."""
    total = 0
    for x, y in zip(data.inputs, data.targets, strict=True):
        run, w = flat_run(model, layers, x)
        tail = lambda o, y=y: loss(o[None], y[None])  # noqa: E731
        if kind == "Hessian":
            total = total + jacrev(jacrev(lambda v, run=run, tail=tail: tail(run(v))))(w)
        else:
            J, B = jacrev(run)(w), jacrev(jacrev(tail))(run(w))
            total = total + J.T @ B @ J
    return (total / len(data)).detach().numpy()


def damped(H, damping):
    return H + damping * np.diagonal(H).mean() * np.eye(len(H))


def block(model):
    """The damped matrix of a model."""
    return model.H.dense(0)


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(9)), (convnet, image_samples(5))])
@pytest.mark.parametrize("apart", [False, True])
def test_gauss_newton_is_dense_and_so_are_its_blocks(make, data, apart, monkeypatch):
    monkeypatch.setattr(operators, "BATCH", 4)
    model = seeded(make)
    layers = find_layers(model)
    models = Network(model, data)(cbs.GGN(0.1, apart))
    groups = [[layer] for layer in layers] if apart else [layers]
    for found, group in zip(models, groups, strict=True):
        expected = dense(model, group, data, "Gauss-Newton")
        np.testing.assert_allclose(block(found), damped(expected, 0.1), rtol=1e-6, atol=1e-9)


def test_the_hessian_keeps_its_positive_part_and_says_so():
    model, data = seeded(mlp), samples(9)
    network = Network(model, data)
    (found,) = network(cbs.Hessian(0.1))
    values, vectors = np.linalg.eigh(dense(model, find_layers(model), data, "Hessian"))
    assert values[0] < -1e-3
    expected = (vectors * np.maximum(values, 0)) @ vectors.T
    np.testing.assert_allclose(block(found), damped(expected, 0.1), rtol=1e-6, atol=1e-9)
    result = cbs.prune(model, data, sparsity=0.5, method=method(cbs.Hessian()), certify=False)
    stats = result.history[0].stats
    assert stats["negative_eigenvalues"] == (values < -1e-9 * values[-1]).sum()
    assert stats["negative_share"] == pytest.approx(-values[values < 0].sum() / np.abs(values).sum())
    clean = cbs.prune(model, data, sparsity=0.5, method=method(cbs.GGN()), certify=False)
    assert "negative_eigenvalues" not in clean.history[0].stats


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(6)), (convnet, image_samples(3))])
def test_drawn_labels_come_to_the_gauss_newton_matrix(make, data):
    model = seeded(make)
    layers = find_layers(model)
    expected = dense(model, layers, data, "Gauss-Newton")
    away = [
        np.linalg.norm(block(Network(model, data)(cbs.MonteCarloFisher(0.0, labels=labels))[0]) - expected)
        for labels in (10, 4000)
    ]
    assert away[1] < 0.05 * np.linalg.norm(expected) < away[0]
    assert away[1] / away[0] == pytest.approx(1 / 20, rel=0.9)


def test_the_same_seed_draws_the_same_labels():
    model, data = seeded(mlp), samples(9)
    a, b, c = (block(Network(model, data)(cbs.MonteCarloFisher(seed=seed))[0]) for seed in (1, 1, 2))
    assert (a == b).all()
    assert not np.allclose(a, c)


def zero_padded(padding="same", mode="zeros"):
    return (
        nn.Sequential(
            nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(1, 0)), nn.BatchNorm2d(3), nn.Tanh(),
            nn.Conv2d(3, 2, 3, dilation=1, padding=padding, padding_mode=mode, bias=False), nn.Tanh(),
            nn.Flatten(), nn.Linear(2 * 4 * 3, 3),
        ).double().eval()
    )  # fmt: skip


def kronecker(model, data):
    """Every layer's `A` and `B` by plain autograd: expected labels, a column of a square root at a time."""
    found = {}
    layers = find_layers(model)
    for layer in layers:
        A, B, places = 0, 0, 0
        for x in data.inputs:
            seen = []
            handle = layer.module.register_forward_hook(lambda m, i, o, seen=seen: seen.extend((i[0], o)))
            p = F.softmax(model(x[None])[0], dim=0)
            handle.remove()
            X = layer.unfold(seen[0]).detach()
            A, places = A + X.T @ X, places + len(X)
            for c in range(len(p)):
                value = p[c].detach() * 1.0
                (g,) = torch.autograd.grad(-p[c].log(), seen[1], retain_graph=True)
                rows = layer.flatten(g)
                B = B + value * rows.T @ rows
        found[layer.name] = (A / places).numpy(), (B / len(data)).numpy()
    return found


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(9)), (zero_padded, image_samples(5))])
def test_kronecker_factors_are_second_moments(make, data):
    model = seeded(make)
    expected = kronecker(model, data)
    network = Network(model, data)
    rows, joined = network(cbs.Kronecker(0.1)), network(cbs.Kronecker(0.1, joined=True))
    for layer, by_row, whole in zip(find_layers(model), rows, joined, strict=True):
        A, B = expected[layer.name]
        np.testing.assert_allclose(block(whole), damped(np.kron(B, A), 0.1), rtol=1e-7, atol=1e-11)
        added = 0.1 * np.diagonal(B).mean() * np.diagonal(A).mean()
        assert by_row.damping == pytest.approx(added)
        for r, H in enumerate(by_row.H):
            np.testing.assert_allclose(H, B[r, r] * A + added * np.eye(len(A)), rtol=1e-7, atol=1e-11)


def test_one_linear_layer_has_exact_factors_where_outputs_do_not_interact():
    model = nn.Linear(4, 3).double()
    data = Samples(samples(20, (4,)).inputs, samples(20, (3,), seed=1).inputs)
    (found,) = Network(model, data, loss=F.mse_loss)(cbs.Kronecker(0.0, joined=True))
    expected = dense(model, find_layers(model), data, "Hessian", F.mse_loss)
    np.testing.assert_allclose(block(found), expected, rtol=1e-9, atol=1e-12)


def method(curvature, selection=None, compensation=None):
    return cbs.Method(curvature, selection or cbs.Scores("obs"), compensation or cbs.Survivors(), name="mine")


@pytest.mark.parametrize("scope", ["layer", "network"])
@pytest.mark.parametrize(
    "curvature", [cbs.GGN(), cbs.Hessian(), cbs.MonteCarloFisher(labels=5), cbs.Kronecker(joined=True)]
)
@pytest.mark.parametrize(
    "selection",
    [cbs.Scores("obd"), cbs.Scores("obs"), cbs.Solve("greedy"), cbs.Solve("local-search", "selection")],
)
def test_each_makes_methods(curvature, selection, scope):
    asked = {"sparsity": 0.5, "scope": scope, "certify": False, "time_limit": 5.0}
    if isinstance(curvature, cbs.Kronecker) and scope == "network" and isinstance(selection, cbs.Solve):
        with pytest.raises(ValueError, match="keeps layers apart"):
            cbs.prune(seeded(mlp), samples(30), method=method(curvature, selection), **asked)
        return
    result = cbs.prune(seeded(mlp), samples(30), method=method(curvature, selection), **asked)
    assert sum(int(mask.sum()) for mask in result.masks.values()) == 31
    assert result.measured.prediction > 0


@pytest.mark.parametrize("scope", ["row", "layer", "network"])
@pytest.mark.parametrize("selection", [cbs.Scores("obd"), cbs.Scores("obs"), cbs.Solve("greedy")])
def test_rows_of_their_own_make_methods(selection, scope):
    result = cbs.prune(
        seeded(mlp), samples(30), method=method(cbs.Kronecker(), selection), sparsity=0.5, scope=scope,
        certify=False,
    )  # fmt: skip
    assert sum(int(mask.sum()) for mask in result.masks.values()) == (29 if scope == "row" else 31)
    assert result.measured.prediction > 0


def test_rows_of_their_own_are_pruned_and_refitted_by_their_own_matrices():
    model, data = seeded(mlp, sizes=(5, 4, 3)), samples(30, (5,))
    result = cbs.prune(
        model, data, method=method(cbs.Kronecker(0.1)), sparsity=0.5, scope="network", certify=False
    )
    kept, gone, damage = [], [], 0.0
    for layer in find_layers(model):
        A, B = kronecker(model, data)[layer.name]
        w = layer.module.weight.detach().numpy()
        moved = result.permanent().get_submodule(layer.name).weight.detach().numpy()
        added = 0.1 * np.diagonal(B).mean() * np.diagonal(A).mean()
        for r, P in enumerate(result.masks[layer.name].numpy()):
            C = np.linalg.inv(B[r, r] * A + added * np.eye(len(A)))
            s = 0.5 * w[r] ** 2 / np.diagonal(C)
            kept, gone = [*kept, *s[~P]], [*gone, *s[P]]
            expected = w[r] - C[:, P] @ np.linalg.solve(C[np.ix_(P, P)], w[r, P])
            np.testing.assert_allclose(moved[r], np.where(P, 0.0, expected), rtol=1e-7, atol=1e-10)
            damage += 0.5 * B[r, r] * (moved[r] - w[r]) @ A @ (moved[r] - w[r])
    assert max(gone) < min(kept)
    assert result.measured.prediction == pytest.approx(damage, rel=1e-7)


def test_exact_selection_on_the_gauss_newton_matrix_is_that_on_its_factor():
    model, data = seeded(mlp, sizes=(4, 3)), samples(30, (4,))
    masks = [
        cbs.prune(
            model, data, sparsity=0.5, scope="layer", certify=False, solver="brute-force",
            method=method(curvature, cbs.Solve()),
        ).masks["0"]
        for curvature in (cbs.GGN(), cbs.GaussNewton())
    ]  # fmt: skip
    assert masks[0].equal(masks[1])


@pytest.mark.parametrize(
    ("curvature", "options", "message"),
    [
        (
            cbs.GGN(),
            {},
            "needs the dense Gauss-Newton of 62 weights, its limit is 50 .*; take cbs.GaussNewton",
        ),
        (
            cbs.MonteCarloFisher(),
            {"scope": "layer", "loss": "nll_loss"},
            "needs a loss of which labels can be",
        ),
        (cbs.Kronecker(), {"loss": "nll_loss"}, "needs a loss of which labels can be drawn, cross_entropy,"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(curvature, options, message, monkeypatch):
    monkeypatch.setattr(operators, "LIMIT", 50)
    with pytest.raises(ValueError, match=f"^method 'mine' {message}") as error:
        cbs.prune(seeded(mlp), samples(30), sparsity=0.5, method=method(curvature), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"mode": "circular"}, {"mode": "reflect", "padding": 1}])
def test_padding_that_the_factors_would_be_wrong_for_is_refused(options):
    model = seeded(zero_padded, **options)
    with pytest.raises(ValueError, match="no Kronecker factors for layer '3', which is not padded") as error:
        cbs.prune(model, image_samples(6), sparsity=0.5, method=method(cbs.Kronecker(joined=True)))
    assert "\n" not in str(error.value)


def test_a_missing_curvlinops_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="method 'mine' needs curvlinops, which is not installed"):
        cbs.prune(seeded(mlp), samples(30), sparsity=0.5, method=method(cbs.GGN()))


def test_losses_are_known_as_functions_modules_and_partials():
    known = operators.likelihood
    assert isinstance(known(F.cross_entropy), nn.CrossEntropyLoss)
    assert isinstance(known(functools.partial(F.mse_loss, reduction="sum")), nn.MSELoss)
    assert isinstance(known(nn.BCEWithLogitsLoss(reduction="sum")), nn.BCEWithLogitsLoss)
    for other in (
        nn.CrossEntropyLoss(weight=torch.ones(3)), nn.CrossEntropyLoss(label_smoothing=0.1), F.l1_loss,
        functools.partial(F.cross_entropy, label_smoothing=0.1), nn.L1Loss(),
    ):  # fmt: skip
        assert known(other) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cbs.MonteCarloFisher(labels=0), "labels must be a whole number of at least 1, got 0"),
        (lambda: cbs.Kronecker(joined=1), "joined must be True or False, got 1"),
        (lambda: cbs.Kronecker(damping=-1.0), "damping must be .*, got -1.0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
