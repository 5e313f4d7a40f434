"""Bounds in a factor's image: `bounds/factor/`."""

import numpy as np
import pytest

from solvers import BlockDiagonalHessian, Budget, FactorHessian, SubsetProblem
from solvers.bounds.factor import dual_ascent
from solvers.bounds.factor import image as factor_image
from solvers.bounds.factor.dual_ascent import All, Few, ascend
from solvers.bounds.factor.image import Coordinates, coordinates, images, sketched
from solvers.bounds.waterfill import smoothed_shares
from solvers.form.blocks import blocks
from solvers.hessian import factor
from tests.solvers.oracles import fractions, optimum, relaxed_value

BUDGETS = {
    "per_row": (2, Budget.per_row(3)),
    "n_of_m": (2, Budget.n_of_m(1, 4)),
    "per_layer": (1, Budget.per_layer(5)),
    "columns": (1, Budget.columns(2)),
}


def make(rng, *, refit, budget="per_layer", n=8, N=4, damping=0.1, gradient=False, spread=0.0):
    m, given = BUDGETS[budget]
    X = rng.standard_normal((N, n)) * np.exp(spread * rng.standard_normal(n))
    G = 0.3 * rng.standard_normal((m, n)) if gradient else None
    W = rng.standard_normal((m, n)) * np.exp(spread * rng.standard_normal(n))
    return SubsetProblem(W, FactorHessian(X, damping), given, refit=refit, gradient=G)


def relaxed(image, value, **options):
    return ascend(image, coordinates(image), value, **options)


@pytest.mark.parametrize(("refit", "gradient"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("budget", BUDGETS)
def test_any_point_gives_a_bound(budget, refit, gradient, rng):
    problem = make(rng, refit=refit, budget=budget, gradient=gradient)
    best = optimum(problem)
    found = images(problem)
    for size in (0.0, 0.1, 1.0, 10.0):
        total = sum(image.lower_bound(size * rng.standard_normal(4)) for image in found)
        assert total <= best
    assert sum(relaxed(image, best).bound for image in found) <= best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_rounding_never_lifts_a_bound(seed, refit):
    rng = np.random.default_rng(seed)
    problem = make(rng, refit=refit, spread=3.0, gradient=not refit, damping=1e-3)
    (image,) = images(problem)
    y = relaxed(image, problem.value(problem.pools.smallest(problem.W**2))).y
    Y, w, e = fractions(y), fractions(problem.W[0]), fractions(image.ridge)
    # F'y = X'y / sqrt(N), and sqrt(4) = 2
    p = fractions(problem.hessian.X).T @ Y / 2
    half = Y @ Y / 2
    if refit:
        q = p + e * w
        scores = sorted(q * q / (2 * e))[::-1]
        exact = w @ p - half + (e * w) @ w / 2 - sum(scores[: int(image.take[0])])
    else:
        t = w * p + e * w * w / 2 - fractions(problem.G[0]) * w
        exact = sum(sorted(t)[: int(image.take[0])]) - half
    bound = image.lower_bound(y)
    assert bound <= max(exact, 0 if refit else bound)
    assert bound == pytest.approx(
        float(max(exact, 0) if refit else exact), rel=1e-9, abs=1e-9 * problem.scale
    )


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", ["per_row", "n_of_m"])
def test_the_ascent_reaches_the_relaxation(budget, refit, rng):
    problem = make(rng, refit=refit, budget=budget, gradient=not refit)
    for image, block in zip(images(problem), blocks(problem), strict=True):
        d = image.ridge if refit else image.ridge * image.w**2
        best = relaxed_value(block, d[None])
        found = relaxed(image, max(abs(best), 0.1), tolerance=1e-6)
        assert found.bound == pytest.approx(best, rel=1e-4, abs=1e-6)
        assert found.bound <= best + 1e-6
        np.testing.assert_allclose(
            np.bincount(image.labels, weights=found.shares), image.take, rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", ["per_layer", "n_of_m"])
def test_from_few_directions_the_ascent_goes_on_in_all(budget, refit, rng, monkeypatch):
    problem = make(rng, refit=refit, budget=budget, n=16, N=9)
    image, *_ = images(problem)
    value = problem.value(problem.pools.smallest(problem.W**2))
    whole = relaxed(image, value, tolerance=1e-6)
    monkeypatch.setattr(factor_image, "RANK", 3)
    monkeypatch.setattr(factor, "SKETCH", 3)
    monkeypatch.setattr(factor, "SPARE", 2)
    space = coordinates(image)
    assert space.Q.shape == (9, 3)
    np.testing.assert_allclose(space.Q.T @ space.Q, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(space.Z, image.hessian.root().T @ space.Q, atol=1e-5)
    monkeypatch.setattr(dual_ascent, "LARGE", 0.0)
    part = ascend(image, space, value, tolerance=1e-6)
    assert image.lower_bound(space.Q @ (space.Q.T @ part.y)) < 0.99 * whole.bound
    assert part.bound == pytest.approx(whole.bound, rel=1e-3)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", ["per_layer", "n_of_m"])
def test_a_step_in_all_directions_is_the_one_of_the_whole_curvature(budget, refit, rng, monkeypatch):
    monkeypatch.setattr(dual_ascent, "LOOSE", 1e-4)
    problem = make(rng, refit=refit, budget=budget, n=40, N=12)
    image, *_ = images(problem)
    shares = smoothed_shares(image.scores(rng.standard_normal(40)), image.labels, image.take, 3.0)
    assert ((shares > 0) & (shares < 1)).sum() > 10
    slopes, gradient = image.slopes(rng.standard_normal(40)), rng.standard_normal(12)
    basis = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    whole = Few(image, image.hessian.root().T @ basis)
    exact = basis @ whole.newton(shares, slopes, 0.3, basis.T @ gradient)
    part = Coordinates(basis[:, :4], image.hessian.root().T @ basis[:, :4])
    step = All(image, part).newton(shares, slopes, 0.3, gradient)
    np.testing.assert_allclose(step, exact, atol=1e-3 * np.abs(exact).max())


def test_rows_of_one_pool_make_one_image(rng):
    H = FactorHessian(rng.standard_normal((3, 5)), 0.2)
    problem = SubsetProblem(
        rng.standard_normal((2, 5)),
        H,
        Budget.per_layer(4),
        refit=False,
        gradient=0.1 * rng.standard_normal((2, 5)),
    )
    (image,) = images(problem)
    found = relaxed(image, 1.0, tolerance=1e-6)
    assert len(found.y) == 6
    assert found.bound <= optimum(problem)
    alone = [
        SubsetProblem(
            problem.W[r : r + 1], H, Budget.per_layer(2), refit=False, gradient=problem.G[r : r + 1]
        )
        for r in range(2)
    ]
    assert found.bound <= sum(relaxed(images(one)[0], 1.0, tolerance=1e-6).bound for one in alone) + 1e-6


def test_a_sketch_of_all_directions_is_the_image_itself(rng):
    problem = make(rng, refit=True, n=10, N=4)
    (image,) = images(problem)
    model = sketched(image, coordinates(image))
    np.testing.assert_allclose(model.ridge, image.ridge, rtol=1e-10)
    np.testing.assert_allclose(model.hessian.dense(0), image.hessian.dense(0) - 0.1 * np.eye(10), atol=1e-12)
    y = rng.standard_normal(4)
    assert model.lower_bound(y) == pytest.approx(image.lower_bound(coordinates(image).Q @ y), rel=1e-9)


def test_a_sketch_of_few_keeps_the_diagonal(rng):
    problem = make(rng, refit=True, n=10, N=6)
    (image,) = images(problem)
    space = coordinates(image)
    model = sketched(image, Coordinates(space.Q[:, :2], space.Z[:, :2]))
    assert model.hessian.X.shape == (2, 10)
    np.testing.assert_allclose(model.hessian.diagonal() + model.ridge, image.hessian.diagonal(), rtol=1e-10)


def test_the_strongest_directions_come_first(rng):
    problem = make(rng, refit=False, n=12, N=6)
    (image,) = images(problem)
    energy = (coordinates(image).Z * image.w[:, None]) ** 2
    assert (np.diff(energy.sum(axis=0)) <= 0).all()


def test_no_damping_is_no_obstacle_to_selections(rng):
    problem = make(rng, refit=False, damping=0.0, N=12)
    (image,) = images(problem)
    found = relaxed(image, optimum(problem), tolerance=1e-4)
    assert 0.0 < found.bound <= optimum(problem)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_an_ascent_that_is_stopped_has_a_bound(refit, rng):
    problem = make(rng, refit=refit)
    (image,) = images(problem)
    found = relaxed(image, 1.0, stopped=lambda: True)
    assert found.steps == 0
    assert np.isfinite(found.bound)
    assert found.bound <= optimum(problem)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_blocks_of_factors_are_bounded_together(refit, rng):
    parts = [FactorHessian(rng.standard_normal((3, 4)), c) for c in (0.1, 0.3)]
    problem = SubsetProblem(
        rng.standard_normal((1, 8)), BlockDiagonalHessian(parts), Budget.per_layer(5), refit=refit
    )
    dense = SubsetProblem(problem.W, problem.hessian.dense(0), Budget.per_row(5), refit=refit)
    (image,) = images(problem)
    (block,) = blocks(dense)
    d = image.ridge if refit else image.ridge * image.w**2
    found = relaxed(image, 1.0, tolerance=1e-6)
    assert found.bound == pytest.approx(relaxed_value(block, d[None]), rel=1e-4)


def test_what_has_no_image(rng):
    W = rng.standard_normal((2, 4))
    with pytest.raises(ValueError, match="an image can be had of factors only"):
        images(SubsetProblem(W, np.eye(4), Budget.per_row(1)))
    with pytest.raises(ValueError, match="budget 'columns' is shared by 2 rows"):
        images(SubsetProblem(W, FactorHessian(np.ones((1, 4)), 1.0), Budget.columns(1)))
