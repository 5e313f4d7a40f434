"""Branching goes where both sides should gain, and expected gains are near those that are found."""

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.bounds.node.restriction import part_of
from solvers.exact.grouped import node
from solvers.exact.grouped.branching import choose, rises, slow
from solvers.exact.grouped.node import left_of, relax
from solvers.form.blocks import blocks
from tests.solvers.exact.grouped.test_group_tree import planted, run


def test_a_stiff_share_rises_more_and_on_the_side_that_moves_it_further():
    down, up = rises(np.array([0.5, 0.5, 0.2]), np.array([1.0, 4.0, 1.0]))
    assert down == pytest.approx([1 / 8, 1 / 32, 1 / 50])
    assert up == pytest.approx([1 / 8, 1 / 32, 8 / 25])


def test_the_entry_that_gains_most_on_both_sides_is_chosen():
    z = np.full(3, 0.5)
    assert choose(np.array([[1.0, 3.0, 2.0], [1.0, 3.0, 4.0]]), z, 100.0) == 1
    assert choose(np.array([[10.0, 2.0, 0.0], [0.0, 2.0, 10.0]]), z, 100.0) == 1


def test_what_passes_the_cutoff_counts_no_more():
    assert choose(np.array([[9.0, 1.0], [0.5, 1.0]]), np.full(2, 0.5), 1.0) == 1


def test_where_nothing_should_gain_shares_decide():
    assert choose(np.zeros((2, 3)), np.array([0.01, 0.55, 0.99]), 1.0) == 1


def test_branching_is_slow_where_the_worse_side_of_the_best_entry_gains_little():
    gains, z = np.array([[9.0, 3.0, 5.0], [0.1, 3.0, 0.2]]), np.full(3, 0.5)
    assert not slow(gains, z, 10.0)
    assert slow(gains, z, 31.0)
    assert not slow(gains, z, -1.0)  # nothing is left to gain


def test_expected_gains_are_near_those_of_the_children(monkeypatch):
    for name in ("WARM", "FIRST"):  # cold enough for relaxations near their best, whose difference is told
        monkeypatch.setattr(node, name, 0.3)
    like, ratio = [], []
    for seed in (1, 2, 3):
        rng = np.random.default_rng(seed)
        X = rng.standard_normal((12, 24))
        H = X.T @ X / 12 + 1e-2 * np.eye(24)
        block = blocks(SubsetProblem(rng.standard_normal((1, 24)), H, Budget.per_row(14)))[0]
        fix, value = np.zeros(24, np.int8), run(planted(block)).value
        part, never = part_of(block), lambda: None
        free, left = left_of(part, block.rows, fix)
        root = relax(left, free, fix, None, value, np.inf, never)
        expected, found = [], []
        for entry in np.argsort(np.abs(root.z - 0.5))[:10].tolist():
            for row, side in enumerate((-1, 1)):
                child = fix.copy()
                child[entry] = side
                free, left = left_of(part, block.rows, child)
                expected.append(root.gains[row, entry])
                found.append(relax(left, free, child, root.seed, value, np.inf, never).bound - root.bound)
        like.append(np.corrcoef(expected, found)[0, 1])
        ratio.append(np.sum(expected) / np.sum(found))
    assert min(like) > 0.8
    assert 0.5 < np.median(ratio) < 2.0
