import numpy as np
import pytest
import torch
from torch import nn

from cbs.formulation import (
    Weights,
    array,
    damped_block,
    factor,
    flat_budget,
    layer_objective,
    layer_weights,
    pruned,
    refitted,
    smallest,
)  # fmt: skip
from cbs.network.layers import Layer
from solvers import Budget
from tests.cbs.networks import seeded


def linear(bias=True, n=5, m=3):
    return Layer("fc", seeded(nn.Linear, in_features=n, out_features=m, bias=bias).double())


def gram(n, bias, seed=0):
    X = torch.randn(40, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    if bias:
        X = torch.cat([X + 1, torch.ones(40, 1, dtype=torch.float64)], 1)
    return X.T @ X / 40


@pytest.mark.parametrize("bias", [True, False])
def test_damping_is_relative_to_the_weights_part_and_spares_the_bias(bias):
    H = gram(5, bias)
    objective = layer_objective(linear(bias), H, 0.1)
    added = objective.H - array(H)
    expected = 0.1 * float(H.diagonal()[:5].mean())
    assert objective.damping == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(np.diagonal(added)[:5], expected)
    assert np.abs(added - np.diag(np.diagonal(added))).max() == 0
    if bias:
        assert added[5, 5] == 0


def test_damping_of_a_layer_without_input_is_absolute():
    objective = layer_objective(linear(False), torch.zeros(5, 5), 0.1)
    assert objective.damping == 0.1


@pytest.mark.parametrize("bias", [True, False])
def test_the_problem_and_the_objective_agree(bias, rng):
    layer = linear(bias)
    objective = layer_objective(layer, gram(5, bias), 0.01)
    problem = objective.problem(Budget.per_row(2))
    assert problem.movable.tolist() == ([5] if bias else [])
    mask = np.zeros(problem.W.shape, dtype=bool)
    for r in range(3):
        mask[r, rng.choice(5, 2, replace=False)] = True
    answer = pruned(problem, mask, problem.weights(mask))
    assert (answer.weights.W[answer.mask] == 0).all()
    assert (answer.weights.bias is None) == (not bias)
    values = objective.row_values(answer.weights)
    np.testing.assert_allclose(values, problem.row_values(mask), rtol=1e-10)
    assert values.min() > 0


def test_a_singular_objective_names_its_layer():
    objective = layer_objective(linear(False), torch.zeros(5, 5), 0.0)
    with pytest.raises(ValueError, match="layer 'fc': hessian is singular"):
        objective.problem(Budget.per_row(1))


def test_factors_are_damped_by_their_own_columns(rng):
    X = rng.standard_normal((7, 6)) * np.arange(1, 7)
    whole = factor(torch.from_numpy(X), 0.5)
    assert whole.damping == pytest.approx(0.5 * np.mean(X**2 * 6) / 6, rel=1e-12)
    block = damped_block(whole, np.array([1, 4]), 0.5)
    np.testing.assert_array_equal(block.X, X[:, [1, 4]])
    assert block.damping == pytest.approx(0.5 * np.mean(X[:, [1, 4]] ** 2), rel=1e-12)


@pytest.mark.parametrize("budget", [Budget.per_row(2), Budget.per_layer(5), Budget.n_of_m(1, 2)])
def test_flat_budgets_are_the_same_sets(budget, rng):
    scores = rng.random((3, 4))
    expected = budget.pools(3, 4).smallest(scores)
    found = flat_budget(budget, 3, 4).pools(1, 12).smallest(scores.reshape(1, 12))
    np.testing.assert_array_equal(found.reshape(3, 4), expected)


def test_columns_have_no_flat_budget():
    with pytest.raises(ValueError, match="couples the rows"):
        flat_budget(Budget.columns(1), 3, 4)


def test_smallest_shares_one_count_among_layers(rng):
    scores = [rng.random((2, 3)), 0.2 * rng.random((4, 2))]
    masks = smallest(scores, 9)
    limit = np.sort(np.concatenate([s.ravel() for s in scores]))[8]
    for mask, s in zip(masks, scores, strict=True):
        np.testing.assert_array_equal(mask, s <= limit)


def test_smallest_ranks_columns_by_their_sums(rng):
    scores = rng.random((4, 6))
    (mask,) = smallest([scores], [Budget.columns(2)])
    np.testing.assert_array_equal(np.flatnonzero(mask[0]), np.sort(np.argsort(scores.sum(0))[:2]))
    assert mask.shape == (4, 6)
    assert (mask == mask[0]).all()


@pytest.mark.parametrize("bias", [True, False])
def test_refitting_is_least_squares_on_the_new_inputs(bias, rng):
    layer, N = linear(bias), 50
    x = rng.standard_normal((N, 5)) + 0.5
    z = x + 0.3 * rng.standard_normal((N, 5))
    ones = np.ones((N, int(bias)))
    X, Z = np.hstack([x, ones]), np.hstack([z, ones])
    mask = rng.random((3, 5)) < 0.5
    K, C = torch.from_numpy(Z.T @ Z / N), torch.from_numpy(X.T @ Z / N)
    answer = refitted(layer, K, C, 0.05, mask)
    c = 0.05 * np.mean(np.diagonal(K.numpy())[:5])
    dense = layer_weights(layer)
    for r in range(3):
        keep = np.append(~mask[r], np.ones(int(bias), dtype=bool))
        ridge = np.sqrt(c * N) * np.eye(5 + int(bias))[:5]
        A = np.vstack([Z, ridge])[:, keep]
        b = np.concatenate([X @ dense.augmented[r], ridge @ dense.augmented[r]])
        expected = np.zeros(5 + int(bias))
        expected[keep] = np.linalg.lstsq(A, b, rcond=None)[0]
        np.testing.assert_allclose(answer.weights.augmented[r], expected, atol=1e-10)


def test_weights_of_convolutions_are_matrices():
    conv = seeded(nn.Conv2d, in_channels=2, out_channels=3, kernel_size=2)
    weights = layer_weights(Layer("conv", conv))
    assert weights.W.shape == (3, 8)
    np.testing.assert_array_equal(weights.augmented[:, 8], conv.bias.detach().double().numpy())
    assert Weights(weights.W, None).augmented is weights.W


def test_arrays_are_copies():
    t = torch.zeros(2, dtype=torch.float64)
    array(t)[0] = 1
    assert t.tolist() == [0, 0]
