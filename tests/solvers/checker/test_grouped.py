"""The checker's bound of splits in blocks: never above rational arithmetic, and close to it."""

from dataclasses import replace
from fractions import Fraction
from itertools import chain, combinations

import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.certificate.original import stored
from solvers.checker import states
from solvers.checker.grouped import Grouped, Unfit, _least, every_state, groups_of
from solvers.checker.piece import make_piece
from solvers.checker.reduced import reduce_problem
from tests.solvers.exactly import exact_hessian
from tests.solvers.oracles import _solve_exactly as solve_exactly
from tests.solvers.oracles import fractions, make_problem


def piece_of(problem):
    this = stored(problem)
    _, prune = this.pools()
    return make_piece(this, reduce_problem(this), np.array([0]), prune[0])


def any_split(rng, piece, size, condition):
    """Diagonal, places and entries of blocks of any condition, small enough for a definite remainder."""
    n, width = piece.n, piece.n // len(piece.prune)
    D, pairs = np.zeros((n, n)), []
    for first in range(0, n, width):
        order = first + rng.permutation(width)
        for members in np.split(order, range(size, width, size)):
            k = len(members)
            Q = np.linalg.qr(rng.standard_normal((k, k)))[0]
            A = (Q * np.geomspace(1.0, 1.0 / condition, k)) @ Q.T
            D[np.ix_(members, members)] = 0.5 * (A + A.T)
            pairs += [sorted(pair) for pair in combinations(members.tolist(), 2)]
    D *= 0.9 * np.linalg.eigvalsh(piece.H[0])[0]
    pairs = np.array(pairs, np.int64).reshape(-1, 2)
    return np.diagonal(D).copy(), pairs, D[pairs[:, 0], pairs[:, 1]], D


def bounds_at(piece, grouped, D, u, price, keep=None, fixings=None):
    """Bounds of one point without fixings, or with `fixings [n]`, for budgets `keep [K, pools]`."""
    keep = piece.keep[None] if keep is None else keep
    fixed = np.tile(np.zeros(piece.n, np.int8) if fixings is None else fixings, (len(keep), 1))
    at = np.zeros(len(keep), np.int64)
    return states.grouped_bounds(piece, grouped, D, u[None], price[None], at, fixed, keep)


def split_of_pools(rng, piece, together, root):
    """As `any_split`, with blocks of what is free of whole pools, definite on their budgets' sets alone."""
    pool = np.repeat(np.arange(len(piece.sizes)), piece.sizes)
    left = piece.keep - np.bincount(pool[root > 0], minlength=len(piece.keep))
    D, pairs = np.diag((root > 0).astype(float)), []
    for pools in np.split(rng.permutation(len(left)), range(together, len(left), together)):
        members = np.flatnonzero((root == 0) & np.isin(pool, pools))
        k = len(members)
        A = rng.standard_normal((k, k))
        A = A @ A.T
        codes = (np.arange(1 << k)[:, None] >> np.arange(k)) & 1 > 0
        met = [S for S in codes if all((pool[members[S]] == p).sum() == left[p] for p in pools)]
        A -= 0.9 * min(np.linalg.eigvalsh(A[np.ix_(S, S)])[0] for S in met) * np.eye(k)
        D[np.ix_(members, members)] = 0.5 * (A + A.T)
        pairs += list(combinations(members.tolist(), 2))
    D *= 0.9 * np.linalg.eigvalsh(piece.H[0])[0] / np.linalg.eigvalsh(D)[-1]
    pairs = np.array(pairs, np.int64)
    return np.diagonal(D).copy(), pairs, D[pairs[:, 0], pairs[:, 1]], D


def exact(problem, groups, D, u, price, keep, labels, fixings=None, whole=None):
    """The formula in rational arithmetic, over the states that fixings and then the budget leave.

    With `whole [pools]`, sets of several entries keep so many of each of their pools.
    """
    fixed = np.zeros(problem.n, np.int8) if fixings is None else fixings.copy()
    for p, wanted in enumerate(keep):
        mine = labels == p
        left, free = wanted - (fixed[mine] > 0).sum(), (fixed[mine] == 0).sum()
        if left == 0 or left == free:
            fixed[mine & (fixed == 0)] = 1 if left else -1
    H, w = exact_hessian(problem, 0), fractions(problem.W[0])
    g = fractions(np.zeros(problem.n) if problem.G is None else problem.G[0])
    D, u, b = fractions(D), fractions(u), H @ w - g
    y = H @ u - D @ u
    q = b - y
    total = w @ H @ w / 2 - g @ w - u @ y / 2
    total -= sum((Fraction(t) * int(k) for t, k in zip(price.tolist(), keep, strict=True)), Fraction(0))
    for members in groups:
        best = None
        for S in chain.from_iterable(combinations(members, k) for k in range(len(members) + 1)):
            S = list(S)
            if any((fixed[k] > 0 and k not in S) or (fixed[k] < 0 and k in S) for k in members):
                continue
            several = whole is not None and len(members) > 1
            if several and any((labels[S] == p).sum() != whole[p] for p in set(labels[members].tolist())):
                continue
            if not S:
                best = Fraction(0)
                continue
            paid = sum(map(Fraction, price[labels[S]].tolist()), Fraction(0))
            score = q[S] @ solve_exactly(D[np.ix_(S, S)], q[S]) / 2 - paid
            best = score if best is None else max(best, score)
        total -= best
    return total


@pytest.mark.parametrize("condition", [2.0, 1e4, 1e8])
@pytest.mark.parametrize("kind", ["shared", "factor"])
@pytest.mark.parametrize("budget", [Budget.per_row(3), Budget.n_of_m(2, 4)], ids=["one pool", "pools"])
def test_bounds_are_below_rational_arithmetic_and_near(budget, kind, condition):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        problem = make_problem(rng, budget, m=1, n=8, kind=kind, gradient=bool(seed % 2))
        piece = piece_of(problem)
        d, pairs, cross, D = any_split(rng, piece, 1 + seed, condition)
        grouped, matrix = groups_of(piece, d, pairs, cross)
        assert (matrix == D).all()
        groups = [members.tolist() for group in grouped for members in group.members]
        assert sorted(chain.from_iterable(groups)) == list(range(8))
        u, price = rng.standard_normal(8), rng.uniform(-1.0, 3.0, len(piece.prune))
        labels = np.arange(8) // (8 // len(piece.prune))
        low = bounds_at(piece, grouped, matrix, u, price)[0]
        true = exact(problem, groups, D, u, price, piece.keep, labels)
        size = abs(float(true)) + piece.constant * condition
        assert low <= max(true, piece.floor)
        assert low >= float(true) - (1e-12 + 1e-15 * condition) * size
        if len(piece.prune) == 1:
            curve = bounds_at(piece, grouped, matrix, u, price, np.arange(8, -1, -1)[:, None])
            for k in range(9):
                true = exact(problem, groups, D, u, price, [8 - k], labels)
                assert curve[k] <= max(true, piece.floor)
                assert curve[k] >= float(true) - (1e-12 + 1e-15 * condition) * size


def test_small_numbers_below_a_block_are_a_proof():
    rng = np.random.default_rng(0)
    for size in (1, 2, 4, 8):
        A = rng.standard_normal((size, size))
        scale = 10.0 ** rng.uniform(-6, 6, size)
        D = scale[:, None] * (A @ A.T + 0.1 * np.eye(size)) * scale
        D = 0.5 * (D + D.T)
        least = _least(D[None], np.arange(len(D))[None])[0]
        assert (least > 0).all()
        R = fractions(D) - np.diag(fractions(least))
        for _ in range(size - 1):
            assert R[0, 0] > 0
            R = R[1:, 1:] - np.outer(R[1:, 0], R[0, 1:]) / R[0, 0]
        assert R[0, 0] >= 0


@pytest.mark.parametrize("low", [0.0, -1e-17, -0.1])
def test_blocks_that_are_not_definite(low):
    D = np.array([[1.0, 1.0 - low], [1.0 - low, 1.0]])
    with pytest.raises(Unfit, match="not positive definite"):
        _least(D[None] if low else np.ones((1, 2, 2)), np.arange(2)[None])


@pytest.mark.parametrize("share", [0.0, 0.9, 1.001])
def test_any_solution_of_a_block_gives_a_bound(monkeypatch, share):
    """What floating point solves for may be wrong: the residual makes up for it."""
    solve = states._solved
    problem = make_problem(np.random.default_rng(7), Budget.per_row(3), m=1, n=8, gradient=True)
    piece = piece_of(problem)
    rng = np.random.default_rng(8)
    d, pairs, cross, D = any_split(rng, piece, 4, 10.0)
    grouped, matrix = groups_of(piece, d, pairs, cross)
    groups = [members.tolist() for group in grouped for members in group.members]
    u, price = rng.standard_normal(8), rng.uniform(0.0, 1.0, 1)
    true = exact(problem, groups, D, u, price, piece.keep, np.zeros(8, np.int64))
    best = bounds_at(piece, grouped, matrix, u, price)[0]
    monkeypatch.setattr(states, "_solved", lambda group, right: share * solve(group, right))
    low = bounds_at(piece, grouped, matrix, u, price)[0]
    assert low < best <= max(true, piece.floor)


def test_scores_hold_for_every_residual_within_its_slack():
    rng = np.random.default_rng(9)
    for _ in range(20):
        A = rng.standard_normal((3, 3))
        D = A @ A.T + 0.05 * np.eye(3)
        group = Grouped(np.arange(3)[None], D[None], _least(D[None], np.arange(3)[None]), every_state(3))
        q, slack, price = rng.standard_normal(3), rng.uniform(0.0, 0.2, 3), rng.uniform(0.0, 0.5)
        high = states.scores(group, q[None, None], slack[None, None], np.array([[price]])).max()
        sets = [list(S) for k in (1, 2, 3) for S in combinations(range(3), k)]
        for signs in (0.0, *np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T):
            x = q + signs * slack
            scores = [0.5 * x[S] @ np.linalg.solve(D[np.ix_(S, S)], x[S]) - len(S) * price for S in sets]
            assert max(0.0, *scores) <= high * (1 + 1e-12)
        assert states.scores(group, q[None, None], 0.0 * slack[None, None], np.array([[price]])).max() <= high


def test_a_curvature_known_up_to_an_error_is_bounded_for_all_it_may_be():
    rng = np.random.default_rng(11)
    problem = make_problem(rng, Budget.per_row(3), m=1, n=8, gradient=True)
    piece = piece_of(problem)
    d, pairs, cross, D = any_split(rng, piece, 2, 4.0)
    loose = replace(piece, H_error=1e-3 * np.abs(piece.H))
    grouped, matrix = groups_of(loose, d, pairs, cross)
    groups = [members.tolist() for group in grouped for members in group.members]
    u, price, none = rng.standard_normal(8), rng.uniform(0.0, 1.0, 1), np.zeros(8, np.int64)
    low = bounds_at(loose, grouped, matrix, u, price)[0]
    w, b = problem.W[0], piece.b[0, :, 0]
    for _ in range(30):
        E = 1e-3 * np.abs(piece.H[0]) * np.sign(rng.standard_normal((8, 8)))
        H = piece.H[0] + np.triu(E) + np.triu(E, 1).T
        other = SubsetProblem(problem.W, H, Budget.per_row(3), gradient=(H @ w - b)[None])
        constant = 0.5 * w @ H @ w - other.G[0] @ w
        true = float(exact(other, groups, D, u, price, piece.keep, none)) - constant + piece.constant
        assert low <= true
    H = piece.H[0] - 1.2 * (np.linalg.eigvalsh(piece.H[0] - D)[0]) * np.eye(8)
    with pytest.raises(Unfit, match="positive semidefinite"):
        groups_of(replace(piece, H=H[None]), d, pairs, cross)
    with pytest.raises(Unfit, match="positive semidefinite"):
        groups_of(replace(piece, H_error=np.abs(piece.H)), d, pairs, cross)


@pytest.mark.parametrize("budget", [Budget.per_row(4), Budget.n_of_m(2, 4)], ids=["one pool", "pools"])
def test_fixings_leave_out_states(budget):
    """Against rational arithmetic, inside groups, and where the budget then leaves no choice."""
    rng = np.random.default_rng(5)
    problem = make_problem(rng, budget, m=1, n=8, gradient=True)
    piece = piece_of(problem)
    d, pairs, cross, D = any_split(rng, piece, 4, 50.0)
    grouped, matrix = groups_of(piece, d, pairs, cross)
    groups = [members.tolist() for group in grouped for members in group.members]
    u, price = rng.standard_normal(8), rng.uniform(-1.0, 2.0, len(piece.prune))
    labels = np.arange(8) // (8 // len(piece.prune))
    seen = 0
    for _ in range(20):
        fixings = rng.choice(np.array([-1, 0, 0, 1], np.int8), 8)
        low = bounds_at(piece, grouped, matrix, u, price, fixings=fixings)[0]
        kept = np.bincount(labels[fixings > 0], minlength=len(piece.keep))
        free = np.bincount(labels[fixings >= 0], minlength=len(piece.keep))
        if (kept > piece.keep).any() or (free < piece.keep).any():
            assert low == np.inf
            continue
        true = exact(problem, groups, D, u, price, piece.keep, labels, fixings)
        assert low <= max(true, piece.floor)
        assert low >= float(true) - 1e-11 * (abs(float(true)) + piece.constant)
        seen += true > piece.floor
    assert seen


@pytest.mark.parametrize(
    ("budget", "n"),
    [(Budget.n_of_m(2, 4), 12), (Budget.n_of_m(1, 4), 12), (Budget.n_of_m(2, 6), 12)],
    ids=["2 of 4", "1 of 4", "2 of 6"],
)
@pytest.mark.parametrize("together", [1, 2])
def test_whole_pools_are_bounded_by_their_budgets_sets_at_any_price(budget, n, together):
    """Against rational arithmetic, at the top, below fixings that a split assumes, and below others."""
    indefinite = seen = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        problem = make_problem(rng, budget, m=1, n=n, gradient=bool(seed % 2))
        piece = piece_of(problem)
        labels = np.repeat(np.arange(len(piece.sizes)), piece.sizes)
        root = np.zeros(n, np.int8)
        if seed > 1:
            root[[0, n - 1]] = -1, -1 if piece.keep[0] == 1 else 1
        left = piece.keep - np.bincount(labels[root > 0], minlength=len(piece.keep))
        d, pairs, cross, D = split_of_pools(rng, piece, together, root)
        grouped, matrix = groups_of(piece, d, pairs, cross, root, whole=True)
        assert (matrix == D).all()
        indefinite += any((np.linalg.eigvalsh(group.D) < 0.0).any() for group in grouped)
        groups = [members.tolist() for group in grouped for members in group.members]
        u, price = problem.W[0] * rng.uniform(0.9, 1.1, n), rng.uniform(-3.0, 3.0, len(piece.prune))
        u[root < 0] = 0.0
        for _ in range(6):
            fixings = np.where(root == 0, rng.choice(np.array([-1, 0, 0, 0, 0, 0, 1], np.int8), n), root)
            low = bounds_at(piece, grouped, matrix, u, price, fixings=fixings)[0]
            kept = np.bincount(labels[fixings > 0], minlength=len(piece.keep))
            free = np.bincount(labels[fixings >= 0], minlength=len(piece.keep))
            if (kept > piece.keep).any() or (free < piece.keep).any():
                assert low == np.inf
                continue
            true = exact(problem, groups, D, u, price, piece.keep, labels, fixings, left)
            assert low <= max(true, piece.floor)
            assert low >= float(true) - 1e-11 * (abs(float(true)) + piece.constant)
            seen += true > piece.floor
    assert indefinite > 1
    assert seen > 2


def unfit(words, piece, D, members, **other):
    i, j = np.array(list(combinations(members, 2))).T
    with pytest.raises(Unfit, match=words):
        groups_of(piece, np.diagonal(D).copy(), np.stack([i, j], axis=1), D[i, j], **other)


def test_whole_pools_that_prove_nothing():
    problem = make_problem(np.random.default_rng(0), Budget.n_of_m(2, 4), m=1, n=28)
    piece = piece_of(problem)
    D = 0.5 * np.linalg.eigvalsh(piece.H[0])[0] * np.eye(28)
    D[:8, :8] *= 1.0 + 1e-3 * np.ones((8, 8))
    unfit("across pools", piece, D, range(8))
    unfit("across pools", piece, D, range(7), whole=True)
    unfit("across pools", piece, D, [0, 4], whole=True)
    unfit("1296 states, more than 256", piece, D, range(16), whole=True)
    unfit("20 entries, more than 16", piece, D, range(20), whole=True)
    kept = np.zeros(28, np.int8)
    kept[[1, 2]] = 1
    unfit("across pools", piece, D, [0, 3, 4, 5, 6, 7], root=kept, whole=True)
    bad = D.copy()
    bad[0, 5] = bad[5, 0] = -1.01 * D[0, 0]
    unfit("not positive definite", piece, bad, range(8), whole=True)
    alone = piece_of(make_problem(np.random.default_rng(0), Budget.per_row(4), m=1, n=8))
    least = np.linalg.eigvalsh(alone.H[0])[0]
    on_four = 0.2 * least * (1.2 * np.eye(8) - 0.2 * np.ones((8, 8)))
    assert np.linalg.eigvalsh(on_four[:4, :4])[0] > 0.0
    unfit("not positive definite", alone, on_four, range(8), whole=True)
