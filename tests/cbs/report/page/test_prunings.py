import math

from cbs.report.page.cells import prepared
from cbs.report.page.prunings import best, dense_accuracy, layers, networks, pools, stages
from tests.cbs.report.page.cells_for_tests import frame, prune


def test_dense_accuracy_in_every_form():
    assert dense_accuracy({"dense_accuracy": 0.9}) == 0.9
    assert dense_accuracy({"measured": {"test_before": None, "before": {"accuracy": 0.8}}}) == 0.8
    assert math.isnan(dense_accuracy({"dense_accuracy": None, "measured": None}))


def test_the_best_of_every_sparsity():
    rows = [prune("a", 0.9, 0.7), prune("b", 0.5, 0.8), prune("c", 0.5, 0.8, loss=0.1), prune("d", 0.5, None)]
    (cells,) = networks(prepared(frame(*rows))).values()
    assert cells["rank"].tolist() == [2, 1, 0, 3]
    assert best(cells)["label"].tolist() == ["c", "a"]


def test_layers_have_gaps_and_sparsities():
    found = layers(prune("a", 0.5, 0.9, value=1.0, bound=0.5)["result"])
    assert [layer["sparsity"] for layer in found] == [0.5, 0.5]
    assert [layer["gap"] for layer in found] == [0.5, 0.75]
    assert layers({"layers": "none"}) == []


def test_budgets_that_do_not_compare():
    plain = {"label": "joint", "options": {}, "budget": "unstructured", "result": {}}
    assert pools(plain) == "unstructured"
    assert pools(plain | {"options": {"granularity": "neurons"}}) == "neurons"
    assert pools(plain | {"result": {"neurons": [1]}}) == "neurons"
    assert pools(plain | {"label": "neuron-joint"}) == "neurons"


def test_stages_tell_the_last_accuracy():
    history = [
        {"sparsity": 0.5, "pruned": {"accuracy": 0.7}, "test_pruned": {"accuracy": 0.6}, "seconds": 1.0},
        {"sparsity": 0.9, "pruned": {"accuracy": 0.5}, "tuned": {"accuracy": 0.8}, "test_tuned": None},
    ]
    assert [stage["accuracy"] for stage in stages({"history": history})] == [0.6, 0.8]
    assert stages({"history": history[:1]}) == []
