import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import cbs
from cbs.network.network import Network
from cbs.network.surgery import clone, put_mask
from cbs.request import Request
from cbs.schedule.reselecting import pools_of, unfit, widened
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

SIZES = (6, 8, 6, 3)
OPTIONS = {"refit": "network", "reselect": True, "sparsity": 0.7, "solver": "greedy"}


def pruned(model=None, data=None, **options):
    return cbs.prune(
        model or seeded(mlp, sizes=SIZES), data or samples(300, seed=2), **{**OPTIONS, **options}
    )


def kept(result):
    return {name: int((~mask).sum()) for name, mask in result.masks.items()}


@pytest.fixture(scope="module", autouse=True)
def few_rounds():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cbs.schedule.reselecting.ROUNDS", 2)
        yield


@pytest.fixture(scope="module")
def result(few_rounds):
    return pruned()


def test_layers_are_about_the_masks_that_are_there(result):
    """Values by hand, from weights that re-selection left, and bounds for the counts of its rows."""
    dense = seeded(mlp, sizes=SIZES)
    data = samples(300, seed=2)
    stage = result.history[-1]
    assert stage.reselection["rounds"]
    assert sum(kept(result).values()) == round(0.3 * sum(a * b for a, b in itertools.pairwise(SIZES)))
    for layer in result.layers:
        assert kept(result)[layer.name] == layer.kept
        gone = result.masks[layer.name].reshape(layer.shape)
        assert [row.pruned for row in layer.rows] == gone.sum(dim=1).tolist()
        assert layer.bound <= layer.value
        assert layer.value == pytest.approx(layer.measured, rel=1e-6)
        assert "re-selection" in layer.solver
    assert result.bound <= result.value
    plain = cbs.prune(dense, data, sparsity=0.7, solver="greedy")  # the layers' own best is no worse
    assert result.bound <= plain.value * (1 + 1e-9)
    assert result.sparsity == pytest.approx(0.7, abs=0.01)


def test_the_divergence_is_less_than_that_of_the_method_s_own_masks(result):
    def divergence(model):
        x, dense = samples(2000, seed=9).inputs, seeded(mlp, sizes=SIZES)
        with torch.no_grad():
            p, q = (net(x).log_softmax(dim=1) for net in (dense, model))
        return float((p.exp() * (p - q)).sum(dim=1).mean())

    assert divergence(result.model) < 0.8 * divergence(pruned(reselect=False).model)


def test_it_is_put_back_whole_and_read_again(result):
    dense = seeded(mlp, sizes=SIZES)
    for name, values in result.undo().state_dict().items():
        assert torch.equal(values, dense.state_dict()[name])
    again = cbs.PruneResult.from_dict(result.to_dict(), result.model, result.saved, result.original)
    assert again.history[-1].reselection == result.history[-1].reselection
    assert again.request.reselect is True


@pytest.mark.parametrize(
    ("options", "group"),
    [
        ({"scope": "layer"}, None),
        ({"scope": "row", "sparsity": 0.5}, None),
        ({"budget": "1:2", "sparsity": None}, 2),
    ],
)
def test_every_budget_is_met(options, group):
    result = pruned(seeded(mlp, 1, sizes=(6, 8, 6, 4)), **options)
    request = Request(**{**OPTIONS, **options})
    for layer in result.layers:
        gone = result.masks[layer.name].numpy().reshape(layer.shape)
        budget = request.layer_budget(next(each for each in _network().layers if each.name == layer.name))
        assert budget.laid_over(*layer.shape).violation(gone) is None
    assert result.history[-1].reselection["rounds"]


def _network():
    return Network(seeded(mlp, 1, sizes=(6, 8, 6, 4)), samples(100))


@pytest.mark.slow
def test_a_convolutional_network_with_norms():
    data = image_samples(150)
    result = pruned(seeded(convnet), data, sparsity=0.6)
    stage = result.history[-1]
    assert stage.reselection["rounds"]
    assert sum(kept(result).values()) == round(0.4 * sum(m.numel() for m in result.masks.values()))
    before = seeded(convnet).state_dict()
    assert all(torch.equal(values, before[name]) for name, values in result.undo().state_dict().items())


def test_masks_that_the_network_came_with_stay():
    model = clone(seeded(mlp, sizes=SIZES))
    gone = torch.zeros_like(model[0].weight, dtype=torch.bool)
    gone[:3, :3] = True
    put_mask(model[0], "weight", gone)
    result = pruned(model)
    assert bool(result.masks["0"][gone].all())
    assert sum(kept(result).values()) == round(0.3 * 114)


@pytest.mark.parametrize("scope", ["row", "layer"])
def test_masks_that_fill_a_part_of_the_network_stay_where_every_part_has_a_budget(scope):
    model = clone(seeded(mlp, sizes=SIZES))
    gone = torch.zeros_like(model[2].weight, dtype=torch.bool)
    gone[:, 1:6] = True
    put_mask(model[2], "weight", gone)
    result = pruned(model, scope=scope)
    assert result.history[-1].reselection["rounds"]
    assert bool(result.masks["2"][gone].all())
    budget = {name: round(0.7 * mask.shape[1]) * len(mask) for name, mask in result.masks.items()}
    if scope == "layer":
        budget = {name: round(0.7 * mask.numel()) for name, mask in result.masks.items()}
    assert {name: int(mask.sum()) for name, mask in result.masks.items()} == budget


def test_nothing_is_left_where_that_is_asked_for():
    result = pruned(sparsity=0.999)
    assert result.sparsity == 1.0
    assert result.history[-1].reselection["rounds"]
    assert not any(kept(result).values())


def test_a_callback_that_stops_it_gets_as_many_weights_as_asked_for():
    for stage in ("select", "reselect"):
        heard = []

        def stop(step, stage=stage, heard=heard):
            heard.append(step.stage)
            return step.stage == stage

        result = pruned(callback=stop)
        assert result.status == "interrupted"
        assert sum(kept(result).values()) == round(0.3 * 114)


@pytest.mark.slow
def test_stages_before_the_last_have_no_returns():
    result = pruned(stages=2)
    first, last = (stage.reselection["rounds"] for stage in result.history)
    assert {"return"}.isdisjoint(record["what"] for record in first)
    assert "return" in {record["what"] for record in last}
    assert sum(kept(result).values()) == round(0.3 * 114)


def test_what_is_left_out_is_told():
    few = samples(60)
    with pytest.warns(cbs.RefitWarning, match="too few to hold"):
        result = pruned(data=few)
    assert "60 samples are too few to hold 32 back" in result.history[-1].reselection["left_out"]
    assert sum(kept(result).values()) == round(0.3 * 114)


def test_more_weights_are_left_to_it():
    network = Network(seeded(mlp, sizes=SIZES), samples(300))
    asked = Request(0.9, refit="network", reselect=True)
    wider = widened(asked, network)
    assert (wider.certify, wider.solver) == (False, "greedy")
    assert round((1 - wider.fraction) * 114) == 3 * round(0.1 * 114)
    assert widened(replace(asked, sparsity=0.1), network).sparsity == pytest.approx(0.0)
    pattern = widened(Request(budget="2:4", refit="network", reselect=True), network)
    assert (pattern.budget, pattern.sparsity) == ("2:4", None)


def test_pools_never_fall():
    network = Network(seeded(mlp, 1, sizes=(6, 8, 6, 4)), samples(100))
    for asked in (
        Request(0.5),
        Request(0.5, scope="layer"),
        Request(0.5, scope="row"),
        Request(budget="1:2"),
    ):
        pools, keep = pools_of(asked, network)
        flat = np.concatenate([pools[layer.name].reshape(-1).numpy() for layer in network.layers])
        assert bool((np.diff(flat) >= 0).all())
        assert len(keep) == flat.max() + 1
        assert int(keep.sum()) == math.ceil(0.5 * len(flat))


@pytest.mark.parametrize("options", [{"budget": "columns"}, {"granularity": "neurons"}])
def test_refusals(options):
    with pytest.raises(
        ValueError, match=r"^reselect chooses single weights, in budgets 'unstructured' and N:M"
    ):
        Request(0.5, refit="network", reselect=True, **options)
    with pytest.raises(ValueError, match=r"^reselect comes before refit 'network'; give that too, or drop"):
        Request(0.5, reselect=True)
    with pytest.raises(ValueError, match=r"^reselect must be True, False or None, got 'x'$"):
        Request(0.5, refit="network", reselect="x")
    network = Network(seeded(mlp), samples(100))
    assert unfit(network, Request(0.5, **options)) is not None
    assert unfit(network, Request(0.5)) is None


@pytest.mark.parametrize(
    ("options", "done"),
    [
        ({}, True),
        ({"reselect": False}, False),
        ({"method": "magnitude"}, False),  # its masks are what was asked for
        ({"method": "magnitude", "reselect": True}, True),
        ({"refit": None}, False),
        ({"budget": "columns"}, False),
    ],
)
def test_where_nobody_says_masks_by_any_solver_are_chosen_anew(options, done):
    asked = {"refit": "network", "solver": "auto", "certify": False, "patience": 2.0, **options}
    result = cbs.prune(seeded(mlp, sizes=SIZES), samples(300, seed=2), sparsity=0.6, **asked)
    assert (result.history[-1].reselection is not None) is done
    if options.get("budget") != "columns":
        assert sum(kept(result).values()) == round(0.4 * sum(a * b for a, b in itertools.pairwise(SIZES)))
