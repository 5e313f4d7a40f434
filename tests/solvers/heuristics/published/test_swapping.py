import numpy as np
import pytest

from solvers import Budget, FactorHessian, Status, SubsetProblem, solve
from solvers.heuristics.published.swapping import DenseImpacts, FactorImpacts, Swapping, impacts

BUDGETS = [Budget.per_row(4), Budget.per_layer(3), Budget.n_of_m(2, 4), Budget.columns(3)]
FINE = Swapping(epsilon=1e-12)


def make(rng, budget, m=3, n=8, samples=5):
    X = rng.standard_normal((samples, n)) @ rng.standard_normal((n, n))
    return SubsetProblem(rng.standard_normal((m, n)), FactorHessian(X, 0.05), budget, refit=False)


def best_swap(problem, mask):
    """The best change by one swap within a pool, by recomputation."""
    pools = problem.pools
    x, labels = pools.decisions(mask), pools.labels
    best = 0.0
    for i in np.argwhere(x):
        for j in np.argwhere(~x & (labels == labels[tuple(i)])):
            y = x.copy()
            y[tuple(i)], y[tuple(j)] = False, True
            best = min(best, problem.value(pools.expand(y, problem.m)) - problem.value(mask))
    return best


def published_step(problem, mask, epsilon, rho, tau):
    """One step of Algorithm 1 on a single pool, written out from the paper with a dense matrix."""
    A = problem.W[0][:, None] * problem.hessian.dense(0) * problem.W[0]
    x = mask[0].copy()
    P, rest = np.flatnonzero(x), np.flatnonzero(~x)
    alpha = {i: A[i, i] + 2 * sum(A[i, j] for j in P if j != i) for i in P}
    beta = {j: A[j, j] + 2 * sum(A[i, j] for i in P) for j in rest}
    pi = sorted(P, key=lambda i: -alpha[i])
    theta = sorted(rest, key=lambda j: beta[j] - 2 * A[pi[0], j])
    out, into, failures = [], [], 0
    if -alpha[pi[0]] + beta[theta[0]] - 2 * A[pi[0], theta[0]] > -epsilon:
        return mask
    for p, i in enumerate(pi):
        taken = False
        for j in theta[max(0, p - rho) : p + rho + 1]:
            if j in into:
                continue
            change = -alpha[i] + beta[j] - 2 * A[i, j]
            change += 2 * sum(A[i, o] for o in out) - 2 * sum(A[i, e] for e in into)
            change += -2 * sum(A[j, o] for o in out) + 2 * sum(A[j, e] for e in into)
            if change <= -epsilon:
                out.append(i)
                into.append(j)
                taken = True
                break
        failures += not taken
        if failures >= tau:
            break
    x[out], x[into] = False, True
    return x[None]


@pytest.mark.parametrize("samples", [5, 60])
def test_a_step_is_that_of_the_paper(rng, samples):
    changed = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        problem = make(rng, Budget.per_layer(14), m=1, n=30, samples=samples)
        start = problem.pools.smallest(problem.W**2)
        rho, tau = 2 + seed % 3, 1 + seed % 4
        expected = published_step(problem, start, 1e-4, rho, tau)
        solver = Swapping(rho=rho, tau=tau, steps=1)
        found = solve(problem, solver, warm_start=start)
        assert found.stats["steps"] == 1
        assert (found.mask == expected).all()
        changed += int((expected & ~start).sum())
    assert changed > 12


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("samples", [5, 40])
def test_it_improves_its_start_and_meets_the_budget(rng, budget, samples):
    problem = make(rng, budget, samples=samples)
    start = problem.pools.expand(problem.pools.smallest(-rng.random(problem.pools.labels.shape)), 3)
    found = solve(problem, FINE, warm_start=start)
    assert found.value < problem.value(start)
    assert problem.pools.violation(found.mask) is None
    optimum = solve(problem, "brute-force").value
    assert found.value >= optimum - 1e-9
    assert best_swap(problem, start) < 0


def test_epsilon_is_the_least_gain(rng):
    problem = make(rng, Budget.per_layer(10), m=1, n=20)
    start = problem.pools.smallest(-np.abs(problem.W))
    gain = -2 * best_swap(problem, start)
    assert gain > 0
    assert solve(problem, Swapping(epsilon=100 * gain), warm_start=start).stats["swaps"] == 0
    assert solve(problem, Swapping(epsilon=gain / 100), warm_start=start).stats["swaps"] > 0


def test_the_best_score_is_kept_and_patience_ends_the_search(rng):
    problem = make(rng, Budget.per_layer(20), m=1, n=40)
    masks = []

    def score(mask):
        masks.append(mask.copy())
        return float(len(masks))

    start = problem.pools.smallest(problem.W**2)
    solution = solve(problem, Swapping(score=score, patience=2, tau=1), warm_start=start)
    assert solution.stats["steps"] == 2
    assert (solution.mask == start).all()
    assert solution.stats["score"] == 1.0
    assert problem.value(masks[-1]) < solution.value


def test_it_starts_from_randomized_magnitude(rng):
    problem = make(rng, Budget.per_layer(20), m=1, n=40)
    start = solve(problem, "randomized-magnitude", seed=5)
    found = solve(problem, "swapping", seed=5)
    assert found.value <= start.value
    assert found.mask.tolist() == solve(problem, "swapping", seed=5).mask.tolist()


def test_interruption_keeps_the_start(rng):
    problem = make(rng, Budget.per_layer(20), m=1, n=40)
    solution = solve(problem, "swapping", callback=lambda progress: True)
    assert solution.status is Status.INTERRUPTED
    assert problem.pools.violation(solution.mask) is None


def test_the_joint_variant_is_refused(rng):
    problem = SubsetProblem(np.ones((1, 4)), np.eye(4), Budget.per_row(2))
    with pytest.raises(ValueError, match="does not do the joint variant"):
        solve(problem, "swapping")


M, N, SAMPLES = 3, 6, 4


def make_kind(rng, kind, budget, gradient=True):
    X = rng.standard_normal((SAMPLES, N))
    H = {
        "shared": X.T @ X / SAMPLES + 0.1 * np.eye(N),
        "stacked": np.stack([np.cov(rng.standard_normal((N, 20))) for _ in range(M)]),
        "factor": FactorHessian(X, 0.1),
    }[kind]
    G = rng.standard_normal((M, N)) if gradient else None
    return SubsetProblem(rng.standard_normal((M, N)), H, budget, refit=False, gradient=G)


def value(problem, x):
    """The problem's value at any set of items, whatever the budget."""
    mask = np.repeat(x[None], M, axis=0) if problem.pools.coupled else x.reshape(M, N)
    D = np.where(mask, -problem.W, 0.0)
    total = 0.5 * np.sum(D * problem.hessian.matmul(D))
    return total + (0.0 if problem.G is None else np.sum(problem.G * D))


@pytest.mark.parametrize("kind", ["shared", "stacked", "factor"])
@pytest.mark.parametrize("budget", [Budget.per_layer(7), Budget.columns(3)])
@pytest.mark.parametrize("gradient", [True, False])
def test_impacts_follow_the_value_through_swaps(rng, kind, budget, gradient):
    problem = make_kind(rng, kind, budget, gradient)
    state = impacts(problem)
    x = problem.pools.smallest(rng.random(problem.pools.labels.shape)).ravel()
    state.reset(x)
    for _ in range(5):
        i, j = rng.choice(np.flatnonzero(x)), rng.choice(np.flatnonzero(~x))
        swapped = x.copy()
        swapped[[i, j]] = False, True
        pull, entry = state.pull(np.array([i, j])), state.entries(int(i), np.array([j]))[0]
        a, b = state.diagonal[[i, j]]
        change = -pull[0] + a / 2 + pull[1] + b / 2 - entry
        assert value(problem, swapped) - value(problem, x) == pytest.approx(change, abs=1e-11)
        state.swap(int(i), int(j))
        x = swapped
        assert state.value() == pytest.approx(value(problem, x), abs=1e-11)


def test_many_entries_are_one_product(rng, monkeypatch):
    state = impacts(make_kind(rng, "factor", Budget.per_layer(7)))
    items = np.array([0, 1, 2, 4, 5, 9])
    few = state.entries(3, items)
    monkeypatch.setattr("solvers.heuristics.published.swapping.MANY", 2)
    np.testing.assert_allclose(state.entries(3, items), few, atol=1e-14)
    assert few[:5].all()


def test_wide_factors_are_never_formed(rng, monkeypatch):
    problem = make_kind(rng, "factor", Budget.per_layer(7))
    monkeypatch.setattr(FactorHessian, "dense", lambda *_: pytest.fail("formed the dense matrix"))
    state = impacts(problem)
    assert isinstance(state, FactorImpacts)
    state.reset(np.arange(M * N) < 7)
    assert len(state.all_pulls()) == M * N


@pytest.mark.parametrize("kept", [0, 3, 10**9])
def test_copies_of_columns_change_nothing(rng, monkeypatch, kept):
    X, W = rng.standard_normal((6, 40)), rng.standard_normal((1, 40))
    problem = SubsetProblem(W, FactorHessian(X, 0.1), Budget.per_layer(20), refit=False)
    dense = SubsetProblem(W, X.T @ X / 6 + 0.1 * np.eye(40), Budget.per_layer(20), refit=False)
    monkeypatch.setattr("solvers.heuristics.published.swapping.KEPT_BYTES", 8 * 6 * kept)
    start = problem.pools.smallest(W**2)
    found = [solve(each, FINE, warm_start=start) for each in (problem, dense)]
    assert found[0].stats["swaps"] == found[1].stats["swaps"] > 0
    assert (found[0].mask == found[1].mask).all()


def test_single_precision_is_exact(rng):
    X = rng.standard_normal((SAMPLES, N)).astype(np.float32)
    W = rng.standard_normal((M, N))
    found = []
    for factor in (X, X.astype(np.float64)):
        state = impacts(SubsetProblem(W, FactorHessian(factor, 0.1), Budget.per_layer(7), refit=False))
        state.reset(np.arange(M * N) < 7)
        state.swap(3, 9)
        found.append([state.all_pulls(), state.pull(np.array([4, 9])), state.entries(4, np.array([2, 5]))])
    for single, double in zip(*found, strict=True):
        np.testing.assert_allclose(single, double, rtol=1e-12)


def test_tall_factors_are_looked_up(rng):
    problem = SubsetProblem(
        rng.standard_normal((1, 3)),
        FactorHessian(rng.standard_normal((9, 3))),
        Budget.per_layer(1),
        refit=False,
    )
    assert isinstance(impacts(problem), DenseImpacts)
