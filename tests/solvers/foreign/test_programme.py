"""The models as matrices: objectives equal costs, better masks stay feasible, tangents hold and cut."""

import numpy as np
import pytest

from solvers import Budget
from solvers.foreign.mixed_integer import root
from solvers.foreign.models import joint_model, selection_model
from solvers.foreign.programme import SHORT, programme, size
from solvers.form.blocks import Part
from tests.solvers.oracles import BUDGETS, all_masks, make_problem


def matrices(problem, strengthened, factored, rank=15):
    """The programme of a problem whose incumbent is the mask of some rank; that mask and the model."""
    masks = sorted(all_masks(problem), key=problem.value)
    part = Part(problem, slice(0, problem.m), masks[rank], problem.value(masks[rank]), -np.inf)
    d = root(problem).d if strengthened else None
    model = joint_model(part, d) if problem.refit else selection_model(part, d)
    return programme(model, problem, masks[rank], factored=factored), model, masks[: rank + 1]


def objective(p, x):
    return 0.5 * x @ (p.Q @ x) + p.c @ x + p.constant


def assert_feasible(p, x, tolerance=1e-9):
    rows = p.A @ x - p.b
    np.testing.assert_allclose(rows[: p.equalities], 0.0, atol=1e-7)
    assert (rows[p.equalities :] <= tolerance).all()
    assert (x >= p.lower - tolerance).all()
    assert (x <= p.upper + tolerance).all()
    v, s, z = x[p.cones].T
    assert (v**2 <= s * z + tolerance).all()


@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("strengthened", [False, True])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", ["per_layer", "columns"])
def test_the_incumbent_is_feasible_at_its_cost(rng, budget, refit, strengthened, factored):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, gradient=not refit, kind="stacked")
    p, model, better = matrices(problem, strengthened, factored)
    assert_feasible(p, p.start)
    assert model.unit * objective(p, p.start) == pytest.approx(problem.value(better[-1]), rel=1e-8)
    assert (p.mask(problem, p.start) == better[-1]).all()
    assert set(np.unique(p.start[p.binary])) <= {0.0, 1.0}
    assert (len(p.cones) > 0) == (refit and strengthened)
    assert len(p.names) == len(set(p.names)) == len(p.c)
    if factored:
        np.testing.assert_array_equal(np.unique(p.Q.toarray()), [0.0, 1.0])


def test_ranges_are_those_of_the_model_where_kept_and_nothing_where_pruned(rng):
    problem = make_problem(rng, Budget.per_layer(5))
    p, model, _ = matrices(problem, False, False)
    m, n = problem.W.shape
    for values, kept, fits in ((model.high, 1.0, True), (model.low, 1.0, True), (0.0, 0.0, True),
                               (model.high + 0.01, 1.0, False), (model.low - 0.01, 1.0, False),
                               (0.01, 0.0, False), (-0.01, 0.0, False)):  # fmt: skip
        x = np.concatenate([np.full(m * n, kept), np.broadcast_to(values, (m, n)).ravel()])
        rows = (p.A @ x - p.b)[p.equalities :].reshape(2, m * n).max(axis=0)
        assert ((rows <= 1e-9) == fits).all()


def test_masks_better_than_the_incumbent_stay_feasible(rng):
    problem = make_problem(rng, Budget.per_layer(5), kind="stacked")
    p, model, better = matrices(problem, True, False)
    for mask in better:
        v = np.where(mask, 0.0, problem.weights(mask) / model.scale).ravel()
        x = np.concatenate([(~mask).ravel().astype(float), v, v**2])
        assert_feasible(p, x)
        assert model.unit * objective(p, x) == pytest.approx(problem.value(mask), rel=1e-8)


@pytest.mark.parametrize("strengthened", [False, True])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", ["per_row", "per_layer", "columns", "n_of_m"])
def test_size_is_what_is_built(rng, budget, refit, strengthened):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, m=1 if budget in ("per_row", "n_of_m") else 2)
    for factored in (False, True):
        p, _, _ = matrices(problem, strengthened, factored, rank=1)
        built = (len(p.c), len(p.b) + len(p.cones))
        assert built == size(problem, strengthened, factored=factored)
    p, _, _ = matrices(problem, strengthened, False, rank=1)
    first = len(p.first_tangents()[1]) if len(p.cones) else 0
    assert size(problem, strengthened, tangents=True) == (len(p.c), len(p.b) + first)


def test_tangents_hold_on_the_cones_and_cut_what_is_beyond(rng):
    problem = make_problem(rng, Budget.per_layer(5))
    p, _, _ = matrices(problem, True, False)
    A, b = p.tangents(p.start)
    assert len(b) == 0
    x = p.start.copy()
    x[p.cones[:, 2]] = rng.uniform(0.01, 1.0, len(p.cones))
    x[p.cones[:, 0]] = rng.standard_normal(len(p.cones))
    x[p.cones[:, 1]] = x[p.cones[:, 0]] ** 2 / x[p.cones[:, 2]] - 1e-3
    A, b = p.tangents(x)
    assert len(b) == len(p.cones)
    assert (A @ x - b > SHORT).all()
    for rows, right in ((A, b), p.first_tangents()):
        for _ in range(50):
            inside = rng.standard_normal(len(p.c))
            v, s, z = p.cones.T
            inside[z] = rng.uniform(0.0, 1.0, len(z))
            inside[v] *= inside[z]
            inside[s] = inside[v] ** 2 / inside[z] + rng.exponential(size=len(s)) * rng.integers(0, 2)
            assert (rows @ inside <= right + 1e-9).all()
    assert len(p.first_tangents()[1]) == 5 * len(p.cones)
