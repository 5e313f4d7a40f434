"""Trees in a file, and searches that are killed and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from solvers import Budget, Status, solve
from solvers.auto import Auto
from solvers.bounds.split import split_blocks
from solvers.control import Control
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.exact.tree.block_tree import BlockTree, Settings
from solvers.form.blocks import blocks
from solvers.instances import save
from solvers.runtime.checkpoint import Checkpoint, Keeper, pack, unpack
from tests.solvers.oracles import BUDGETS, make_problem

CASES = {
    "joint": (Budget.per_row(10), {"n": 18}),
    "selection": (Budget.per_row(8), {"n": 15, "refit": False}),
    "pools": (Budget.n_of_m(2, 4), {"n": 16}),
    "columns": (Budget.columns(9), {"m": 3, "n": 16}),
    "columns, own curvatures": (Budget.columns(8), {"m": 3, "n": 14, "kind": "stacked"}),
}


def planted(case, seed, **options):
    budget, how = CASES[case]
    block = blocks(make_problem(np.random.default_rng(seed), budget, **{"m": 1, **how}))[0]
    (split,) = split_blocks([block])
    pruned = np.zeros(block.n, dtype=bool)
    for p, count in enumerate(block.prune):
        pruned[np.flatnonzero(block.labels == p)[:count]] = True
    return BlockTree(block, Settings(**options)).plant(split, pruned, block.value(pruned), 1e-6)


def through_a_file(trees, folder, **options):
    """The same trees, written and read."""
    file = Checkpoint(folder / "search", {})
    file.save(pack("tree", [tree.arrays() for tree in trees]))
    pairs = zip(trees, unpack("tree", file.load()), strict=True)
    return [BlockTree(tree.block, Settings(**options)).restore(arrays) for tree, arrays in pairs]


def facts(tree):
    return tree.nodes, tree.value, tree.bound, tree.splits, tree.pruned.tolist(), tree.done


@pytest.mark.parametrize("record", [False, True], ids=["plain", "recorded"])
@pytest.mark.parametrize("case", CASES)
def test_trees_go_on_as_if_nothing_had_been(case, record, tmp_path):
    whole = [planted(case, seed, record=record) for seed in range(3)]
    trees = [planted(case, seed, record=record) for seed in range(3)]
    for rounds in range(2000):
        for slices, tree in enumerate(trees):
            tree.work(4 + slices)
        before = [facts(tree) for tree in trees]
        if rounds % 3 == 0:
            trees = through_a_file(trees, tmp_path, record=record)
            assert [facts(tree) for tree in trees] == before
        if all(tree.done for tree in trees):
            break
    for tree, other in zip(trees, whole, strict=True):
        assert other.work(100_000)
        assert facts(tree) == facts(other)
        if record:
            ours, theirs = tree.proof(), other.proof()
            np.testing.assert_array_equal(ours.entry, theirs.entry)
            np.testing.assert_array_equal(ours.claim, theirs.claim)
    assert rounds > 2


def test_a_depth_first_search_goes_on(tmp_path):
    tree = planted("joint", 1, depth=-1, probe=0)
    other = planted("joint", 1, depth=-1, probe=0)
    tree.storage.memory, tree.state.free = 0, 26
    while tree.state.stack < 4:
        assert not tree.work(1)
    (again,) = through_a_file([tree], tmp_path, probe=0)
    stacks = [t.store.fixes[t.store.heap[len(t.store.heap) - t.state.stack :]] for t in (tree, again)]
    assert len(stacks[0]) >= 4
    np.testing.assert_array_equal(*stacks)
    assert facts(again) == facts(tree)
    for one in (tree, again, other):
        assert one.work(100_000)
    assert again.value == tree.value == pytest.approx(other.value, rel=1e-6)
    assert again.bound == pytest.approx(other.bound, rel=2e-6)


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    tree = planted("joint", 0)
    tree.work(20)
    assert len(tree.store.heap) > 0
    good = tree.arrays()

    def read(arrays, block=tree.block):
        return BlockTree(block).restore(arrays)

    def counts(**changed):
        def change(state):
            other = state.copy()
            for name, count in changed.items():
                other[name] = count
            return other

        return change

    assert facts(read(good)) == facts(tree)
    with pytest.raises(ValueError, match="shape"):
        read(good, planted("selection", 0).block)
    places = len(tree.store.heap)
    for name, change in [
        ("fixes", lambda a: a[:-1]),
        ("lower", lambda a: np.append(a, 0.0)),
        ("owner", lambda a: a + 1000),
        ("sides", lambda a: a - 1000),
        ("heap", lambda a: a - 1),
        ("spare", lambda a: a + places),
        ("d", lambda a: a[:, :, :-1]),
        ("roots", lambda a: a.astype(float)),
        ("incumbent", lambda a: a[:-1]),
        ("state", counts(heap=-1)),
        ("state", counts(free=places + 1)),
        ("state", counts(current=places)),
        ("state", counts(splits=0)),
        ("state", counts(tree=1)),
        ("log place", lambda a: np.zeros(places, np.int32)),
    ]:
        with pytest.raises(ValueError, match=r"shape|length|out of range|nowhere"):
            read({**good, name: change(good[name])})
        with pytest.raises(KeyError):
            read({key: array for key, array in good.items() if key != name})


def test_a_file_of_other_trees_is_damaged(tmp_path):
    problem = make_problem(np.random.default_rng(0), Budget.per_row(3), m=2)
    file = Checkpoint(tmp_path / "search", {})
    for count in (1, 3):
        file.save(pack("tree", [planted("joint", 0).arrays()] * count))
        with pytest.raises(ValueError, match=r"is damaged \(.*\); delete it"):
            BranchAndBound().run(problem, Control(checkpoint=file))
    file.save([("nothing", [np.zeros(1)])])
    with pytest.raises(ValueError, match="is damaged"):
        BranchAndBound().run(problem, Control(checkpoint=file))


def test_a_full_disk_does_not_end_a_search(tmp_path, caplog):
    tree = planted("joint", 0)
    (tmp_path / "folder").mkdir()
    keeper = Keeper(Checkpoint(tmp_path / "folder" / "search", {}), lambda: pack("tree", [tree.arrays()]))
    (tmp_path / "folder" / "search").unlink()
    (tmp_path / "folder").rmdir()
    keeper.save()
    keeper.save()
    assert [record.getMessage() for record in caplog.records] == [
        f"checkpoint {keeper.checkpoint.path} can't be written now: No such file or directory"
    ]
    assert keeper.stats == {"checkpoints": 1, "checkpoint_error": "No such file or directory"}
    (tmp_path / "folder").mkdir()
    keeper.save()
    assert keeper.stats == {"checkpoints": 2}
    assert (tmp_path / "folder" / "search").exists()
    assert Keeper(None, keeper.state).stats == {}


@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
@pytest.mark.parametrize("budget", [name for name in BUDGETS if name != "per_layer"])
def test_solve_goes_on_from_where_a_limit_stopped_it(budget, refit, tmp_path):
    problem = make_problem(np.random.default_rng(1), BUDGETS[budget], n=9, refit=refit)
    whole = solve(problem, "branch-and-bound", gap=1e-6)
    path = tmp_path / "search"
    first = solve(problem, BranchAndBound(node_limit=0), gap=1e-6, checkpoint=path)
    second = solve(problem, "branch-and-bound", gap=1e-6, checkpoint=path)
    third = solve(problem, "branch-and-bound", gap=1e-6, checkpoint=path)
    assert first.stats["resumed"] is False
    assert second.stats["resumed"] is third.stats["resumed"] is True
    for found in (second, third):
        assert (found.value, found.bound, found.status) == (whole.value, whole.bound, whole.status)
        np.testing.assert_array_equal(found.mask, whole.mask)
        assert found.stats["nodes"] == whole.stats["nodes"]
    assert first.status is Status.NODE_LIMIT or whole.stats["nodes"] == 0
    assert first.bound <= whole.bound


def test_a_certificate_goes_on_too(tmp_path):
    problem = make_problem(np.random.default_rng(1), Budget.per_row(9), n=16, gradient=True)
    path = tmp_path / "search"
    solve(problem, BranchAndBound(node_limit=4), gap=1e-5, checkpoint=path, certify=True)
    found = solve(problem, "branch-and-bound", gap=1e-5, checkpoint=path, certify=True)
    whole = solve(problem, "branch-and-bound", gap=1e-5, certify=True)
    assert found.certificate.bound == whole.certificate.bound
    with pytest.raises(ValueError, match="belongs to another certify"):
        solve(problem, "branch-and-bound", gap=1e-5, checkpoint=path)


def test_whose_checkpoint_it_is(tmp_path):
    problem = make_problem(np.random.default_rng(1), Budget.per_row(3))
    path = tmp_path / "search"
    found = solve(problem, "auto", checkpoint=path)
    again = solve(problem, "branch-and-bound", checkpoint=path)
    assert again.stats["resumed"]
    assert (again.value, again.bound) == (found.value, found.bound)
    other = make_problem(np.random.default_rng(2), Budget.per_row(3))
    with pytest.raises(ValueError, match="belongs to another problem"):
        solve(other, checkpoint=path)
    with pytest.raises(ValueError, match="belongs to another gap"):
        solve(problem, gap=1e-3, checkpoint=path)
    with pytest.raises(ValueError, match="belongs to another solver"):
        solve(problem, BranchAndBound(probe=3), checkpoint=path)
    with pytest.raises(ValueError, match="'greedy' keeps no checkpoint, only auto, branch-and-bound"):
        solve(problem, "greedy", checkpoint=path)
    with pytest.raises(ValueError, match="'auto' grows no tree of 6 inputs that a checkpoint could keep"):
        solve(problem, Auto(exact_inputs=5), checkpoint=tmp_path / "wide")


def test_searches_are_written_now_and_then(tmp_path):
    problem = make_problem(np.random.default_rng(0), Budget.per_row(48), m=2, n=72)
    file = Checkpoint(tmp_path / "search", {}, every=0.0)
    found = BranchAndBound(node_limit=12_000).run(problem, Control(gap=0.0, checkpoint=file))
    assert found.reason is Status.NODE_LIMIT
    assert found.stats["checkpoints"] > 4
    again = BranchAndBound(node_limit=0).run(problem, Control(gap=0.0, checkpoint=file))
    assert again.bound >= found.bound
    assert problem.value(again.mask) <= problem.value(found.mask)
    assert again.stats["nodes"] >= found.stats["nodes"]


SCRIPT = """
import json, sys
from solvers.control import Control
from solvers.exact.branch_and_bound import BranchAndBound
from solvers.instances import load
from solvers.runtime.checkpoint import Checkpoint
control = Control(checkpoint=Checkpoint(sys.argv[2], {}, every=0.1))
found = BranchAndBound().run(load(sys.argv[1]), control)
print(json.dumps([found.mask.tolist(), found.bound, found.stats["nodes"], found.stats["resumed"]]))
"""


def test_a_killed_search_goes_on_with_what_it_had(tmp_path):
    problem = make_problem(np.random.default_rng(0), Budget.per_row(26), m=2, n=36)
    save(tmp_path / "layer.npz", problem)
    path = tmp_path / "search"
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "layer.npz"), str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    nodes = 0
    while process.poll() is None and nodes < 40:
        time.sleep(0.02)
        if path.exists():
            with np.load(path) as file:
                nodes = int(file["tree state"]["nodes"].sum())
    assert process.poll() is None, "the search was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with np.load(path) as file:
        nodes = int(file["tree state"]["nodes"].sum())
        assert not (file["tree facts"].reshape(-1, 4)[:, 3] == 1).all()
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ).stdout
    mask, bound, total, resumed = json.loads(answer)
    assert resumed
    assert 40 <= nodes < total
    # uninterrupted in a process of its own too: linear algebra rounds otherwise on other numbers of threads
    command[-1] = str(tmp_path / "another search")
    whole = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ).stdout
    assert json.loads(whole) == [mask, bound, total, False]
