import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from solvers.checker.rounding import dot, down, product, sum_error, up
from tests.solvers.oracles import fractions

numbers = st.floats(-1e6, 1e6) | st.floats(-1e-300, 1e-300) | st.floats(-1e140, 1e140)
derandomized = settings(derandomize=True, deadline=None, max_examples=60)


@st.composite
def factors(draw):
    p, q, r = (draw(st.integers(1, 5)) for _ in range(3))
    matrix = lambda shape: draw(arrays.arrays(float, shape, elements=numbers))  # noqa: E731
    return matrix((p, q)), matrix((q, r))


@derandomized
@given(factors())
def test_products_lie_within_their_error(both):
    A, B = both
    P, error = product(A, B)
    exact = fractions(A) @ fractions(B)
    assert (np.abs(exact - fractions(P)) <= fractions(error)).all()


@pytest.mark.parametrize("n", [3, 64, 300])
def test_products_are_nearly_exact(n):
    rng = np.random.default_rng(n)
    A, B = rng.standard_normal((4, n)) * 10.0 ** rng.integers(-6, 6, (4, n)), rng.standard_normal((n, 3))
    P, error = product(A, B)
    exact = fractions(A) @ fractions(B)
    assert (np.abs(exact - fractions(P)) <= fractions(error)).all()
    assert (error <= 1e-15 * np.abs(P) + 1e-16 * np.abs(A).max(axis=1)[:, None] * np.abs(B).max(axis=0)).all()


def test_products_of_many_slices_leave_a_bounded_rest():
    A = np.array([[1.0, 2.0**-60, 2.0**-130]])
    B = np.array([[2.0**-130], [2.0**-70], [1.0]])
    P, error = product(A, B)
    assert abs(Fraction(3, 2**130) - Fraction(P.item())) <= Fraction(error.item())


def test_zeros_give_exact_zeros():
    A = np.array([[0.0, 0.0], [1.0, 2.0]])
    P, error = product(A, np.array([[3.0, 0.0], [4.0, 0.0]]))
    assert P.tolist() == [[0.0, 0.0], [11.0, 0.0]]
    assert error[0].tolist() == [0.0, 0.0]
    assert error[1, 1] == 0.0
    assert error[1, 0] > 0.0


@pytest.mark.parametrize("bad", [np.inf, np.nan, 1e308])
def test_overflow_leaves_nothing_to_trust(bad):
    with np.errstate(all="ignore"):
        P, error = product(np.array([[bad, bad]]), np.array([[1e10], [1e10]]))
    assert not (np.isfinite(P).all() and np.isfinite(error).all())


@derandomized
@given(arrays.arrays(float, (2, 7), elements=numbers), arrays.arrays(float, 7, elements=st.floats(0, 1e-3)))
def test_dots_hold_for_every_vector_within_the_error(both, slack):
    x, y = both
    mid, error = dot(x, y, slack, (0,))
    exact = fractions(x) @ fractions(y)
    reach = fractions(np.abs(x)) @ fractions(slack)
    for moved in (exact - reach, exact + reach):
        assert abs(moved - Fraction(float(mid))) <= Fraction(float(error))


@derandomized
@given(arrays.arrays(float, 50, elements=st.floats(-1e3, 1e3)))
def test_sums_lie_within_their_error(x):
    error = sum_error(len(x), np.abs(x).sum())
    for order in (x, np.sort(x), x[::-1]):
        total = 0.0
        for term in order:
            total += term
        assert abs(Fraction(total) - sum(map(Fraction, x))) <= Fraction(float(error))


def test_outward():
    assert down(1.0) < 1.0 < up(1.0)
    assert up(0.0) == math.ulp(0.0) == -down(0.0)
