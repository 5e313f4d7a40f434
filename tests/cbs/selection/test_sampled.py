"""Greedy curves of wide layers, from some of their rows."""

import numpy as np

import cbs
from cbs.selection import shares
from cbs.selection.sampled import sampled_curves
from solvers.greedy.curves import row_curves
from solvers.hessian import as_hessian
from tests.cbs.networks import mlp, samples, seeded


def layer(m=40, n=24, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((3 * n, n)) @ rng.standard_normal((n, n))
    W = rng.standard_normal((m, n)) * rng.uniform(0.2, 3.0, (m, 1))
    return W, as_hessian(X.T @ X / len(X) + 0.01 * np.eye(n), m, n, definite=True)


def test_rows_that_were_eliminated_have_their_own_curves():
    W, H = layer()
    known, found = row_curves(W, H), sampled_curves(W, H, 10)
    same = [r for r in range(len(W)) if np.array_equal(found.values[r], known.values[r])]
    assert len(same) == 10
    assert np.array_equal(found.order[same], known.order[same])
    all_of_them = sampled_curves(W, H, len(W))
    np.testing.assert_array_equal(all_of_them.values, known.values)


def test_the_others_are_near_their_own():
    W, H = layer()
    known, found = row_curves(W, H).values, sampled_curves(W, H, 10).values
    middle = slice(8, 20)  # before, costs are near zero; after, they are the whole row's
    off = np.abs(found[:, middle] / known[:, middle] - 1)
    assert np.median(off) < 0.35
    assert (np.diff(found, axis=1) >= 0).all()
    ranks = [np.argsort(np.argsort(curves[:, 12])) for curves in (known, found)]
    assert np.corrcoef(*ranks)[0, 1] > 0.95  # which rows are dear, and which are cheap
    assert (np.sort(sampled_curves(W, H, 10).order, axis=1) == np.arange(W.shape[1])).all()


def test_a_budget_for_the_network_is_met_and_loses_little(monkeypatch):
    ask = {"sparsity": 0.6, "solver": "greedy", "certify": False}
    known = cbs.prune(seeded(mlp), samples(), **ask)
    monkeypatch.setattr(shares, "WORK", 1.0)
    monkeypatch.setattr(shares, "FEWEST", 2)
    found = cbs.prune(seeded(mlp), samples(), **ask)
    assert found.sparsity == known.sparsity
    assert found.value != known.value
    assert found.value < 4 * known.value
