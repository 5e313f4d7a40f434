"""Grids: the nearest of all levels, and never a larger error for having been searched."""

import itertools

import numpy as np
import pytest

from cbs.quantization.grid import fit


@pytest.fixture
def W(rng):
    return rng.standard_normal((5, 12)) * np.array([[1.0], [0.01], [30.0], [1.0], [1.0]])


def error(grid, W, pruned):
    return np.square(np.where(pruned, 0.0, W - grid.values(grid.nearest(W)))).sum(axis=1)


@pytest.mark.parametrize("per", ["row", "tensor"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_codes_are_of_the_nearest_of_all_levels(W, per, bits):
    none = np.zeros(W.shape, dtype=bool)
    for kind in ("range", "search"):
        grid = fit(W, none, bits, per, kind)
        levels = np.broadcast_to(grid.levels, (5, 2**bits))
        best = np.abs(W[:, :, None] - levels[:, None, :]).min(axis=2)
        np.testing.assert_allclose(
            np.abs(W - grid.values(grid.nearest(W))), best, atol=1e-6 * np.abs(W).max()
        )


def test_a_range_reaches_from_the_least_to_the_largest_weight_that_is_kept(W):
    pruned = np.zeros(W.shape, dtype=bool)
    pruned[0, np.argmax(W[0])] = True
    grid = fit(W, pruned, 3, "row", "range")
    kept = np.where(pruned, np.nan, W)
    np.testing.assert_allclose(grid.levels[:, 0], np.nanmin(kept, axis=1), rtol=1e-6)
    np.testing.assert_allclose(grid.levels[:, -1], np.nanmax(kept, axis=1), rtol=1e-6)
    whole = fit(W, pruned, 3, "tensor", "range")
    assert whole.levels.shape == (1, 8)
    assert whole.levels[0, [0, -1]] == pytest.approx([np.nanmin(kept), np.nanmax(kept)])


@pytest.mark.parametrize("per", ["row", "tensor"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_searching_never_makes_the_squared_error_larger(W, per, bits):
    pruned = np.random.default_rng(1).random(W.shape) < 0.3
    plain, searched = (error(fit(W, pruned, bits, per, kind), W, pruned) for kind in ("range", "search"))
    if per == "tensor":
        plain, searched = plain.sum(keepdims=True), searched.sum(keepdims=True)
    assert (searched <= plain).all()
    if bits == 2:
        assert (searched < 0.95 * plain).any()


def test_two_bits_are_near_the_best_of_all_grids():
    """Against the best uniform grid by enumeration: every ordered assignment of codes, by least squares."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        w = np.sort(rng.standard_normal(7))
        best = np.inf
        for cuts in itertools.combinations_with_replacement(range(8), 3):
            q = np.searchsorted(cuts, np.arange(7), side="right").astype(float)
            A = np.column_stack([np.ones(7), q])
            fitted = A @ np.linalg.lstsq(A, w, rcond=None)[0]
            best = min(best, np.square(w - fitted).sum())
        found = error(fit(w[None], np.zeros((1, 7), dtype=bool), 2), w[None], np.zeros((1, 7), dtype=bool))
        assert best * (1 - 1e-6) <= found[0] <= 2 * best


def test_rows_without_weights_or_with_one_value_have_one_level():
    W = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [7.0, 8.0, 9.0]])
    pruned = np.array([[True] * 3, [False] * 3, [True, False, True]])
    for kind in ("range", "search"):
        grid = fit(W, pruned, 4, "row", kind)
        values = grid.values(grid.nearest(W))
        assert grid.step.tolist()[:2] == [0, 0]
        assert values[1].tolist() == [5, 5, 5]
        assert values[2, 1] == 8
        assert np.isfinite(values).all()
