"""Facts of an instance, and the budget that they say."""

import math

import pytest

from solvers import Budget
from solvers.instances.item import Known, budget_of


@pytest.mark.parametrize(
    ("facts", "budget"),
    [
        ({"kind": "per_row", "prune": 3}, Budget.per_row(3)),
        ({"kind": "per_layer", "prune": 3}, Budget.per_layer(3)),
        ({"kind": "columns", "prune": 3}, Budget.columns(3)),
        ({"kind": "n_of_m", "keep": 2, "of": 4}, Budget.n_of_m(2, 4)),
    ],
)
def test_budgets(facts, budget):
    assert budget_of(facts) == budget


@pytest.mark.parametrize(
    "facts", [{"kind": "row", "prune": 3}, {"kind": "per_row"}, {"kind": "n_of_m", "prune": 1}]
)
def test_budgets_that_are_none(facts):
    with pytest.raises(ValueError, match="known: per_row, per_layer"):
        budget_of(facts)


def test_gap_and_status():
    assert Known().gap == math.inf
    assert Known(2.0, 1.0).gap == 0.5
    assert Known(-1.0, -2.0).gap == 1.0
    assert Known(0.0, 0.0).gap == 0.0
    assert Known(0.0, -1.0).gap == math.inf
    assert (Known(1.0, 0.9999).status, Known(1.0, 0.9998).status) == ("proven", "open")
    assert Known(1.0).status == "open"
