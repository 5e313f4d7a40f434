"""Quadratic models: against the problems made of them, dense algebra, and models laid out the other way."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cbs.budgets import flat_budget, smallest
from cbs.change import Weights, array, layer_weights
from cbs.curvature.fisher import damped_factor
from cbs.curvature.gram import layer_quadratic
from cbs.network.layers import Layer
from cbs.quadratic import Diagonal, Quadratic
from cbs.selection import Solve
from solvers import Budget
from tests.cbs.networks import seeded

NONE = np.zeros((3, 5), dtype=bool)


def linear(bias=True, n=5, m=3):
    return Layer("fc", seeded(nn.Linear, in_features=n, out_features=m, bias=bias).double())


def gram(n, bias, seed=0):
    X = torch.randn(40, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    if bias:
        X = torch.cat([X + 1, torch.ones(40, 1, dtype=torch.float64)], 1)
    return X.T @ X / 40


def model_of(bias, damping=0.01, earlier=NONE):
    return layer_quadratic(0, linear(bias), gram(5, bias), damping, earlier)


def flat_of(rng, shapes=((3, 4), (2, 3)), damping=0.1):
    dense = [Weights(rng.standard_normal(shape), None) for shape in shapes]
    X = rng.standard_normal((8, sum(W.W.size for W in dense)))
    none = [np.zeros(shape, dtype=bool) for shape in shapes]
    return Quadratic(range(len(dense)), dense, damped_factor(X, damping), none, None, damping, flat=True)


@pytest.mark.parametrize("bias", [True, False])
def test_damping_is_relative_to_the_weights_part_and_spares_the_bias(bias):
    H = gram(5, bias)
    model = layer_quadratic(0, linear(bias), H, 0.1, NONE)
    added = model.H - array(H)
    expected = 0.1 * float(H.diagonal()[:5].mean())
    assert model.damping == pytest.approx(expected, rel=1e-14)
    np.testing.assert_allclose(np.diagonal(added)[:5], expected)
    assert np.abs(added - np.diag(np.diagonal(added))).max() == 0
    np.testing.assert_allclose(model.diagonal, H.diagonal()[:5], rtol=1e-12)
    if bias:
        assert added[5, 5] == 0


def test_damping_of_a_layer_without_input_is_absolute():
    assert layer_quadratic(0, linear(False), torch.zeros(5, 5), 0.1, NONE).damping == 0.1


@pytest.mark.parametrize("bias", [True, False])
def test_the_problem_and_the_model_agree(bias, rng):
    model = model_of(bias)
    problem = model.problem(Budget.per_row(2))
    assert problem.movable.tolist() == ([5] if bias else [])
    mask = np.zeros((3, 5), dtype=bool)
    for r in range(3):
        mask[r, rng.choice(5, 2, replace=False)] = True
    wide = model.join([mask])
    rows = model.refit([mask], problem)
    np.testing.assert_allclose(rows, model.refit([mask]), rtol=1e-12)
    (change,) = model.changes([mask], rows)
    assert (change.weights.W[mask] == 0).all()
    assert (change.weights.bias is None) == (not bias)
    values = model.row_values([change.weights])
    np.testing.assert_allclose(values, problem.row_values(wide), rtol=1e-10)
    assert values.min() > 0
    still = model.problem(Budget.per_row(2), refit=False)
    assert still.W.shape == (3, 5)
    D = np.where(mask, -model.W[:, :5], 0.0)
    np.testing.assert_allclose(still.row_values(mask), 0.5 * np.einsum("ri,ij,rj->r", D, model.H[:5, :5], D))


@pytest.mark.parametrize("bias", [True, False])
def test_scales_multiply_every_rows_objective(bias, rng):
    model, scales = model_of(bias), np.array([0.0, 0.5, 3.0])
    mask = model.join([np.tile(np.arange(5) < 2, (3, 1))])
    plain, scaled = (model.problem(Budget.per_row(2), scales=s).row_values(mask) for s in (None, scales))
    np.testing.assert_allclose(scaled, scales * plain, rtol=1e-10)


def test_a_singular_model_names_its_layer():
    model = layer_quadratic(0, linear(False), torch.zeros(5, 5), 0.0, NONE)
    with pytest.raises(ValueError, match="layer 'fc': hessian is singular"):
        model.problem(Budget.per_row(1))


@pytest.mark.parametrize("bias", [True, False])
def test_inverse_diagonals_and_single_updates_are_those_of_the_dense_inverse(bias, rng):
    model, mask = model_of(bias), rng.random((3, 5)) < 0.5
    C = np.linalg.inv(model.H)
    np.testing.assert_allclose(model.inverse_diagonal, np.diagonal(C)[:5], rtol=1e-9)
    found = model.single_updates([mask])
    for r in range(3):
        expected = model.W[r].copy()
        for q in np.flatnonzero(mask[r]):
            expected -= model.W[r, q] / C[q, q] * C[:, q]
        expected[:5][mask[r]] = 0.0
        np.testing.assert_allclose(found[r], expected, rtol=1e-9, atol=1e-12)


def test_rows_with_earlier_masks_of_their_own_have_inverses_of_their_own(rng):
    earlier = np.zeros((3, 5), dtype=bool)
    earlier[0, 1] = earlier[2, [0, 3]] = True
    model = model_of(True, earlier=earlier)
    for r in range(3):
        keep = np.append(~earlier[r], True)
        C = np.linalg.inv(model.H[np.ix_(keep, keep)])
        np.testing.assert_allclose(model.inverse_diagonal[r][keep[:5]], np.diagonal(C)[:-1], rtol=1e-9)


def test_a_flat_model_is_the_model_of_all_its_weights(rng):
    model = flat_of(rng)
    masks = [rng.random(W.W.shape) < 0.5 for W in model.dense]
    w, gone = np.concatenate([W.W.ravel() for W in model.dense]), np.concatenate([m.ravel() for m in masks])
    H = model.H.X.T @ model.H.X / 8 + model.H.damping * np.eye(len(w))
    C, P = np.linalg.inv(H), np.flatnonzero(gone)
    expected = w - C[:, P] @ np.linalg.solve(C[np.ix_(P, P)], w[P])
    changes = model.changes(masks, model.refit(masks))
    moved = np.concatenate([change.weights.W.ravel() for change in changes])
    np.testing.assert_allclose(moved, np.where(gone, 0, expected), rtol=1e-8, atol=1e-10)
    D = moved - w
    damage = model.damage([change.weights for change in changes])
    assert damage.sum() == pytest.approx(0.5 * D @ (H - model.H.damping * np.eye(len(w))) @ D, rel=1e-9)


def test_columns_of_a_flat_layer_are_chosen_by_what_they_cost_together(rng):
    model = flat_of(rng, shapes=((3, 4),))
    problem = model.problem(Budget.columns(2), refit=False)
    H = model.H.X.T @ model.H.X / 8 + model.H.damping * np.eye(12)
    for chosen in itertools.combinations(range(4), 2):
        mask = np.isin(np.arange(4), chosen)[None]
        D = np.where(np.repeat(mask, 3, axis=0), model.dense[0].W, 0.0).ravel()
        assert problem.value(mask) == pytest.approx(0.5 * D @ H @ D, rel=1e-9)
        assert (model.masks(problem, mask)[0] == np.repeat(mask, 3, axis=0)).all()
    with pytest.raises(ValueError, match="couples the rows"):
        model.problem(Budget.columns(2))


def test_a_diagonal_moves_nothing_and_predicts_its_sum(rng):
    W, h = rng.standard_normal((3, 5)), rng.random((3, 5))
    model = Quadratic(range(1), [Weights(W, None)], Diagonal(h), [NONE])
    mask = rng.random((3, 5)) < 0.5
    rows = model.refit([mask])
    np.testing.assert_array_equal(rows, np.where(mask, 0, W))
    damage = model.damage([Weights(rows, None)])
    np.testing.assert_allclose(damage, 0.5 * np.where(mask, h * W**2, 0).sum(axis=1))


def test_what_was_pruned_before_stays_out_of_every_layout(rng):
    model = flat_of(rng)
    earlier = [rng.random(W.W.shape) < 0.3 for W in model.dense]
    model = replace(model, earlier=earlier)
    count = int(sum(mask.sum() for mask in earlier)) + 3
    problem = model.problem(Budget.per_layer(count), refit=False)
    anything = np.arange(problem.n)[None] < count
    for mask, known in zip(model.masks(problem, anything), earlier, strict=True):
        assert mask[known].all()


def test_factors_are_damped_by_their_own_columns(rng):
    X = rng.standard_normal((7, 6)) * np.arange(1, 7)
    assert damped_factor(X, 0.5).damping == pytest.approx(0.5 * np.mean(X**2 * 6) / 6, rel=1e-12)


@pytest.mark.parametrize("budget", [Budget.per_row(2), Budget.per_layer(5), Budget.n_of_m(1, 2)])
def test_flat_budgets_are_the_same_sets(budget, rng):
    scores = rng.random((3, 4))
    expected = budget.laid_over(3, 4).smallest(scores)
    found = flat_budget(budget, 3, 4).laid_over(1, 12).smallest(scores.reshape(1, 12))
    np.testing.assert_array_equal(found.reshape(3, 4), expected)


@pytest.mark.parametrize(
    ("budget", "message"), [(Budget.columns(1), "couples the rows"), (Budget.per_row([1, 2, 1]), "different")]
)
def test_budgets_that_have_no_flat_form(budget, message):
    with pytest.raises(ValueError, match=message):
        flat_budget(budget, 3, 4)


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
    model = layer_quadratic(0, layer, K, 0.05, NONE, C)
    (change,) = model.changes([mask], model.refit([mask]))
    c = 0.05 * np.mean(np.diagonal(K.numpy())[:5])
    dense = layer_weights(layer)
    for r in range(3):
        keep = np.append(~mask[r], np.ones(int(bias), dtype=bool))
        ridge = np.sqrt(c * N) * np.eye(5 + int(bias))[:5]
        A = np.vstack([Z, ridge])[:, keep]
        b = np.concatenate([X @ dense.augmented[r], ridge @ dense.augmented[r]])
        expected = np.zeros(5 + int(bias))
        expected[keep] = np.linalg.lstsq(A, b, rcond=None)[0]
        np.testing.assert_allclose(change.weights.augmented[r], expected, atol=1e-10)


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


def stacked_of(rng, bias=True, damping=0.0, earlier=NONE):
    """A model with a matrix of its own for every row, from weighted samples."""
    dense, used = layer_weights(linear(bias)), 5 + bias
    Z = np.column_stack([rng.standard_normal((40, 5)) + 0.5, np.ones(40)])[:, :used]
    H = np.einsum("sr,si,sj->rij", rng.random((40, 3)), Z, Z) / 40
    H[:, range(5), range(5)] += damping
    added = np.full(3, damping)
    return Quadratic(range(1), (dense,), H, (earlier,), "fc", added, bias=bias)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_rows_with_matrices_of_their_own_are_models_of_one_row_each(bias, damping, rng):
    model, mask = stacked_of(rng, bias, damping), rng.random((3, 5)) < 0.5
    moved = model.refit([mask])
    (dense,) = model.dense
    alone = [
        Quadratic(
            range(1), (Weights(dense.W[[r]], dense.bias[[r]] if bias else None),), model.H[r], (NONE[:1],),
            "fc", damping, bias=bias,
        )
        for r in range(3)
    ]  # fmt: skip
    (change,) = model.changes([mask], moved)
    for r, one in enumerate(alone):
        own = [mask[r : r + 1]]
        np.testing.assert_allclose(moved[r], one.refit(own)[0], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(model.settle([mask])[r], one.settle(own)[0], rtol=1e-12)
        np.testing.assert_allclose(model.single_updates([mask])[r], one.single_updates(own)[0], rtol=1e-9)
        np.testing.assert_allclose(model.inverse_diagonal[r], one.inverse_diagonal, rtol=1e-9)
        np.testing.assert_allclose(model.diagonal[r], one.diagonal, rtol=1e-12)
        np.testing.assert_allclose(model.own_diagonal[r], one.own_diagonal, rtol=1e-12)
        (single,) = one.changes(own, one.refit(own))
        for what in ("row_values", "damage"):
            found = getattr(model, what)([change.weights])[r]
            assert found == pytest.approx(getattr(one, what)([single.weights])[0], rel=1e-9)
    for refit, with_bias in ((True, None), (False, True), (False, False)):
        counts = Budget.per_row(mask.sum(axis=1).tolist())
        problem = model.problem(counts, refit=refit, bias=with_bias)
        full = model.join([mask])[:, : problem.n]
        each = [
            one.problem(Budget.per_row(int(mask[r].sum())), refit=refit, bias=with_bias).row_values(full[[r]])
            for r, one in enumerate(alone)
        ]
        np.testing.assert_allclose(problem.row_values(full), np.concatenate(each), rtol=1e-9)


def test_the_scale_of_a_model_bounds_its_values(rng):
    for model in (stacked_of(rng), model_of(True)):
        (change,) = model.changes([rng.random((3, 5)) < 0.5], model.W - rng.standard_normal(model.W.shape))
        D = np.abs(model.rows_of([change.weights]) - model.W)
        H = np.broadcast_to(np.abs(model.H), (3, 6, 6))
        assert model.scale([change.weights]) == pytest.approx(0.5 * np.einsum("ri,rij,rj->", D, H, D))


def test_what_was_pruned_before_stays_out_of_rows_own_matrices(rng):
    earlier = np.zeros((3, 5), dtype=bool)
    earlier[0, 1] = earlier[2, [0, 3]] = True
    for mask in (earlier, np.tile(earlier[:1], (3, 1))):
        model = stacked_of(np.random.default_rng(1), damping=0.1, earlier=mask)
        for r in range(3):
            keep = np.append(~mask[r], True)
            C = np.linalg.inv(model.H[r][np.ix_(keep, keep)])
            np.testing.assert_allclose(model.inverse_diagonal[r][keep[:5]], np.diagonal(C)[:-1], rtol=1e-9)


@pytest.mark.parametrize("kind", ["shared", "stacked", "diagonal"])
def test_settling_moves_the_bias_alone_to_the_models_minimum(kind, rng):
    model = model_of(True) if kind == "shared" else stacked_of(rng)
    if kind == "diagonal":
        H, corner = model.H, model.H[:, 5, 5]
        diagonal = Diagonal(model.own_diagonal, H[:, 5, :5] / corner[:, None], corner)
        model = replace(model, H=diagonal, damping=0.0)
    mask = rng.random((3, 5)) < 0.5
    rows = model.settle([mask])
    (change,) = model.changes([mask], rows)
    np.testing.assert_array_equal(rows[:, :5], np.where(mask, 0, model.W[:, :5]))
    best = model.damage([change.weights])
    for step in (1e-3, -1e-3):
        moved = replace(change.weights, bias=change.weights.bias + step)
        assert (model.damage([moved]) > best).all()
    if kind != "diagonal":  # where weights interact, what they cost apart is not what they cost together
        problem = model.problem(Budget.per_row(mask.sum(axis=1).tolist()), refit=False, bias=True)
        np.testing.assert_allclose(problem.weights(model.join([mask])), rows, rtol=1e-9)
        np.testing.assert_allclose(problem.row_values(model.join([mask])), model.row_values([change.weights]))
    else:
        own = 0.5 * model.diagonal * model.W[:, :5] ** 2
        np.testing.assert_allclose(best, np.where(mask, own, 0).sum(axis=1))


def test_shifts_of_the_bias_add_up(rng):
    model, mask = stacked_of(rng), rng.random((3, 5)) < 0.6
    together = model.settle([mask])[:, -1] - model.W[:, -1]
    apart = np.zeros(3)
    for r, j in np.argwhere(mask):
        one = np.zeros((3, 5), dtype=bool)
        one[r, j] = True
        apart += model.settle([one])[:, -1] - model.W[:, -1]
    np.testing.assert_allclose(together, apart, rtol=1e-9)


def test_settling_follows_a_gradient_of_the_bias(rng):
    K, C = gram(5, True), gram(5, True, seed=1)
    model = layer_quadratic(0, linear(), K, 0.01, NONE, C)
    mask = rng.random((3, 5)) < 0.5
    rows = model.settle([mask])
    slope = np.einsum("ri,ij->rj", rows - model.W, model.H)[:, -1] + model.gradient[:, -1]
    np.testing.assert_allclose(slope, 0, atol=1e-12)


@pytest.mark.parametrize("flat", [True, False])
def test_an_undamped_selection_costs_the_plain_model(flat, rng):
    model = flat_of(rng) if flat else model_of(bias=False)
    plain = model.undamped()
    problem = plain.problem(Budget.per_layer(4), refit=False)
    mask = problem.pools.smallest(rng.random(problem.W.shape))
    gone = np.where(mask, problem.W, 0.0)
    added = model.H.damping if flat else model.damping
    damped = model.problem(Budget.per_layer(4), refit=False).value(mask)
    assert damped - problem.value(mask) == pytest.approx(0.5 * added * np.square(gone).sum())
    assert problem.value(mask) == pytest.approx(float(model.damage(plain_of(model, mask)).sum()))
    assert (added > 0, plain.damping) == (True, 0.0)


def plain_of(model, mask):
    """The layers' parameters with a mask and no other move."""
    parts = model.split(np.where(mask, 0.0, model.W))
    return [Weights(W, part.bias) for W, part in zip(parts, model.dense, strict=True)]


def test_only_selection_goes_without_damping():
    with pytest.raises(ValueError, match="damped=False is for problem 'selection'"):
        Solve(damped=False)
