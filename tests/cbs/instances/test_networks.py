"""Instances of networks: the numbers are the layer's, by a computation of its own."""

import numpy as np
import pytest
import torch

from cbs import zoo
from cbs.instances import of_network
from solvers import solve, solve_together


@pytest.fixture(scope="module")
def wine():
    return zoo.trained("wine")


def test_a_row_s_value_is_the_change_of_the_layer_s_output(wine):
    """The joint value, less damping, is half the mean squared change of the output, bias moved too."""
    (item,) = of_network("wine", layers=["2"], rows=[3], variants=["joint"], sparsities=[0.5])
    assert (item.name, item.family, item.n, item.m) == ("wine-2-r3-joint-row-50", "wine/2", 32, 1)
    problem = item.problem()
    mask = solve(problem).mask
    with torch.no_grad():
        z = torch.relu(wine.model[0].double()(wine.train.inputs.double())).numpy()
    wine.model.float()
    w = wine.model[2].weight[3].detach().double().numpy()
    v = problem.weights(mask)[0]
    change = z @ (v - w)
    change -= change.mean()  # the bias that fits best
    damping = 1e-2 * (z**2).mean(axis=0).mean()
    expected = 0.5 * (change**2).mean() + 0.5 * damping * ((v - w) ** 2).sum()
    assert problem.value(mask) == pytest.approx(expected, rel=1e-5)
    assert item.provenance["2"]["bias"] == "eliminated"
    assert item.provenance["2"]["samples"] == len(wine.train)


def test_every_budget_and_variant():
    budgets = ("per_row", "2:4", "per_layer", "columns", "network")
    items = list(of_network("wine", rows=1, sparsities=[0.5, 0.9], budgets=budgets))
    assert len({item.name for item in items}) == len(items)
    assert len({item.digest for item in items}) == len(items)
    kinds = {item.budget for item in items}
    assert kinds == {"per_row", "n_of_m", "per_layer", "columns", "network"}
    for item in items:
        assert item.intact()
        problems = item.problems()
        pruned = sum(int(p.pools.prune.sum()) * (p.m if p.pools.coupled else 1) for p in problems)
        assert pruned / sum(p.W.size for p in problems) == pytest.approx(item.sparsity)
    assert not [item for item in items if item.budget == "n_of_m" and item.layers == ("0",)]  # 13 inputs
    network = next(item for item in items if item.budget == "network" and item.variant == "joint")
    assert network.m == 32 + 16 + 3
    found = solve_together(network.problems(), gap=0.5)
    assert sum(int(mask.sum()) for mask in found.masks) == round(0.5 * (13 * 32 + 32 * 16 + 16 * 3))


def test_rows_are_drawn_by_the_seed():
    def names(**settings):
        asked = {"layers": ["2"], "variants": ["joint"], "sparsities": [0.5], "rows": 3} | settings
        return [item.name for item in of_network("wine", **asked)]

    assert names() == names()
    assert names(seed=1) != names()
    assert names(rows=[5, 2]) == ["wine-2-r5-joint-row-50", "wine-2-r2-joint-row-50"]
    few = list(of_network("wine", layers=["2"], rows=1, layer_rows=4, budgets=["per_layer"]))
    assert {item.m for item in few} == {4}


def test_rows_that_weight_decay_left_nothing_of_are_not_drawn(monkeypatch):
    found = zoo.trained("wine")
    with torch.no_grad():
        found.model[2].weight[3, 5:] = 1e-20
        found.model[2].weight[4] *= 1e-20
    monkeypatch.setattr("cbs.instances.networks.trained", lambda *_: found)
    items = list(of_network("wine", layers=["2"], rows=16, variants=["joint"], sparsities=[0.5]))
    assert len(items) == 14
    assert not {item.name for item in items} & {f"wine-2-r{row}-joint-row-50" for row in (3, 4)}
    (item,) = of_network("wine", layers=["2"], rows=[3], variants=["joint"], sparsities=[0.5])
    assert np.count_nonzero(item.problem().W) == 5


def test_numbers_are_single_precision():
    item = next(of_network("wine", rows=1))
    for array in (item.problem().W, item.problem().hessian.dense(0)):
        assert np.array_equal(array, array.astype(np.float32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budgets": ["per_rows"]}, r"unknown budget 'per_rows'; did you mean 'per_row'\?"),
        ({"budgets": ["4:4"]}, "must keep at least 1 and fewer than all"),
        ({"variants": []}, "variants must list at least one"),
        ({"variants": ["joined"]}, "unknown variant 'joined'"),
        ({"sparsities": [1.0]}, "sparsity must be a number between 0 and 1, got 1.0"),
        ({"sparsities": 0.5}, "sparsities must list at least one, got 0.5"),
        ({"damping": 0.0}, "damping must be a finite number above 0"),
        ({"rows": [0, 0]}, "each once"),
        ({"rows": [40]}, "layer '0' has 32 rows, there is no row 40"),
        ({"samples": 0}, "samples must be a whole number from 1"),
        ({"layers": ["7"]}, "network 'wine': .*'7'"),
        ({"layers": "0"}, "layers must be a list of names"),
        ({"layer_rows": 0}, "layer_rows must be a whole number"),
    ],
)
def test_settings_that_are_none(settings, message):
    with pytest.raises(ValueError, match=message):
        next(of_network("wine", **settings))


def test_networks_that_are_none():
    with pytest.raises(ValueError, match=r"unknown network 'wines'; did you mean 'wine'\?"):
        next(of_network("wines"))
