"""Pseudo-costs: what was learnt decides, and the mean where nothing was."""

import numpy as np

from solvers.exact.grouped.branching import Costs


def test_the_entry_that_gained_most_on_both_sides_is_chosen():
    costs, z = Costs(4), np.array([0.5, 0.5, 0.5, 0.5])
    for entry, gain in ((0, 1.0), (1, 4.0), (2, 2.0), (3, 3.0)):
        costs.learn(entry, 1, gain, 0.5)
        costs.learn(entry, -1, gain, 0.5)
    assert costs.choose(np.arange(4), z, 100.0) == 1
    assert costs.choose(np.array([0, 2, 3]), z[:3], 100.0) == 2


def test_one_sided_gains_count_less():
    costs = Costs(2)
    costs.learn(0, 1, 10.0, 0.5)
    costs.learn(0, -1, 0.0, 0.5)
    costs.learn(1, 1, 2.0, 0.5)
    costs.learn(1, -1, 2.0, 0.5)
    assert costs.choose(np.arange(2), np.array([0.5, 0.5]), 100.0) == 1


def test_unknown_entries_go_by_their_shares():
    assert Costs(3).choose(np.arange(3), np.array([0.01, 0.55, 0.99]), 1.0) == 1
