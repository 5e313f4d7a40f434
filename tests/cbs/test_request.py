import pytest
from torch import nn

from cbs.network.layers import Layer
from cbs.request import Request

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
    pools = budget.pools(7, 10)
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
        ({"sparsity": 0.5, "budget": "5:4"}, "budget '5:4' must keep between 1 and 4"),
        ({"sparsity": 0.75, "budget": "2:4"}, "sparsity 0.75 disagrees with budget '2:4', which prunes 0.5"),
        ({"sparsity": "0.5"}, r"sparsity must lie in \[0, 1\), got '0.5'"),
        ({"sparsity": [0.5]}, r"sparsity must lie in \[0, 1\), got \[0.5\]"),
        ({"sparsity": 0.5, "budget": None}, "unknown budget None"),
        ({"sparsity": 0.5, "gap": "0.1"}, "gap must be a finite number >= 0, got '0.1'"),
        ({"sparsity": 0.5, "patience": "1"}, "patience must be positive seconds or None, got '1'"),
        ({"sparsity": 0.5, "time_limit": "5"}, "time_limit must be positive seconds or None, got '5'"),
        ({"sparsity": 0.5, "time_limit": 0}, "time_limit must be positive seconds or None, got 0"),
    ],
)
def test_bad_requests_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        Request(**options)
    assert "\n" not in str(error.value)


def test_a_pattern_must_divide_the_inputs():
    with pytest.raises(ValueError, match="budget '2:4': 4 does not divide the 10 inputs of layer 'fc'"):
        Request(None, budget="2:4").layer_budget(LAYER)
