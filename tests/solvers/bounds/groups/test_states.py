"""The states of groups against a solve for each."""

import numpy as np
import pytest

from solvers.bounds.groups.states import States, counts


def some_groups(seed, size, B=3):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((B, size, size + 2))
    return X @ X.transpose(0, 2, 1), rng.standard_normal((B, size)), rng


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_every_state_is_the_solution_on_its_entries(size):
    D, q, _ = some_groups(0, size)
    states = States.of(D, q)
    assert states.h.shape == (3, 1 << size)
    assert (counts(size) == [bin(number).count("1") for number in range(1 << size)]).all()
    assert states.logdet == pytest.approx(np.linalg.slogdet(D)[1].sum(), rel=1e-10)
    for number in range(1 << size):
        S = [k for k in range(size) if number >> k & 1]
        for B in range(3):
            w, inverse = np.zeros(size), np.zeros((size, size))
            w[S] = np.linalg.solve(D[B][np.ix_(S, S)], q[B, S])
            inverse[np.ix_(S, S)] = np.linalg.inv(D[B][np.ix_(S, S)])
            assert states.w[B, number] == pytest.approx(w, rel=1e-8, abs=1e-10)
            assert states.inverse[B, number] == pytest.approx(inverse, rel=1e-8, abs=1e-8)
            assert states.h[B, number] == pytest.approx(0.5 * w @ q[B], rel=1e-8, abs=1e-12)


def test_states_move_to_other_residuals():
    D, q, rng = some_groups(3, 4)
    other = rng.standard_normal(q.shape)
    moved, fresh = States.of(D, q).at(other), States.of(D, other)
    assert moved.w == pytest.approx(fresh.w, rel=1e-9, abs=1e-12)
    assert moved.h == pytest.approx(fresh.h, rel=1e-9, abs=1e-12)
    assert moved.logdet == fresh.logdet


def test_blocks_that_are_not_definite_are_seen():
    D, q, _ = some_groups(1, 3)
    D[1, 2, 2] = 0.0
    assert States.of(D, q).logdet == -np.inf
