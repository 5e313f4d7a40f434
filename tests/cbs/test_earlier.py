"""Networks that come with masks: what they have pruned stays out, and the rest is pruned as well as ever."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import cbs
from cbs.curvature.gram import layer_quadratic
from cbs.earlier import keep_out
from cbs.network.network import Network
from cbs.network.surgery import clone
from solvers import Budget
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

METHODS = [name for name, facts in cbs.methods().items() if "weights" in facts["granularity"]]
DATA = {mlp: samples(40), convnet: image_samples(10)}


def masked(make=mlp, amount=0.4, seed=0, biases=False):
    """A network of which a part of every row is pruned, and of some biases."""
    model, rng = seeded(make), np.random.default_rng(seed)
    for module in model:
        if hasattr(module, "weight") and module.weight.ndim > 1:
            keep = np.ones((len(module.weight), module.weight[0].numel()))
            for row in keep:
                row[rng.choice(len(row), int(amount * len(row)), replace=False)] = 0
            keep = torch.from_numpy(keep).reshape(module.weight.shape)
            torch_prune.custom_from_mask(module, "weight", keep)
            if biases:
                torch_prune.random_unstructured(module, "bias", 1)
    return model


def earlier(model, name="weight"):
    found = model.named_modules()
    return {key: getattr(m, f"{name}_mask") == 0 for key, m in found if hasattr(m, f"{name}_mask")}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [mlp, convnet])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("scope", ["row", "layer", "network"])
def test_what_was_pruned_stays_out(method, make, scope, biases):
    model = masked(make, biases=biases)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    solver = "swapping" if method.startswith("cbs") else "greedy"
    result = cbs.prune(
        model, DATA[make], sparsity=0.6, method=method, scope=scope, solver=solver, certify=False
    )
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    plain = result.permanent()
    for name, mask in earlier(model).items():
        assert bool(result.masks[name][mask].all())
        assert not plain.get_submodule(name).weight[mask].any()
    for name, mask in earlier(model, "bias").items():
        assert not plain.get_submodule(name).bias[mask].any()
        assert torch.equal(result.model.get_submodule(name).bias_mask == 0, mask)
        assert torch.equal(plain.get_submodule(name).bias, model.get_submodule(name).bias)
    assert result.sparsity == pytest.approx(0.6, abs=0.05)
    for layer in result.layers:
        assert layer.measured == pytest.approx(layer.value, rel=1e-6)
    undone = result.undo()
    for name in earlier(model):
        assert torch.equal(undone.get_submodule(name).weight, model.get_submodule(name).weight)


@pytest.mark.parametrize("scope", ["row", "layer"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_bound_is_that_of_masks_that_keep_them_out(scope, bias):
    """Against all masks of the rest, each refitted on the curvature of the rest alone."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 2, bias=bias)).double()
    keep = torch.ones(2, 6)
    keep[0, [1, 4]] = keep[1, [0, 1]] = 0
    torch_prune.custom_from_mask(model[0], "weight", keep)
    data = samples(30, classes=2)
    result = cbs.prune(model, data, sparsity=2 / 3, scope=scope, method="joint", gap=1e-9)
    network = Network(model, data)
    H, W = network(cbs.Gram())[0].H, network.dense[0].augmented
    costs = []
    for r in range(2):
        free = [j for j in range(6) if keep[r, j]]
        inside = [*free, 6] if bias else free
        C = np.linalg.inv(H[np.ix_(inside, inside)])
        best = {}
        for k in range(len(free) + 1):
            for P in itertools.combinations(range(len(free)), k):
                w = W[r, [inside[i] for i in P]]
                cost = 0.5 * w @ np.linalg.solve(C[np.ix_(P, P)], w) if P else 0.0
                best[k] = min(cost, best.get(k, np.inf))
        costs.append(best)
    shares = [(2, 2)] if scope == "row" else [(k, 4 - k) for k in range(5)]
    optimum = min(costs[0][a] + costs[1][b] for a, b in shares)
    assert result.value == pytest.approx(optimum, rel=1e-7)
    assert result.bound <= optimum * (1 + 1e-9)
    assert result.status == "optimal"
    free = cbs.prune(clone(model), data, sparsity=2 / 3, scope=scope, method="joint", gap=1e-9)
    assert free.value <= optimum * (1 + 1e-7)  # zeros without a mask are free


@pytest.mark.parametrize("method", ["joint", "magnitude", "obs", "cbs-s"])
def test_patterns_keep_them_out(method):
    model = seeded(mlp, sizes=(8, 4, 4, 3))
    keep = torch.ones(4, 8)
    keep[:, 2] = keep[1, 6] = 0
    torch_prune.custom_from_mask(model[0], "weight", keep)
    result = cbs.prune(model, samples(shape=(8,)), budget="2:4", method=method, certify=False)
    assert bool(result.masks["0"][keep == 0].all())
    assert bool((result.masks["0"].reshape(-1, 4).sum(1) == 2).all())


@pytest.mark.parametrize("method", ["joint", "magnitude", "cbs-s", "woodfisher"])
def test_whole_columns_stay_out(method):
    model = seeded(mlp)
    keep = torch.ones(5, 6)
    keep[:, [1, 3]] = 0
    torch_prune.custom_from_mask(model[0], "weight", keep)
    solver = "greedy" if method == "joint" else "auto"
    ask = {"budget": "columns", "method": method, "certify": False, "solver": solver}
    result = cbs.prune(model, samples(), sparsity=0.5, layers=["0"], **ask)
    assert bool(result.masks["0"][:, [1, 3]].all())
    assert int(result.masks["0"][0].sum()) == 3


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            {"sparsity": 0.2, "scope": "row"},
            r"prunes 1 of 6, but layer '0' comes with a mask that has 2 of them",
        ),
        ({"sparsity": 0.2, "scope": "layer"}, "prunes 6 of 30, but layer '0' comes"),
        ({"sparsity": 0.2, "scope": "network"}, "prunes 12 of 62, but the network comes"),
        ({"budget": "1:1"}, "prunes 0 of 1, but layer '0'"),
        ({"sparsity": 0.7, "budget": "columns"}, "not one of whole columns"),
    ],
)
def test_budgets_that_earlier_masks_exceed_are_refused(ask, message):
    with pytest.raises(ValueError, match=message) as error:
        cbs.prune(masked(), samples(), method="magnitude", certify=False, **ask)
    assert "\n" not in str(error.value)


def test_masks_of_other_layers_are_kept():
    model = masked(biases=True)
    result = cbs.prune(model, samples(), sparsity=0.7, method="joint", layers=["2"], certify=False)
    assert list(result.masks) == ["2"]
    for name in ("weight", "bias"):
        for key, mask in earlier(model, name).items():
            if (key, name) != ("2", "weight"):
                assert torch.equal(earlier(result.model, name)[key], mask)
    assert torch.equal(result.model[0].weight, model[0].weight)


def test_masks_in_exchange_lose_their_largest_weights():
    W = np.array([[3.0, 1.0, 2.0, 0.0], [0.0, 5.0, 0.0, 4.0]])
    mask = np.array([[True, True, False, False], [False, True, False, True]])
    before = np.array([[False, False, False, True], [True, False, True, False]])
    rows = keep_out(mask, before, Budget.per_row(2).laid_over(2, 4), W)
    assert rows.tolist() == [[False, True, False, True], [True, False, True, False]]
    whole = keep_out(mask, before, Budget.per_layer(4).laid_over(2, 4), W)
    assert whole.tolist() == [[False, True, False, True], [True, False, True, False]]
    assert keep_out(rows, before, Budget.per_row(2).laid_over(2, 4), W) is rows


@pytest.mark.parametrize("scope", ["row", "layer", "network"])
@pytest.mark.parametrize("limit", ["OWN_WIDTH", "OWN_BYTES"])
def test_rows_too_wide_for_curvatures_of_their_own_keep_them_out_too(scope, limit, monkeypatch):
    model = masked()
    ask = {"sparsity": 0.6, "scope": scope, "method": "joint", "gap": 1e-9}
    exact = cbs.prune(model, samples(), **ask)
    monkeypatch.setattr(f"cbs.quadratic.{limit}", 1)
    result = cbs.prune(model, samples(), **ask)
    for name, mask in earlier(model).items():
        assert bool(result.masks[name][mask].all())
    assert result.value >= exact.value * (1 - 1e-9) or scope == "network"
    assert result.bound <= exact.value * (1 + 1e-9)
    network = Network(model, samples())
    assert network(cbs.Gram())[0].problem(Budget.per_row(3)).hessian.shared
    columns = layer_quadratic(0, network.layers[0], torch.eye(7), 0.1, np.arange(6) == np.zeros((5, 1)))
    assert columns.problem(Budget.per_row(3)).hessian.dense(0)[0, 0] > 0


def test_a_weight_that_could_stand_for_two_others_stays_out():
    """Where coming back would pay, the optimum that is proven is the one without it."""
    data = samples(30, classes=2)
    data.inputs[:, 1] = data.inputs[:, 0] + data.inputs[:, 2]
    model = nn.Sequential(nn.Linear(6, 2)).double()
    model[0].weight.data = torch.tensor([[1.0, 0.0, 1.0, 0.9, 0.0, 1.1]] * 2, dtype=torch.float64)
    torch_prune.custom_from_mask(model[0], "weight", (model[0].weight != 0).double())
    model[0].weight_mask[1, 4] = 1.0  # the rows differ
    ask = {"sparsity": 0.5, "scope": "row", "method": "joint", "gap": 1e-9}
    result = cbs.prune(model, data, **ask)
    free = cbs.prune(clone(model), data, **ask)
    assert result.status == free.status == "optimal"
    assert free.value < 0.1 * result.bound
    assert bool(result.masks["0"][:, 1].all())
