import json
from dataclasses import fields
from functools import partial

import pytest
from torch import nn

from cbs.network.layers import Layer, find_layers
from cbs.network.losses import named_loss
from cbs.request import Request
from cbs.schedule.growth import Schedule
from solvers.heuristics.portfolio import Portfolio

LAYER = Layer("fc", nn.Linear(10, 7))


@pytest.mark.parametrize(
    ("options", "kind", "pruned"),
    [
        ({"sparsity": 0.25, "scope": "row"}, "per_row", 7 * 2),
        ({"sparsity": 0.26, "scope": "row"}, "per_row", 7 * 3),
        ({"sparsity": 0.34, "scope": "layer"}, "per_layer", 24),
        ({"sparsity": 0.0, "scope": "layer"}, "per_layer", 0),
        ({"sparsity": 0.6, "budget": "columns", "scope": "network"}, "columns", 7 * 6),
        ({"sparsity": None, "budget": "2:5"}, "n_of_m", 7 * 6),
        ({"sparsity": 0.6, "budget": "2:5", "scope": "network"}, "n_of_m", 7 * 6),
    ],
)
def test_layers_prune_the_rounded_share_of_each_pool(options, kind, pruned):
    budget = Request(**options).layer_budget(LAYER)
    assert budget.kind == kind
    pools = budget.laid_over(7, 10)
    assert pools.prune.sum() * (7 if pools.coupled else 1) == pruned


def test_the_network_prunes_the_rounded_share_of_all():
    layers = [LAYER, Layer("out", nn.Linear(7, 3))]
    assert Request(0.333, scope="network").network_count(layers) == round(0.333 * 91)
    assert Request(0.333, scope="network").pooled
    assert not Request(0.5, scope="network", budget="1:2").pooled
    assert not Request(0.5, scope="network", budget="columns").pooled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, r"sparsity must lie in \[0, 1\), got 1.0"),
        ({"sparsity": -0.1}, "sparsity must lie in"),
        ({"sparsity": float("nan")}, "sparsity must lie in"),
        ({"sparsity": None}, "sparsity must be given for budget 'unstructured'"),
        ({"sparsity": 0.5, "scope": "rows"}, "unknown scope 'rows'; did you mean 'row'"),
        ({"sparsity": 0.5, "scope": "x"}, "unknown scope 'x'; known: row, layer, network"),
        ({"sparsity": 0.5, "budget": "column"}, "unknown budget 'column'; did you mean 'columns'"),
        ({"sparsity": 0.5, "budget": "0:4"}, "budget '0:4' must keep between 1 and 4"),
        ({"sparsity": 0.5, "budget": "3:0"}, "budget '3:0' must keep N of every M weights, 1 <= N <= M"),
        ({"sparsity": 0.5, "budget": "5:4"}, "budget '5:4' must keep between 1 and 4"),
        ({"sparsity": 0.75, "budget": "2:4"}, "sparsity 0.75 disagrees with budget '2:4', which prunes 0.5"),
        ({"sparsity": "0.5"}, r"sparsity must lie in \[0, 1\), got '0.5'"),
        ({"sparsity": [0.5]}, r"sparsity must lie in \[0, 1\), got \[0.5\]"),
        ({"sparsity": 0.5, "budget": None}, "unknown budget None"),
        ({"sparsity": 0.5, "gap": "0.1"}, "gap must be a finite number >= 0, got '0.1'"),
        ({"sparsity": 0.5, "patience": "1"}, "patience must be positive seconds or None, got '1'"),
        ({"sparsity": 0.5, "damping": -1.0}, "damping must be a finite number >= 0, got -1.0"),
        ({"sparsity": 0.5, "damping": "0.1"}, "damping must be a finite number >= 0, got '0.1'"),
        ({"sparsity": 0.5, "samples": 0}, "samples must be at least 1 or None, and whole, got 0"),
        ({"sparsity": 0.5, "samples": True}, "samples must be at least 1 or None, and whole, got True"),
        ({"sparsity": 0.5, "time_limit": "5"}, "time_limit must be positive seconds or None, got '5'"),
        ({"sparsity": 0.5, "time_limit": 0}, "time_limit must be positive seconds or None, got 0"),
        ({"sparsity": 0.5, "certify": "no"}, "certify must be True or False, got 'no'"),
        ({"sparsity": 0.5, "refit": "all"}, "unknown refit 'all'"),
        ({"sparsity": 0.5, "refit": "network", "match": "logits"}, "unknown match 'logits'"),
        ({"sparsity": 0.5, "labels": True}, "labels says what refit 'network' does"),
        ({"sparsity": 0.5, "refit": "network", "match": "outputs", "labels": True}, "drop one"),
        ({"sparsity": 0.5, "refit": "network", "labels": None}, "labels must be True or False, got None"),
        ({"sparsity": 0.5, "device": True}, "device must be a name, such as 'cpu' or 'cuda', got True"),
    ],
)
def test_bad_requests_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        Request(**options)
    assert "\n" not in str(error.value)


def test_a_pattern_must_divide_the_inputs():
    with pytest.raises(ValueError, match="budget '2:4': 4 does not divide the 10 inputs of layer 'fc'"):
        Request(budget="2:4").layer_budget(LAYER)


def loss(outputs, targets):
    return ((outputs - targets) ** 2).mean()


def test_a_request_is_ready_for_json_and_comes_back():
    for given, text in (
        ("mse_loss", "mse_loss"), (nn.functional.l1_loss, "l1_loss"), (loss, f"{__name__}:loss"),
        (nn.MSELoss(), "torch.nn.modules.loss:MSELoss"), (partial(loss), "functools:partial"),
    ):  # fmt: skip
        request = Request(0.5, loss=given, layers=("0",), time_limit=3)
        record = json.loads(json.dumps(request.to_dict()))
        assert list(record) == [field.name for field in fields(Request)]
        assert (record["loss"], record["layers"], record["method"]) == (text, ["0"], "joint")
        assert Request(**record).to_dict() == record


def test_losses_have_names():
    assert named_loss("mse_loss") is nn.functional.mse_loss
    assert named_loss(loss) is loss
    for wrong, message in (
        ("mse_los", "unknown loss 'mse_los'; did you mean 'mse_loss'"),
        ("mine:loss", "unknown loss 'mine:loss'"),
        (3, "loss must be a name or be called with outputs and targets, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            named_loss(wrong)


def test_a_solver_of_ones_own_is_told_in_words():
    own = Portfolio(share=0.25)
    request = Request(0.5, solver=own)
    assert request.solver is own
    assert request.to_dict()["solver"] == repr(own)
    assert Request(0.5, solver="greedy").to_dict()["solver"] == "greedy"


def test_a_single_layer_has_the_networks_budget_to_itself():
    (layer,) = find_layers(nn.Sequential(nn.Linear(4, 3)))
    asked = Request(0.5, scope="network")
    assert asked.of([layer]).scope == "layer"
    assert asked.of([layer, layer]) is asked
    assert Request(0.5, scope="row").of([layer]).scope == "row"


def test_stages_may_be_as_typed():
    """As files of studies say them."""
    assert Request(0.9, stages="3:late:return").schedule == Schedule(3, growth="late", deleted="return")
    assert (
        Request(0.9, stages="3:late").to_dict() == Request(0.9, stages=Schedule(3, growth="late")).to_dict()
    )
    with pytest.raises(ValueError, match=r"stages '3:lat'.*not 'lat'"):
        Request(0.9, stages="3:lat")
