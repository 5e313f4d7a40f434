import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget, SubsetProblem
from solvers.bounds import split
from solvers.bounds.evaluate import lower_bound, relaxed_point
from solvers.bounds.secure import secure
from solvers.bounds.split import split_blocks
from solvers.form.blocks import Block, blocks
from solvers.greedy.curves import row_curves
from tests.solvers.oracles import BUDGETS, fractions, gram, make_problem, relaxed_value, semidefinite_bound

QUICK = settings(derandomize=True, max_examples=25, deadline=None)
VARIANTS = pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])


def psd(H, d):
    """Whether `H - diag(d)` is positive semidefinite up to what eigvalsh itself can tell."""
    low = np.linalg.eigvalsh(H - np.diag(d))[0]
    return low >= -len(d) * np.finfo(float).eps * np.trace(H)


def root_bound(block, found):
    return lower_bound(block, found.d, relaxed_point(block, found.d, found.z))


@VARIANTS
@pytest.mark.parametrize("budget", [Budget.per_row(3), Budget.per_row(6), Budget.n_of_m(1, 4)])
def test_the_saddle_point_is_the_semidefinite_bound(refit, budget, rng):
    problem = make_problem(rng, budget, m=2, n=8, refit=refit, gradient=not refit)
    found = blocks(problem)
    for block, best in zip(found, split_blocks(found), strict=True):
        bound, expected = root_bound(block, best), semidefinite_bound(block)
        unit = max(abs(expected), 1e-2 * block.scale)
        assert bound <= expected + 1e-6 * unit
        assert bound >= expected - 1e-3 * unit
        assert psd(block.H[0], best.d[0])


@VARIANTS
@pytest.mark.parametrize("prune", [4, 9])
def test_the_best_split_beats_the_least_eigenvalue_and_its_neighbours(refit, prune, rng):
    (block,) = blocks(make_problem(rng, Budget.per_row(prune), m=1, n=12, refit=refit))
    (best,) = split_blocks([block])
    bound = root_bound(block, best)
    lowest = np.full(12, np.linalg.eigvalsh(block.H[0])[0] * (1 - 1e-9))
    assert bound >= relaxed_value(block, lowest[None]) + 0.01 * abs(bound)
    assert bound >= relaxed_value(block, best.d * 0.9) - 1e-6 * abs(bound)


@VARIANTS
def test_the_point_makes_the_bound_tight_at_its_split(refit, rng):
    """`relaxed_point` is where LB(u) equals the relaxation's value: no other u gives more."""
    (block,) = blocks(make_problem(rng, Budget.per_row(5), m=1, n=9, refit=refit))
    (best,) = split_blocks([block])
    value = relaxed_value(block, best.d)
    assert root_bound(block, best) == pytest.approx(value, rel=2e-3)
    assert root_bound(block, best) <= value + 1e-6 * abs(value)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("kind", ["shared", "stacked", "factor"])
@VARIANTS
def test_chosen_splits_are_valid(budget, kind, refit, rng):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, kind=kind)
    counts = np.array([2, 3]) if budget == "per_layer" else None
    found = blocks(problem, counts)
    for block, best in zip(found, split_blocks(found), strict=True):
        assert best.d.shape == block.H.shape[:2]
        for H, d in zip(block.H, best.d, strict=True):
            assert psd(H, d)
            assert (d > 0).all() or not refit


def test_rows_of_very_different_curvatures(rng):
    n = 16
    H = np.stack(
        [
            np.eye(n) + 1e-3 * gram(rng, n),
            gram(rng, n, damping=1e-4),
            1e8 * gram(rng, n, damping=1e-2),
            np.diag(np.geomspace(1e-6, 1.0, n)) + 1e-9 * gram(rng, n),
        ]
    )
    problem = SubsetProblem(rng.standard_normal((4, n)), H, Budget.per_row(10))
    found = blocks(problem)
    for block, best in zip(found, split_blocks(found), strict=True):
        (alone,) = split_blocks([block])
        assert root_bound(block, best) == pytest.approx(root_bound(block, alone), rel=5e-3)
        assert root_bound(block, best) > 0.3 * semidefinite_bound(block)


@pytest.mark.parametrize("rest", [1e-1, 1e-3, 1e-6])
def test_rows_that_are_nearly_free_to_prune(rest, rng):
    """A few large weights that stay, the others nothing: the optimum is far below the cost of the whole."""
    n = 16
    W = rng.standard_normal((2, n))
    W[0, 3:] *= rest
    problem = SubsetProblem(W, np.eye(n) + 0.02 * gram(rng, n), Budget.per_row(12))
    for block, best in zip(blocks(problem), split_blocks(blocks(problem)), strict=True):
        value = min(block.value(mask) for mask in greedy_masks(problem, block))
        assert 0.8 * value < root_bound(block, best) <= value


def greedy_masks(problem, block):
    return row_curves(problem.W[block.rows], problem.hessian).masks(block.prune)


def test_wide_rows_share_a_split(rng, monkeypatch):
    problem = make_problem(rng, Budget.per_row([5, 0, 6, 4]), m=4, n=9)
    found = blocks(problem)
    own = split_blocks(found)
    monkeypatch.setattr(split, "WIDE", 8)
    assert split.representable(found)
    assert not split.representable(blocks(make_problem(rng, Budget.per_row(2), n=9, kind="stacked")))
    assert not split.representable(blocks(make_problem(rng, Budget.per_row(2), n=9, refit=False)))
    assert not split.representable(blocks(make_problem(rng, Budget.columns(2), n=9)))
    assert split.representable(blocks(make_problem(rng, Budget.n_of_m(1, 3), n=9)))
    common = split_blocks(found)
    np.testing.assert_array_equal(common[0].d, common[2].d)
    np.testing.assert_array_equal(common[0].d, common[3].d)
    for block, one, best in zip(found, own, common, strict=True):
        assert psd(block.H[0], best.d[0])
        assert best.z.sum() == pytest.approx(block.keep[0])
        assert root_bound(block, best) <= root_bound(block, one) * (1 + 1e-3) + 1e-12
        if not block.trivial:
            value = relaxed_value(block, best.d)
            assert root_bound(block, best) == pytest.approx(value, rel=2e-3)


@VARIANTS
@pytest.mark.parametrize("prune", [0, 6])
def test_blocks_without_a_choice_get_their_exact_value(refit, prune, rng):
    for block in blocks(make_problem(rng, Budget.per_row(prune), refit=refit)):
        (best,) = split_blocks([block])
        assert best.steps == 0
        np.testing.assert_array_equal(best.z, 1.0 if prune == 0 else 0.0)
        value = block.value(np.full(6, prune == 6))
        assert root_bound(block, best) == pytest.approx(value, abs=1e-10 * block.scale)


def test_coupled_rows_with_their_own_curvatures_are_split_one_by_one(rng):
    (block,) = blocks(make_problem(rng, Budget.columns(3), m=3, kind="stacked"))
    (best,) = split_blocks([block])
    assert best.d.shape == (3, 6)
    for H, d in zip(block.H, best.d, strict=True):
        assert psd(H, d)
    assert best.z.sum() == pytest.approx(3.0)


def test_an_order_of_blocks_is_kept(rng):
    problem = make_problem(rng, Budget.per_row([2, 0, 3, 6, 2]), m=5)
    for block, best in zip(blocks(problem), split_blocks(blocks(problem)), strict=True):
        assert best.z.sum() == pytest.approx(block.keep[0], abs=1e-6)


@QUICK
@given(
    seed=st.integers(0, 10**6),
    positive=st.booleans(),
    excess=st.sampled_from([0.0, 1e-15, 1e-12, 1e-6, 0.5]),
    damping=st.sampled_from([1e-8, 1e-3, 1.0]),
)
def test_secured_splits_are_positive_semidefinite(seed, positive, excess, damping):
    """Whatever the split was, even too large, what comes back is valid, and it is no larger."""
    rng = np.random.default_rng(seed)
    H = gram(rng, 6, damping=damping)
    d = rng.uniform(0.1, 1.0, 6)
    d *= (1 + excess) * np.linalg.eigvalsh(H / np.sqrt(np.outer(d, d)))[0]
    if not positive:
        d -= 0.1 * np.trace(H)
    found = secure(H, d, positive)
    assert exactly_semidefinite(fractions(H) - np.diag(fractions(found)))
    assert (found <= d).all()
    assert (found > 0).all() or not positive


def test_splits_at_the_very_edge_are_secured():
    """At the computed least eigenvalue a plain Cholesky factorisation passes some that are indefinite."""
    for seed in range(40):
        H = gram(np.random.default_rng(seed), 6)
        d = np.full(6, np.linalg.eigvalsh(H)[0])
        assert exactly_semidefinite(fractions(H) - np.diag(fractions(secure(H, d, True))))


def exactly_semidefinite(A):
    """Whether a matrix of fractions is positive semidefinite, by elimination; definite ones only."""
    A = A.copy()
    for i in range(len(A)):
        if A[i, i] <= 0:
            return False
        for j in range(i + 1, len(A)):
            A[j] = A[j] - A[j, i] / A[i, i] * A[i]
    return True


def test_a_split_that_is_safe_already_is_left_alone(rng):
    H = gram(rng, 6)
    d = np.full(6, 0.5 * np.linalg.eigvalsh(H)[0])
    np.testing.assert_array_equal(secure(H, d, True), d)


def test_a_curvature_too_close_to_singular_is_refused(rng):
    x = rng.standard_normal((2, 6))
    H = x.T @ x
    with pytest.raises(ValueError, match="too close to singular for a certified split; add damping"):
        secure(H, np.full(6, 1e-18), True)
    assert psd(H, secure(H, np.zeros(6), False))


@pytest.mark.parametrize("positive", [True, False])
def test_units_of_the_inputs_do_not_matter(positive, rng):
    """Scaling inputs by powers of two scales the split and nothing else, however far they are apart."""
    H = gram(rng, 6)
    d = np.full(6, (1 - 1e-9) * np.linalg.eigvalsh(H)[0])
    units = np.exp2([0.0, 30.0, -30.0, 10.0, -40.0, 2.0])
    scaled = secure(units[:, None] * H * units, units**2 * d, positive)
    np.testing.assert_allclose(scaled, units**2 * secure(H, d, positive), rtol=1e-12)
    assert ((d > 0) & (scaled > 0.9 * units**2 * d)).all()


def test_blocks_are_what_splits_are_made_of(rng):
    """A block built by hand splits like the problem's own."""
    problem = make_problem(rng, Budget.per_row(2), m=1)
    (block,) = blocks(problem)
    H, w = problem.hessian.dense(0), problem.W[0]
    labels, keep = np.zeros(6, np.int64), np.array([4])
    b = H @ w
    own = Block(True, H[None], b[None, :, None], w[None, :, None], 0.5 * w @ b, labels, keep, np.array([0]))
    np.testing.assert_allclose(split_blocks([own])[0].d, split_blocks([block])[0].d, rtol=1e-8)


def test_trees_that_keep_one_split_begin_with_one_that_is_far_from_singular():
    problem = make_problem(np.random.default_rng(3), Budget.per_row(12), m=1, n=24, refit=False)
    block = blocks(problem)[0]
    depth = {}
    for tolerance in (split.at_first(True, 24), split.at_first(False, 24)):
        (found,) = split_blocks([block], tolerance=tolerance)
        depth[tolerance] = np.linalg.eigvalsh(block.H[0] - np.diag(found.d[0]))[0]
    assert 0.0 <= depth[split.LOOSE] < depth[split.SMOOTH]
    assert split.at_first(False, split.WIDE + 1) == split.LOOSE
