"""The compiled search of one block: state, fixing, branching, growing, and slices of work."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget, SubsetProblem
from solvers.bounds.node import oracle
from solvers.bounds.node.restriction import elimination
from solvers.bounds.split import split_blocks
from solvers.exact.tree import branching, fixing, storage, store
from solvers.exact.tree.block_tree import BlockTree, Settings
from solvers.form.blocks import blocks
from tests.solvers.oracles import all_masks, gram, make_problem

QUICK = settings(derandomize=True, max_examples=60, deadline=None)
GAP = 1e-6


def grow_from(problem, pruned=None, gap=GAP, **options):
    """The tree of a problem's first block, from a poor incumbent."""
    block = blocks(problem)[0]
    (best,) = split_blocks([block])
    if pruned is None:
        scores = -np.abs(problem.W[:1])
        pruned = np.zeros(block.n, dtype=bool)
        for p, count in enumerate(block.prune):
            pool = np.flatnonzero(block.labels == p)
            pruned[pool[np.argsort(scores[0, pool])[:count]]] = True
    return BlockTree(block, Settings(**options)).plant(best, pruned, block.value(pruned), gap)


def least(block, problem):
    """The least cost of a block's decisions, one by one."""
    return min(block.value(mask[0]) for mask in all_masks(problem))


CASES = {
    "joint": (Budget.per_row(8), {"n": 13}),
    "joint, few pruned": (Budget.per_row(3), {"n": 16}),
    "selection": (Budget.per_row(7), {"n": 13, "refit": False}),
    "selection with gradient": (Budget.per_row(7), {"n": 13, "refit": False, "gradient": True}),
    "pools": (Budget.n_of_m(2, 4), {"n": 12}),
    "pools of a selection": (Budget.n_of_m(1, 3), {"n": 12, "refit": False}),
    "columns": (Budget.columns(7), {"m": 3, "n": 12}),
    "columns, own curvatures": (Budget.columns(7), {"m": 3, "n": 12, "kind": "stacked"}),
    "columns of a selection": (Budget.columns(6), {"m": 3, "n": 12, "refit": False}),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("case", CASES)
def test_a_block_is_solved_and_its_bound_rises(case, seed):
    budget, options = CASES[case]
    problem = make_problem(np.random.default_rng(seed), budget, **{"m": 1, **options})
    found = grow_from(problem)
    best = least(found.block, problem)
    bound, value = found.bound, found.value
    while not found.work(3):
        assert found.bound >= bound - 1e-15 * found.block.scale
        assert found.value <= value
        bound, value = found.bound, found.value
        assert bound <= best <= value + 1e-12 * found.block.scale
    assert found.bound <= best + 1e-15
    assert found.value == pytest.approx(best, abs=GAP * abs(best) + 1e-10 * found.block.scale)
    assert found.block.value(found.pruned) == pytest.approx(found.value, rel=1e-9, abs=1e-12)
    assert np.bincount(found.block.labels, weights=found.pruned).tolist() == found.block.prune.tolist()
    assert found.value - found.bound <= 2 * GAP * abs(best) + 1e-9 * found.block.scale
    assert found.work()


def test_slices_do_not_change_the_course(rng):
    problem = make_problem(rng, Budget.per_row(12), m=1, n=20)
    whole, sliced = grow_from(problem), grow_from(problem)
    assert whole.work(100_000)
    slices = 0
    while not sliced.work(1):
        slices += 1
    assert slices > 3
    assert (sliced.nodes, sliced.value, sliced.bound) == (whole.nodes, whole.value, whole.bound)
    np.testing.assert_array_equal(sliced.pruned, whole.pruned)


def test_storage_grows_when_it_must(rng, monkeypatch):
    problem = make_problem(rng, Budget.per_row(12), m=1, n=20)
    whole, tight = grow_from(problem, worth=0.0), grow_from(problem, worth=0.0)
    for tree in (whole, tight):
        tree.storage.store = storage.stretched(tree.store, storage.SPLITS, 2)
    tight.state.free = 20  # as if the other places were taken
    stretch, asked = storage.stretched, []
    monkeypatch.setattr(
        storage,
        "stretched",
        lambda arrays, names, size: asked.append((names, size)) or stretch(arrays, names, size),
    )
    assert tight.work(100_000)
    assert whole.work(100_000)
    assert (storage.SPLITS, 16) in asked
    assert (storage.PLACES, 552) in asked
    assert (tight.nodes, tight.value, tight.bound) == (whole.nodes, whole.value, whole.bound)


@pytest.mark.parametrize("record", [False, True], ids=["plain", "recorded"])
@pytest.mark.parametrize("case", CASES)
def test_without_room_for_more_nodes_the_search_is_depth_first(case, record):
    budget, options = CASES[case]
    problem = make_problem(np.random.default_rng(3), budget, **{"m": 1, **options})
    found = grow_from(problem, gap=0.0, probe=0, depth=-1, record=record)
    best, n = least(found.block, problem), found.block.n
    found.storage.memory = 0
    found.state.free = n + 8
    deepest = 0
    while not found.work(1):
        deepest = max(deepest, int(found.state.stack))
        assert found.bound <= best
        if found.full:  # the proof has no room
            assert record
            found.storage.memory += 100_000
            found.full = False
    assert 0 < deepest <= n + 1
    assert found.value == pytest.approx(best, abs=1e-10 * found.block.scale)
    assert found.bound == pytest.approx(best, abs=1e-9 * found.block.scale)
    if record:
        assert found.proof().bound <= best


def test_best_first_goes_on_when_there_is_room_again(rng):
    problem = make_problem(rng, Budget.per_row(9), m=1, n=16)
    found = grow_from(problem, gap=0.0, probe=0, depth=-1)
    best = least(found.block, problem)
    found.storage.memory, found.state.free = 0, 24
    while not found.state.stack:
        assert not found.work(1)
    found.storage.memory = 1 << 30
    found.feed(1 << 31)
    while not found.done:
        found.work(1)
    assert found.value == pytest.approx(best)
    assert found.bound == pytest.approx(best, rel=1e-9)


def test_a_search_that_shares_memory_waits_for_more(rng):
    problem = make_problem(rng, Budget.per_row(9), m=1, n=16)
    alone, waiting = (grow_from(problem, gap=0.0, depth=-1, share=share) for share in (False, True))
    waiting.storage.memory, waiting.state.free = 0, 20
    assert not waiting.work()
    assert waiting.hungry
    assert not waiting.full
    nodes = waiting.nodes
    waiting.feed(1 << 20)
    assert not waiting.hungry
    assert waiting.work(100_000)
    assert waiting.nodes > nodes
    assert alone.work(100_000)
    assert (waiting.nodes, waiting.value, waiting.bound) == (alone.nodes, alone.value, alone.bound)


def test_a_proof_without_room_stops_the_search_with_a_valid_bound(rng):
    problem = make_problem(rng, Budget.per_row(14), m=1, n=24)
    found, solved = (grow_from(problem, depth=-1, probe=0, record=record) for record in (True, False))
    found.storage.memory = limit = found.storage.bytes
    assert not found.work(100_000)
    assert found.full
    assert found.storage.bytes <= limit
    assert solved.work(100_000)
    assert 0 < found.bound < solved.value <= found.value
    assert 0 < found.proof().bound < solved.value


def test_splits_that_no_node_needs_are_forgotten(rng):
    problem = make_problem(rng, Budget.per_row(14), m=1, n=26)
    free, tight = (grow_from(problem, worth=0.0, depth=0) for _ in range(2))
    tight.storage.memory = tight.storage.bytes
    assert free.work(100_000)
    while not tight.work(1):
        assert len(tight.store.roots) == 16
    assert free.splits > 16
    assert tight.value == pytest.approx(free.value, rel=1e-9)
    assert tight.bound == pytest.approx(free.bound, rel=1e-9)


def test_a_halted_search_stops_at_once_and_can_go_on(rng):
    problem = make_problem(rng, Budget.per_row(9), m=1, n=16)
    found = grow_from(problem)
    found.halt[0] = True
    assert not found.work(100_000)
    assert found.nodes == 0
    found.halt[0] = False
    assert found.work(100_000)
    assert found.value == pytest.approx(least(found.block, problem), rel=1e-6)


@pytest.mark.parametrize("gap", [0.02, 0.1, 0.3])
def test_the_bound_counts_what_fixing_left_out_within_the_gap(gap):
    """Also where the incumbent is not the best mask, and a loose gap lets the search leave that out."""
    for seed in range(24):
        rng = np.random.default_rng(seed)
        problem = make_problem(rng, Budget.per_row(2 + seed % 7), m=1, n=11, refit=seed % 2 == 0)
        block = blocks(problem)[0]
        masks = sorted((mask[0] for mask in all_masks(problem)), key=block.value)
        for pruned in masks[1:4]:
            found = grow_from(problem, pruned, gap=gap)
            assert found.work(100_000)
            assert found.bound <= block.value(masks[0]) + 1e-12 * block.scale
            assert found.value - found.bound <= gap * abs(found.value) + 1e-12 * block.scale


def test_an_optimal_incumbent_is_kept(rng):
    problem = make_problem(rng, Budget.per_row(8), m=1, n=13)
    first = grow_from(problem, gap=0.0)
    first.work(100_000)
    again = grow_from(problem, first.pruned)
    again.work(100_000)
    np.testing.assert_array_equal(again.pruned, first.pruned)


def test_a_loose_gap_takes_fewer_nodes(rng):
    problem = make_problem(rng, Budget.per_row(12), m=1, n=20)
    loose, tight = grow_from(problem, gap=0.1), grow_from(problem, gap=1e-6)
    assert loose.work(100_000)
    assert tight.work(100_000)
    assert loose.nodes < tight.nodes
    assert loose.bound >= 0.9 * loose.value * (1 - 1e-12)
    assert loose.bound <= tight.value


@pytest.mark.parametrize("probe", [0, 1, 4])
def test_how_often_entries_are_probed_does_not_change_the_answer(probe, rng):
    problem = make_problem(rng, Budget.per_row(12), m=1, n=18)
    found = grow_from(problem, probe=probe)
    assert found.work(100_000)
    assert found.value == pytest.approx(least(found.block, problem), rel=1e-6)
    assert (found.state.probes == 0) == (probe == 0)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("case", ["zero weights", "all zero", "dead inputs", "duplicates"])
def test_degenerate_rows(case, refit, rng):
    n = 12
    H, W = gram(rng, n), rng.standard_normal((1, n))
    if case == "zero weights":
        W[0, :5] = 0.0
    elif case == "all zero":
        W[:] = 0.0
    elif case == "dead inputs":
        H[:4] = H[:, :4] = 0.0
        H += 1e-4 * np.eye(n)
    else:
        X = rng.standard_normal((40, n))
        X[:, 6:] = X[:, :6]
        H = X.T @ X / 40 + 1e-3 * np.eye(n)
    for prune in (3, 6, 10):
        problem = SubsetProblem(W, H, Budget.per_row(prune), refit=refit)
        found = grow_from(problem)
        best = least(found.block, problem)
        assert found.work(200_000)
        assert found.bound <= best <= found.value + 1e-12
        assert found.value == pytest.approx(best, rel=2 * GAP, abs=1e-9 * found.block.scale)


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("prune", [0, 9])
def test_blocks_without_a_choice(prune, refit, rng):
    problem = make_problem(rng, Budget.per_row(prune), m=1, n=9, refit=refit)
    found = grow_from(problem)
    assert found.work()
    assert found.nodes <= 1
    assert found.pruned.all() == (prune == 9)
    assert found.bound == pytest.approx(found.value, abs=1e-9 * found.block.scale)


@QUICK
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20))
def test_nodes_leave_the_heap_by_rising_bounds(bounds):
    kept = storage.Storage(1, 1, 1, 1 << 20, record=False)
    kept.room_for_nodes()
    for node, bound in enumerate(bounds):
        kept.store.lower[node] = bound
        store.push(kept.store, kept.state, node)
    lower = kept.store.lower[: len(bounds)]
    out = [int(store.pop(kept.store, kept.state)) for _ in bounds]
    assert sorted(out) == list(range(len(bounds)))
    assert lower[out].tolist() == sorted(bounds)
    assert kept.state.heap == 0


def pooled_sum(s, fix, labels, keep):
    """Sum of scores over kept entries and each pool's best free ones; minus infinity if it can't be."""
    total = s[fix > 0].sum()
    for p, count in enumerate(keep):
        free = np.sort(s[(labels == p) & (fix == 0)])[::-1]
        left = count - ((labels == p) & (fix > 0)).sum()
        if not 0 <= left <= len(free):
            return -np.inf
        total += free[:left].sum()
    return total


@QUICK
@given(
    s=st.lists(st.floats(0, 4), min_size=8, max_size=8),
    keep=st.lists(st.integers(1, 3), min_size=2, max_size=2),
    room=st.floats(0.01, 3),
)
def test_fixing_by_scores_against_bounds_of_both_children(s, keep, room):
    s, labels, keep = np.array(s), np.arange(8) // 4, np.array(keep)
    fix, need = np.zeros(8, np.int8), keep.copy()
    base = 20.0
    bound = base - pooled_sum(s, fix, labels, keep)
    cutoff = bound + room
    removed = fixing.fix_by_scores(s, bound, cutoff, fix, labels, need)
    least = np.inf
    for i in range(8):
        children = {}
        for side in (-1, 1):
            child = np.zeros(8, np.int8)
            child[i] = side
            children[side] = base - pooled_sum(s, child, labels, keep)
        worse = {side: value >= cutoff + 1e-9 for side, value in children.items()}
        near = any(abs(value - cutoff) < 1e-9 for value in children.values())
        if fix[i]:
            least = min(least, children[-fix[i]])
        if not near:
            assert fix[i] == (1 if worse[-1] else -1 if worse[1] else 0)
    assert removed == pytest.approx(least)
    assert need.tolist() == [keep[p] - ((labels == p) & (fix > 0)).sum() for p in range(2)]


def test_settling_fixes_what_a_pool_leaves_no_choice_about():
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    fix = np.array([1, 0, 0, -1, 0, 0, 0, 0, 0], np.int8)
    need = np.array([0, 2, 1])
    assert fixing.settle(fix, labels, need) == 3
    assert fix.tolist() == [1, -1, -1, -1, 1, 1, 0, 0, 0]
    assert need.tolist() == [0, 0, 1]


def test_rounding_keeps_the_largest_shares_of_every_pool():
    z, out = np.array([0.2, 0.9, 0.5, 0.5, 0.5, 0.1]), np.empty(6)
    fixing.round_shares(z, np.array([0, 0, 0, 1, 1, 1]), np.array([2, 1]), out)
    assert out.tolist() == [0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_stiffness_is_the_second_order_cost_of_moving_one_share(refit, rng):
    """`1 / (2 P_ii)`, P the inverse of f'' under the constraint that the pool's sum stays."""
    n = 6
    block = blocks(make_problem(rng, Budget.n_of_m(1, 3), m=1, n=n, refit=refit))[0]
    (best,) = split_blocks([block])
    model = oracle.model_of(block, best.d)
    z, labels = rng.uniform(0.2, 0.8, n), block.labels
    L, q, s, K = np.empty((1, n, n)), np.empty((1, n, 1)), np.empty(n), np.empty((n, n))
    oracle.evaluate(model, z, L, q, s)
    candidates = np.arange(n)
    found = branching.stiffness(model, z, L, q, candidates, K)
    oracle.curvature(model, z, L, q, candidates, K)
    for p in range(2):
        E = np.where(labels == p, 1.0, 0.0)[None]
        system = np.block([[K, E.T], [E, np.zeros((1, 1))]])
        P = np.linalg.inv(system)[:n, :n]
        inside = np.flatnonzero(labels == p)
        np.testing.assert_allclose(found[inside], 0.5 / np.diag(P)[inside], rtol=1e-2)


def test_narrow_selections_keep_the_root_s_split_and_probe_nothing():
    problem = make_problem(np.random.default_rng(5), Budget.per_row(10), m=1, n=20, refit=False)
    plain, told = grow_from(problem, worth=0.0), grow_from(problem, worth=0.0, depth=0, probe=1)
    best = least(plain.block, problem)
    for tree in (plain, told):
        while not tree.work():
            pass
        assert tree.value == pytest.approx(best, rel=GAP)
        assert tree.bound <= best
    assert (plain.splits, plain.state.probes) == (1, 0)
    assert told.splits > 1
    assert told.state.probes > 0


@pytest.mark.parametrize("damping", [1e-1, 1e-3])
@pytest.mark.parametrize(("share", "depth"), [(0.05, 3), (0.35, 3), (0.6, -1)])
def test_there_are_new_splits_as_long_as_rounding_leaves_the_gap_provable(share, depth, damping):
    more = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        problem = SubsetProblem(rng.standard_normal((1, 12)), gram(rng, 12, damping), Budget.per_row(6))
        (block,), best = blocks(problem), min(all_masks(problem), key=problem.value)[0]
        (split,), value = split_blocks([block]), block.value(best)
        gap = elimination(block, split.d[0], 0.0) / (share * value)
        tree = BlockTree(block, Settings(worth=0.0)).plant(split, best, value, gap)
        while not tree.work():
            pass
        assert tree.search.effort.depth == depth
        assert value * (1.0 - gap) <= tree.bound <= value
        more += tree.splits > 1
    assert (more > 1) == (depth > 0)
