"""What groups add to a Newton step, against finite differences; levels, against their equation."""

import numpy as np
import pytest

from solvers.bounds.groups.kernels import family_sums, levels, mirror, scatter, slopes
from solvers.bounds.groups.states import States, entries, every_state, whole_pools


def some_group(seed, size):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((size, size + 2))
    return X @ X.T, rng.standard_normal(size), rng


STATES = [
    *map(every_state, (1, 2, 3, 4)),
    *map(whole_pools, (((4, 2),), ((3, 1),), ((2, 1), (2, 1)), ((3, 2), (2, 1)))),
]


@pytest.mark.parametrize("allowed", STATES, ids=lambda states: f"{states.pattern or states.kept.shape[1]}")
@pytest.mark.parametrize("held", [False, True])
def test_derivatives_agree_with_finite_differences(allowed, held):
    number, size = allowed.kept.shape
    D, q, rng = some_group(size, size)
    if allowed.pattern:
        D -= 0.9 * allowed.lowest(D[None]).min() * np.eye(size)
    i, j, half = entries(size)
    T, a, priced = 0.3, 0.7, int(not allowed.pattern)
    p, slack = rng.uniform(0.1, 1.0, (1, number)), rng.uniform(0.5, 2.0, (1, number))
    moving = size if held else size + len(i)
    x = np.concatenate([q, D[i, j]])[:moving]

    def at(x):
        block = D.copy()
        if not held:
            block[i, j] = block[j, i] = x[size:]
        return States.of(block[None], x[None, :size], allowed)

    def gradient_of(f):
        return np.array([(f(x + e) - f(x - e)) / 2e-5 for e in 1e-5 * np.eye(moving)])

    J = np.concatenate(
        [gradient_of(lambda x: at(x).h[0]).T, -allowed.kept.sum(axis=1)[:, None][:, :priced]], axis=1
    )
    log = gradient_of(lambda x: np.atleast_1d(at(x).logdet))[:, 0]
    bend = np.zeros((moving + priced, moving + priced))
    for k, e in enumerate(1e-4 * np.eye(moving)):
        for m, f in enumerate(1e-4 * np.eye(moving)):
            ends = [(at(x + s * e + t * f), s * t) for s in (1, -1) for t in (1, -1)]
            bend[k, m] = (
                sum(sign * (p[0] @ s.h[0] - (0 if held else T * s.logdet)) for s, sign in ends) / 4e-8
            )
    W, pull = p[0] / slack[0], a * T / slack[0]
    lean_, total_, short_ = W @ J, W.sum(), 1.0 - pull.sum()
    matrix = J.T @ (W[:, None] * J) - np.outer(lean_, lean_) / total_ + bend
    rise = pull @ J + lean_ * short_ / total_
    rise[:moving] -= 0.0 if held else T * log

    states = at(x)
    A, columns = np.zeros((30, 30)), rng.permutation(30)[None, : moving + priced]
    curve, rises = np.empty((1, moving + priced, moving + priced)), np.empty((1, moving + priced))
    slope = np.empty((1, number, moving + priced))
    slopes(states.w, i, j, half, held, allowed.counts, slope)
    assert slope[0] == pytest.approx(J, rel=1e-5, abs=1e-5)
    lean, total, short = np.empty((1, moving + priced)), np.empty(1), np.empty(1)
    family_sums(
        curve, rises, states.inverse, states.w, slope, slack, p, a, allowed.largest, T,
        i, j, half, held, lean, total, short,
    )  # fmt: skip
    scatter(A, columns, curve)
    assert (np.triu(A, 1) == 0.0).all()
    whole = A + np.tril(A, -1).T
    assert whole[np.ix_(columns[0], columns[0])] == pytest.approx(
        matrix, rel=1e-4, abs=1e-4 * np.abs(matrix).max()
    )
    assert rises[0] == pytest.approx(rise, rel=1e-4, abs=1e-4)
    assert lean[0] == pytest.approx(lean_, rel=1e-5, abs=1e-5)
    assert total[0] == pytest.approx(total_)
    assert short[0] == pytest.approx(short_)
    others = np.setdiff1d(np.arange(20), columns[0])
    assert not A[others].any()
    assert not A[:, others].any()


def test_levels_solve_their_equation():
    scores, tau = np.random.default_rng(0).standard_normal((5, 16)), np.empty(5)
    levels(scores, 0.2, tau)
    assert (tau > scores.max(axis=1)).all()
    assert (0.2 / (tau[:, None] - scores)).sum(axis=1) == pytest.approx(np.ones(5), rel=1e-9)


@pytest.mark.parametrize("n", [1, 31, 32, 70])
def test_mirror_copies_the_upper_half(n):
    A = np.random.default_rng(n).standard_normal((n, n))
    wanted = np.triu(A) + np.triu(A, 1).T
    mirror(A)
    assert (wanted == A).all()
