import numpy as np
import pytest

from solvers.certificate.subtrees import SHARE, asked, completed, lift, secured
from tests.solvers.oracles import gram

ROOT = np.array([[0, 0, 0, 0, 0, 0], [1, -1, 0, 0, 1, 0]], np.int8)
FREE, KEPT, GONE = np.array([2, 3, 5]), np.array([0, 4]), np.array([1])


def schur(H):
    return H[np.ix_(FREE, FREE)] - H[np.ix_(FREE, KEPT)] @ np.linalg.solve(
        H[np.ix_(KEPT, KEPT)], H[np.ix_(KEPT, FREE)]
    )


def lowest(A):
    return float(np.linalg.eigvalsh(A)[0])


def test_a_split_of_the_schur_complement_becomes_one_of_the_kept_entries_too():
    H = gram(np.random.default_rng(0), 6)
    d = np.full((2, 1, 6), np.nan)
    d[0] = 0.999 * lowest(H)
    d[1, 0, FREE] = 0.999 * lowest(schur(H))
    assert d[1, 0, 2] > 1.01 * d[0, 0, 0]
    lifted = lift(d, ROOT)
    assert (lifted[0] == d[0]).all()
    assert np.allclose(lifted[1, 0, FREE], d[1, 0, FREE], rtol=2 * SHARE, atol=0.0)
    assert (lifted[1] > 0).all()
    safe = secured(H[None], lifted, ROOT, True)
    alive = np.flatnonzero(asked(ROOT[1], True))
    assert alive.tolist() == sorted([*FREE, *KEPT])
    assert lowest(H[np.ix_(alive, alive)] - np.diag(safe[1, 0, alive])) > 0
    assert np.allclose(safe, lifted, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("refit", [True, False])
def test_a_split_too_large_is_shrunk_where_it_counts(refit):
    H = gram(np.random.default_rng(1), 6)
    alive = np.flatnonzero(asked(ROOT[1], refit))
    d = np.full((2, 1, 6), 0.5 * lowest(H))
    d[1, 0, alive] = lowest(H[np.ix_(alive, alive)]) * (1.0 + 1e-13)
    safe = secured(H[None], d, ROOT, refit)
    others = np.setdiff1d(np.arange(6), alive)
    assert (safe[1, 0, others] == d[1, 0, others]).all()
    assert (safe[1, 0, alive] < d[1, 0, alive]).all()
    slack = np.full((1, 6, 6), 1e-3)
    wider = secured(H[None], d, ROOT, refit, slack)
    assert lowest(H[np.ix_(alive, alive)] - np.diag(wider[1, 0, alive])) > 1e-3 * len(alive)


def test_points_are_completed_to_where_scores_of_kept_entries_vanish():
    rng = np.random.default_rng(2)
    H, B = gram(rng, 6)[None], rng.standard_normal((1, 6, 2))
    u = rng.standard_normal((3, 1, 6, 2))
    owner = np.array([1, 0, 1], np.int32)
    out = completed(H, B, ROOT, owner, u)
    assert (out[1] == u[1]).all()
    for v in (0, 2):
        assert (out[v, 0, FREE] == u[v, 0, FREE]).all()
        assert (out[v, 0, GONE] == 0).all()
        assert np.allclose((H[0] @ out[v, 0])[KEPT], B[0][KEPT], rtol=0.0, atol=1e-12)
