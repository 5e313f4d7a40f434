import numpy as np
import pytest

from solvers import Budget, SubsetProblem
from solvers.bounds.evaluate import trivial_bound
from solvers.form.blocks import Block, Part, assemble, blocks, independent
from tests.solvers.oracles import BUDGETS, all_masks, gram, make_problem, optimum

INDEPENDENT = ["per_row", "row_counts", "n_of_m"]


def by_supports(block, pruned):
    """`constant - 1/2 sum b_S' H_SS^-1 b_S` over the kept set S, as the class says."""
    S = np.flatnonzero(~pruned)
    fits = [
        np.einsum("ic,ic->", B[S], np.linalg.solve(H[np.ix_(S, S)], B[S]))
        for H, B in zip(block.H, block.B, strict=True)
    ]
    return block.constant - 0.5 * sum(fits)


@pytest.mark.parametrize(
    ("refit", "gradient"),
    [(True, False), (False, False), (False, True)],
    ids=["joint", "selection", "selection with gradient"],
)
@pytest.mark.parametrize("kind", ["shared", "stacked", "factor"])
@pytest.mark.parametrize("budget", [*INDEPENDENT, "columns"])
def test_values_add_up_to_the_problems(budget, kind, refit, gradient, rng):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, kind=kind, gradient=gradient)
    found = blocks(problem)
    assert [b.rows.tolist() for b in found] == ([[0, 1]] if budget == "columns" else [[0], [1]])
    masks = list(all_masks(problem))
    for i in rng.choice(len(masks), 5):
        mask = masks[i]
        choices = [mask[b.rows[0]] for b in found]
        total = sum(b.value(choice) for b, choice in zip(found, choices, strict=True))
        assert total == pytest.approx(problem.value(mask), rel=1e-9, abs=1e-12)
        np.testing.assert_array_equal(assemble(problem, found, choices), mask)
        for b, choice in zip(found, choices, strict=True):
            assert np.bincount(b.labels, weights=choice).tolist() == b.prune.tolist()
            if refit:
                assert by_supports(b, choice) == pytest.approx(b.value(choice), rel=1e-8)


def test_pools_are_counted_from_zero_in_every_row(rng):
    problem = make_problem(rng, Budget.n_of_m(1, 3), m=3)
    for block in blocks(problem):
        assert block.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert block.keep.tolist() == [1, 1]
        assert block.prune.tolist() == [2, 2]


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_counts_take_the_place_of_a_layers_budget(refit, rng):
    problem = make_problem(rng, Budget.per_layer(5), refit=refit, gradient=not refit)
    with pytest.raises(ValueError, match="no independent rows until counts are given"):
        blocks(problem)
    found = blocks(problem, np.array([1, 4]))
    assert [b.prune.tolist() for b in found] == [[1], [4]]
    mask = np.zeros((2, 6), dtype=bool)
    mask[0, 3] = mask[1, :4] = True
    total = sum(b.value(row) for b, row in zip(found, mask, strict=True))
    assert total == pytest.approx(problem.value(mask), rel=1e-10)


@pytest.mark.parametrize("kind", ["shared", "stacked"])
def test_coupled_joint_rows_share_a_curvature_or_bring_their_own(kind, rng):
    problem = make_problem(rng, Budget.columns(2), m=3, kind=kind)
    (block,) = blocks(problem)
    assert block.H.shape == ((1, 6, 6) if kind == "shared" else (3, 6, 6))
    assert block.B.shape == block.W.shape == ((1, 6, 3) if kind == "shared" else (3, 6, 1))
    everything = np.ones(6, dtype=bool)
    assert block.constant == pytest.approx(block.value(everything), rel=1e-12)


@pytest.mark.parametrize(
    ("budget", "trivial"),
    [
        (Budget.per_row(0), True),
        (Budget.per_row(6), True),
        (Budget.per_row(1), False),
        (Budget.n_of_m(0, 3), True),
        (Budget.n_of_m(3, 3), True),
        (Budget.n_of_m(2, 3), False),
    ],
)
def test_a_pool_without_a_choice_is_trivial(budget, trivial, rng):
    assert [b.trivial for b in blocks(make_problem(rng, budget))] == [trivial, trivial]


def test_pruning_nothing_and_everything(rng):
    w, H = rng.standard_normal((1, 6)), gram(rng, 6)
    block: Block = blocks(SubsetProblem(w, H, Budget.per_row(2)))[0]
    assert block.value(np.zeros(6, dtype=bool)) == 0.0
    assert block.value(np.ones(6, dtype=bool)) == pytest.approx(0.5 * w[0] @ H @ w[0], rel=1e-12)
    assert block.scale == block.constant


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("kind", ["shared", "stacked"])
def test_pieces_add_up_to_the_whole(rng, budget, refit, kind):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, kind=kind, gradient=not refit)
    pieces = independent(problem)
    assert len(pieces) == (1 if budget in ("per_layer", "columns") else problem.m)
    for mask in list(all_masks(problem))[::7]:
        total = sum(piece.value(mask[rows]) for rows, piece in pieces)
        assert total == pytest.approx(problem.value(mask), rel=1e-12, abs=1e-12 * problem.scale)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("gradient", [True, False])
def test_trivial_bound_is_below_every_mask(rng, budget, refit, gradient):
    problem = make_problem(rng, BUDGETS[budget], refit=refit, gradient=gradient and not refit)
    bound = trivial_bound(problem)
    assert np.isfinite(bound)
    assert bound <= optimum(problem)


def test_trivial_bound_needs_no_curvature(rng):
    problem = SubsetProblem(
        [[1.0, 2.0, 3.0]], np.zeros((3, 3)), Budget.per_row(2), refit=False, gradient=[[1, 1, 1]]
    )
    assert trivial_bound(problem) == pytest.approx(-5.0, rel=1e-9)
    assert trivial_bound(problem) <= -5.0


@pytest.mark.parametrize("prune", [0, 6])
def test_trivial_bound_is_the_value_of_an_only_mask(rng, prune):
    problem = make_problem(rng, Budget.per_row(prune), refit=False, gradient=True)
    assert trivial_bound(problem) == pytest.approx(optimum(problem), rel=1e-9)


def part(rng, **given):
    problem = make_problem(rng, Budget.per_row(3), m=1)
    mask = next(all_masks(problem))
    return Part(problem, slice(0, 1), mask, problem.value(mask), **{"floor": 0.0, **given})


def test_found_keeps_the_better_mask(rng):
    it = part(rng)
    masks = sorted(all_masks(it.problem), key=it.problem.value)
    assert it.found(masks[3])
    assert not it.found(masks[5])
    assert it.value == it.problem.value(masks[3])
    np.testing.assert_array_equal(it.mask, masks[3])


def test_a_claim_above_the_value_is_lowered_by_twice_its_error(rng):
    it = part(rng)
    it.claim = 1.25 * it.value
    assert it.excess == pytest.approx(0.25 * it.value)
    assert it.bound == pytest.approx(0.75 * it.value)
    assert not it.met(0.2)
    assert it.met(0.26)
    it.floor = 0.9 * it.value
    assert it.bound == it.floor


def test_an_attempt_must_promise_more_than_the_last(rng):
    it = part(rng)
    assert it.promise(1e-4, 1.0)
    assert not it.promise(1e-4, 1.5)
    assert it.promise(1e-4, 2.5)
    assert not it.promise(0.95e-4, 2.5)
    assert it.promise(1e-5, 2.5)
    assert it.attempts == 3
