"""Conjugate gradients: the exact minimum after n products, and what ends them before that."""

import pytest
import torch

from cbs.refit.conjugate_gradients import minimise


def definite(n=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(2 * n, n, generator=generator, dtype=torch.float64)
    return X.T @ X / n, torch.randn(n, generator=generator, dtype=torch.float64)


def test_as_many_products_as_unknowns_solve_the_equations():
    A, g = definite()
    found = minimise(lambda v: A @ v, g, lambda v: v, 12)
    torch.testing.assert_close(found.x, -torch.linalg.solve(A, g), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.Ax, A @ found.x)
    assert found.value == pytest.approx(-0.5 * float(g @ torch.linalg.solve(A, g)), rel=1e-10)
    assert found.products == 12


def test_the_inverse_as_preconditioner_needs_one_product():
    A, g = definite()
    found = minimise(lambda v: A @ v, g, lambda v: torch.linalg.solve(A, v), 1)
    torch.testing.assert_close(found.x, -torch.linalg.solve(A, g), rtol=1e-10, atol=1e-12)


def test_it_ends_when_little_is_gained():
    A, g = torch.diag(torch.linspace(1, 1e6, 200, dtype=torch.float64)), torch.ones(200, dtype=torch.float64)
    found = minimise(lambda v: A @ v, g, lambda v: v, 1_000)
    assert 10 < found.products < 1_000
    exact = -0.5 * float((g * g / A.diagonal()).sum())
    assert exact < found.value < 0
    quick = minimise(lambda v: A @ v, g, lambda v: v / A.diagonal(), 1_000)
    assert quick.value == pytest.approx(exact, rel=1e-9)
    assert quick.products <= 11


@pytest.mark.parametrize("bend", [-1.0, 0.0, float("nan")])
def test_it_ends_where_the_model_is_not_convex(bend):
    A = torch.diag(torch.tensor([1.0, bend], dtype=torch.float64))
    found = minimise(lambda v: A @ v, torch.tensor([0.0, 1.0], dtype=torch.float64), lambda v: v, 10)
    assert not bool(found.x.any())
    assert (found.value, found.products) == (0.0, 1)


def test_nothing_to_do_is_nothing_done():
    found = minimise(lambda v: v, torch.zeros(3, dtype=torch.float64), lambda v: v, 10)
    assert (found.products, found.value, found.x.tolist()) == (0, 0.0, [0.0, 0.0, 0.0])
