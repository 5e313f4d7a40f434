"""The proofs that trees of splits in groups leave behind: below every mask, and as good as the search."""

import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, checker, solve
from solvers.bounds.split import split_blocks
from solvers.certificate.groups import families_of
from solvers.certificate.proof import leaf_fixings
from solvers.checker import Refuted
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.exact.grouped import group_tree
from solvers.exact.grouped.group_tree import GroupTree, suits
from solvers.exact.grouped.node import relax
from solvers.exact.tree.block_tree import Settings
from solvers.exact.tree.forest import _grown
from solvers.form.blocks import blocks
from solvers.instances import save
from solvers.runtime.parallel import one_thread_each
from tests.solvers.oracles import block_masks, digits_rows, make_problem

SOLVER = BranchAndBound(grouped=4)
RECORD = Settings(record=True)


def hard(rows=1, n=24, prune=16):
    """Rows of few samples, whose trees have some tens of nodes."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((n // 2, n))
    H = X.T @ X / len(X) + 1e-2 * np.eye(n)
    return SubsetProblem(rng.standard_normal((rows, n)), H, Budget.per_row(prune))


def planted(problem, settings=RECORD, gap=1e-6):
    block = blocks(problem)[0]
    pruned = block.smallest(np.arange(block.n))
    split = split_blocks([block])[0]
    assert suits(block, split, block.value(pruned), gap)
    return GroupTree(block, settings).plant(split, pruned, block.value(pruned), gap)


def verified(folder, problem, found):
    """The verdict on a solution's certificate, whose proofs are in groups where the row had a node."""
    assert found.certificate is not None
    found.certificate.save(folder / "c")
    save(folder / "p.npz", problem)
    proofs = found.certificate.parts[0].proofs
    for proof, nodes in zip(proofs, found.rows.nodes, strict=True):
        assert (proof.blocks is not None) == (nodes > 0)
    verdict = checker.verify(folder / "c", folder / "p.npz")
    assert verdict.bound == found.certificate.bound
    assert verdict.low <= found.value * (1 + 1e-9)
    return verdict, proofs


@pytest.mark.parametrize("nodes", [0, 1, 3, None])
@pytest.mark.parametrize(
    ("budget", "n"),
    [
        (Budget.per_row(3), 11),
        (Budget.per_row(8), 11),
        (Budget.n_of_m(2, 4), 16),
        (Budget.n_of_m(1, 4), 16),
        (Budget.n_of_m(4, 8), 16),
        (Budget.groups([2, 4, 9], [1, 3, 4]), 15),
    ],
    ids=["3 pruned", "8 pruned", "2 of 4", "1 of 4", "4 of 8", "pools and parts"],
)
def test_a_proof_covers_all_masks_and_shows_what_the_search_did(nodes, budget, n):
    for seed in range(3):
        problem = make_problem(np.random.default_rng(seed), budget, m=1, n=n)
        tree = planted(problem)
        while not tree.done and (nodes is None or tree.nodes < nodes):
            tree.work()
        block, bound = tree.block, tree.bound
        proof, masks = tree.last_proof(), block_masks(block)
        costs = np.array([block.value(mask) for mask in masks])
        covered = np.zeros(len(masks), int)
        leaves, fixings = leaf_fixings(proof, block.n)
        assert sorted([*leaves, *np.flatnonzero(proof.entry >= 0)]) == list(range(len(proof.entry)))
        for leaf, fixed in zip(leaves, fixings, strict=True):
            inside = ~(masks & (fixed > 0)).any(axis=1) & ~(~masks & (fixed < 0)).any(axis=1)
            covered += inside
            assert proof.claim[leaf] <= costs[inside].min(initial=np.inf) * (1 + 1e-12)
        assert (covered == 1).all()
        assert bound * (1 - 1e-5) <= proof.bound <= costs.min()
        if nodes is None:
            assert proof.bound >= costs.min() * (1 - 1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"gradient": True}, {"movable": [1, 5]}, {"kind": "factor"}, {"kind": "stacked"}], ids=str
)
@pytest.mark.parametrize("budget", [Budget.per_row([5, 7]), Budget.n_of_m(2, 4)], ids=["rows", "pools"])
def test_solved_with_a_certificate_every_row_is_proven_by_groups(tmp_path, options, budget):
    n = 12 + len(options.get("movable", ())) * (budget.kind == "n_of_m")
    problem = make_problem(np.random.default_rng(4), budget, n=n, **options)
    found = solve(problem, SOLVER, certify=True)
    best = solve(problem, "brute-force").value
    verdict, proofs = verified(tmp_path, problem, found)
    assert found.status is Status.OPTIMAL
    assert len(proofs) == 2
    assert best - 2e-4 * abs(best) <= found.certificate.bound <= best + 1e-12 * abs(best)
    assert verdict.gap <= 2e-4


def test_a_row_that_fits_into_one_group_is_proven_too(tmp_path):
    problem = make_problem(np.random.default_rng(0), Budget.per_row([4, 2]), n=7)
    found = solve(problem, SOLVER, certify=True)
    verified(tmp_path, problem, found)
    best = solve(problem, "brute-force").value
    assert best * (1 - 2e-4) <= found.certificate.bound <= best * (1 + 1e-12)


def test_branchings_have_splits_of_several_groups_and_unused_ones_are_left_out(tmp_path):
    problem = hard(prune=14)
    tree = planted(problem)
    while not tree.work():
        pass
    proof = tree.last_proof()
    sizes = [[family.members.shape for family in families] for families in families_of(proof)]
    later = [each for root, each in zip(proof.roots, sizes, strict=True) if root.any()]
    assert any((2, 8) in each for each in later)
    assert any(sum(count for count, size in each if size > 1) > 1 for each in later)
    assert tree.nodes > 5
    leaves = proof.entry < 0
    assert np.unique(proof.vector[leaves]).tolist() == list(range(len(proof.u)))
    assert set(proof.owner.tolist()) >= set(range(1, len(proof.splits)))
    found = solve(problem, SOLVER, certify=True)
    verdict, _ = verified(tmp_path, problem, found)
    assert verdict.gap <= 1.1e-4
    assert verdict.bound == pytest.approx(solve(problem, BranchAndBound()).value, rel=2e-4)


def test_a_row_of_the_digits_is_proven(tmp_path):
    problem = digits_rows(1, 40, 30)
    found = solve(problem, SOLVER, certify=True)
    verdict, _ = verified(tmp_path, problem, found)
    assert found.status is Status.OPTIMAL
    assert verdict.gap <= 1.1e-4
    assert found.value == pytest.approx(solve(problem, BranchAndBound()).value, rel=2e-4)


@pytest.mark.parametrize("limit", [0, 1, 4])
def test_stopped_early_it_certifies_the_least_bound_and_goes_on_from_its_file(tmp_path, limit):
    problem, path = hard(rows=2), tmp_path / "search.ckpt"
    first = solve(problem, BranchAndBound(grouped=4, node_limit=limit), certify=True, checkpoint=path)
    assert first.status is Status.NODE_LIMIT
    early, _ = verified(tmp_path, problem, first)
    assert early.bound >= first.bound * (1 - 1e-5)
    second = solve(problem, SOLVER, certify=True, checkpoint=path)
    assert second.stats["resumed"]
    assert second.status is Status.OPTIMAL
    late, _ = verified(tmp_path, problem, second)
    assert early.gap > 1e-2
    assert late.gap <= 1.1e-4
    assert late.bound > early.bound


def test_it_goes_on_from_its_arrays_to_the_same_proof_here_and_on_a_worker():
    whole, half = planted(hard()), planted(hard())
    with one_thread_each():  # as workers do: sums in other parts round otherwise
        for _ in range(3):
            half.work()
        item = (GroupTree, half.block, RECORD, half.arrays(), 6, None)
        again = GroupTree(half.block, RECORD).restore(_grown(item))
        assert again.nodes == 6
        while not (again.work() and whole.work()):
            pass
    assert again.bytes == whole.bytes
    one, other = whole.last_proof(), again.last_proof()
    for name in ("d", "roots", "entry", "pruned", "kept", "vector", "owner", "u", "claim"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert np.array_equal(one.blocks.cross, other.blocks.cross)
    assert np.array_equal(one.blocks.price, other.blocks.price)


def test_halted_within_a_node_its_proof_is_as_good_as_its_bound_and_goes_on(monkeypatch):
    def halting(*given):
        found = relax(*given)
        tree.halt[0] = True
        return found

    tree = planted(hard())
    for _ in range(2):
        tree.work()
    monkeypatch.setattr(group_tree, "relax", halting)
    assert not tree.work()
    monkeypatch.undo()
    tree.halt[0] = False
    half = GroupTree(tree.block, RECORD).restore(tree.arrays())
    assert half.bound * (1 - 1e-5) <= half.last_proof().bound <= tree.value
    while not tree.work():
        pass
    assert tree.last_proof().bound == pytest.approx(tree.value, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("proof tree", lambda a: a[:, :3]), ("proof tree", lambda a: a + 100),
        ("proof tree", lambda a: a[:0]), ("proof root", lambda a: a[:, 1:]), ("proof root", lambda a: a[1:]),
        ("proof root", np.zeros_like),
        ("proof family", lambda a: a[1:]), ("proof members", lambda a: a[1:]),
        ("proof members", lambda a: a + 1), ("proof block", lambda a: a[1:]),
        ("proof split", lambda a: a + 100), ("proof residual", lambda a: a[1:]),
        ("proof price", lambda a: a[1:]), ("at", lambda a: a + 1000), ("at", np.zeros_like),
    ],
)  # fmt: skip
def test_arrays_of_another_proof_are_refused(name, change):
    tree = planted(hard())
    for _ in range(3):
        tree.work()
    arrays = tree.arrays()
    GroupTree(tree.block, RECORD).restore(arrays)
    arrays[name] = change(arrays[name])
    with pytest.raises(ValueError, match="its"):
        GroupTree(tree.block, RECORD).restore(arrays)


def test_without_room_for_its_record_it_waits_or_ends_and_proves_what_it_has():
    tree = planted(hard(), Settings(record=True, share=True, memory=60_000))
    while not (tree.work() or tree.hungry):
        pass
    assert tree.hungry
    assert not tree.full
    assert tree.bytes > 60_000
    before = tree.nodes
    tree.feed(120_000)
    while not (tree.work() or tree.hungry):
        pass
    assert tree.hungry
    assert tree.nodes > before
    tree.feed(121_000)
    while not (tree.work() or tree.full):
        pass
    assert tree.full
    assert not tree.hungry
    bound = tree.bound
    assert bound * (1 - 1e-5) <= tree.last_proof().bound <= tree.value
    assert tree.bytes < 60_000


def test_with_no_memory_to_spare_the_solution_says_so(tmp_path):
    problem = hard(rows=2)
    found = solve(problem, BranchAndBound(grouped=4, memory_limit=100_000), certify=True)
    assert found.status is Status.MEMORY_LIMIT
    verdict, _ = verified(tmp_path, problem, found)
    assert found.bound * (1 - 1e-5) <= verdict.bound <= found.value


def pools_of_few_samples(n=24):
    """Two rows of few samples under a budget of 2:4, whose trees have several nodes."""
    rng = np.random.default_rng(2)
    X = rng.standard_normal((n // 2, n))
    H = X.T @ X / len(X) + 1e-2 * np.eye(n)
    return SubsetProblem(rng.standard_normal((2, n)), H, Budget.n_of_m(2, 4))


def test_rows_of_pools_are_proven_by_their_budgets_sets_and_go_on_from_their_file(tmp_path):
    problem, path = pools_of_few_samples(), tmp_path / "search.ckpt"
    first = solve(problem, BranchAndBound(grouped=4, node_limit=4), certify=True, checkpoint=path)
    early, _ = verified(tmp_path, problem, first)
    second = solve(problem, SOLVER, certify=True, checkpoint=path)
    late, proofs = verified(tmp_path, problem, second)
    assert second.stats["resumed"]
    assert second.stats["nodes"] > 10
    assert early.gap > late.gap
    assert late.gap <= 1.1e-4
    whole = [family.members for families in families_of(proofs[0]) for family in families]
    assert any(len(np.unique(group // 4)) > 1 for members in whole for group in members)
    assert late.bound == pytest.approx(solve(problem, BranchAndBound()).value, rel=2e-4)


@pytest.mark.parametrize("damping", [1e-6, 1e-9])
def test_pools_of_copies_and_of_a_curvature_close_to_singular(tmp_path, damping):
    rng = np.random.default_rng(5)
    X, w = rng.standard_normal((6, 8)), rng.standard_normal(8)
    H = np.tile(X.T @ X / 6, (2, 2)) + damping * np.eye(16)
    problem = SubsetProblem(np.stack([np.concatenate([w, w]), np.zeros(16)]), H, Budget.n_of_m(1, 4))
    found = solve(problem, SOLVER, certify=True)
    found.certificate.save(tmp_path / "c")
    save(tmp_path / "p.npz", problem)
    verdict = checker.verify(tmp_path / "c", tmp_path / "p.npz")
    best = solve(problem, "brute-force").value
    assert found.value <= best * (1 + 1e-4)
    assert best * (1 - 2e-4) - 1e-9 <= verdict.bound <= best * (1 + 1e-9)


def test_copies_of_inputs_are_all_in_the_proof(tmp_path):
    rng = np.random.default_rng(5)
    X, w = rng.standard_normal((6, 10)), rng.standard_normal(10)
    H = np.tile(X.T @ X / 6, (2, 2)) + 0.02 * np.eye(20)
    problem = SubsetProblem(np.concatenate([w, w])[None], H, Budget.per_row(13))
    found = solve(problem, SOLVER, certify=True)
    verdict, _ = verified(tmp_path, problem, found)
    assert found.stats["nodes"] > 3
    assert verdict.bound == pytest.approx(solve(problem, BranchAndBound()).value, rel=2e-4)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("claim", lambda a: a + 0.1, "claims"),
        ("cross", lambda a: 3.0 * a, "definite"),
        ("entry", lambda a: np.roll(a, 1), "node"),
        ("vector", lambda a: np.where(a >= 0, a[::-1].max(), a), "lacks fixings"),
        ("bound", lambda a: a * 1.01, "bound claimed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("make", [hard, pools_of_few_samples], ids=["rows", "pools"])
def test_a_proof_of_a_search_that_is_tampered_with_is_refused(tmp_path, make, name, change, words):
    problem = make()
    verified(tmp_path, problem, solve(problem, SOLVER, certify=True))
    with np.load(tmp_path / "c") as archive:
        fields = {key: archive[key] for key in archive.files}
    fields[name] = np.asarray(change(fields[name]), fields[name].dtype)
    with open(tmp_path / "forged", "wb") as file:
        np.savez(file, **fields)
    with pytest.raises(Refuted, match=words):
        checker.verify(tmp_path / "forged", tmp_path / "p.npz")
