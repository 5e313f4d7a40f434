"""The states of groups against a solve for each."""

import numpy as np
import pytest

from solvers.bounds.groups.states import States, counts, every_state, whole_pools


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


PATTERNS = [((4, 2),), ((4, 1), (4, 3)), ((3, 1), (2, 1), (4, 2)), ((8, 4),)]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_whole_pools_have_the_states_that_meet_their_budgets(pattern):
    size = sum(entries for entries, _ in pattern)
    pool = np.repeat(np.arange(len(pattern)), [entries for entries, _ in pattern])
    allowed = whole_pools(pattern)
    meeting = [
        [number >> k & 1 for k in range(size)]
        for number in range(1 << size)
        if all(
            sum(number >> k & 1 for k in np.flatnonzero(pool == p)) == keep
            for p, (_, keep) in enumerate(pattern)
        )
    ]
    assert allowed.kept.tolist() == np.array(meeting, bool).tolist()
    assert allowed.largest @ allowed.counts == pytest.approx(size)
    D, q, _ = some_groups(1, size)
    D -= 0.9 * allowed.lowest(D).min() * np.eye(size)
    found, logdet = States.of(D, q, allowed), 0.0
    for m, kept in enumerate(allowed.kept):
        S = np.flatnonzero(kept)
        logdet += allowed.largest[m] * np.linalg.slogdet(D[:, S[:, None], S])[1].sum()
        for B in range(3):
            inverse = np.zeros((size, size))
            inverse[np.ix_(S, S)] = np.linalg.inv(D[B][np.ix_(S, S)])
            assert found.inverse[B, m] == pytest.approx(inverse, rel=1e-6, abs=1e-6 * np.abs(inverse).max())
            assert found.w[B, m] == pytest.approx(inverse @ q[B], rel=1e-6, abs=1e-6)
            assert found.h[B, m] == pytest.approx(0.5 * q[B] @ inverse @ q[B], rel=1e-6)
    assert found.logdet == pytest.approx(logdet, rel=1e-8)
    assert np.linalg.eigvalsh(D).min() < 0.0


def test_blocks_need_to_be_definite_on_states_alone():
    D, q = np.array([[[1.0, 2.0], [2.0, 1.0]]]), np.ones((1, 2))
    assert States.of(D, q, every_state(2)).logdet == -np.inf
    assert States.of(D, q, whole_pools(((2, 1),))).h.tolist() == [[0.5, 0.5]]
    D[0, 1, 1] = -1.0
    assert States.of(D, q, whole_pools(((2, 1),))).logdet == -np.inf
