import numpy as np
import pytest

from solvers import Budget, Status, SubsetProblem, solve
from solvers.instances import random_problem
from solvers.peers.known import PEERS, Abess, OKRidge
from solvers.peers.peer import _with_count
from solvers.solve import get_solver
from tests.solvers.oracles import dense_value
from tests.solvers.peers import standins

GAP = 1e-4


@pytest.fixture(scope="module")
def behaviours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBS_PEERS", str(folder))
        yield {name: standins.make(folder, name) for name in ("abess", "okridge")}


@pytest.fixture
def behave(behaviours):
    yield lambda name, act: behaviours[name].write_text(act)
    for file in behaviours.values():
        file.write_text("")


BUDGETS = {
    "per_row": Budget.per_row([2, 0, 7]), "per_layer": Budget.per_layer(9), "all": Budget.per_row(8),
}  # fmt: skip


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("peer", [OKRidge(), Abess()], ids=lambda peer: peer.name)
def test_an_exact_peer_finds_the_optimum_and_its_claim_is_only_told(behaviours, peer, budget):
    problem = random_problem(*((2, 6) if budget == "per_layer" else (3, 8)), BUDGETS[budget], seed=2)
    best = solve(problem, "brute-force").value
    found = solve(problem, peer, gap=GAP)
    assert found.value == pytest.approx(best, rel=1e-9)
    assert found.bound == 0.0  # which nothing costs less than, whatever a peer says
    assert found.status is Status.FEASIBLE
    assert found.stats["peer"].startswith(peer.name)
    if peer.name == "okridge" or budget == "all":
        assert found.stats["claims_optimal"]
        assert found.stats["claimed_bound"] == pytest.approx(best, rel=GAP)
    else:
        assert found.stats["claimed_bound"] is None
        assert not found.stats["claims_optimal"]


def test_a_trusted_claim_is_a_bound_a_little_below(behaviours):
    problem = random_problem(2, 8, Budget.per_row(5), seed=3)
    best = solve(problem, "brute-force").value
    found = solve(problem, OKRidge(trust=True), gap=GAP)
    assert found.status is Status.OPTIMAL
    assert best * (1 - GAP) <= found.bound < best
    assert found.stats["trusted"]


def test_a_claim_above_the_value_of_a_mask_counts_for_nothing(behave):
    behave("okridge", "boast")
    found = solve(random_problem(1, 8, Budget.per_row(5), seed=3), OKRidge(trust=True))
    assert found.stats["refuted"] == 1
    assert found.bound == 0.0
    assert found.status is Status.MEMORY_LIMIT  # it did not end by itself, and there is no limit on its time


@pytest.mark.parametrize("act", ["more", "fewer"])
def test_a_support_of_another_size_is_completed_and_told(behave, act):
    behave("abess", act)
    problem = random_problem(1, 9, Budget.per_row(5), seed=4)
    found = solve(problem, "abess")
    assert int(found.mask.sum()) == 5
    assert found.stats["completed"] == 1
    assert found.value == pytest.approx(dense_value(problem, found.mask))
    assert found.value <= 1.5 * solve(problem, "brute-force").value


def test_completing_takes_the_least_loss_of_one_entry():
    problem = random_problem(1, 7, Budget.per_row(4), seed=5)
    H, w = problem.hessian.dense(0), problem.W[0]

    def cost(kept):
        return dense_value(SubsetProblem(problem.W, H, Budget.per_row(int((~kept).sum()))), ~kept[None])

    for start, sign in (([0, 2, 3, 5], -1), ([1, 6], 1)):
        kept = np.zeros(7, dtype=bool)
        kept[start] = True
        tried = []
        for i in np.flatnonzero(kept if sign < 0 else ~kept):
            other = kept.copy()
            other[i] = sign > 0
            tried.append(cost(other))
        assert cost(_with_count(problem, kept, 3)) == pytest.approx(min(tried), rel=1e-9)
    assert w.shape == (7,)


def test_a_time_limit_is_kept_from_outside_and_the_next_row_gets_a_new_process(behave):
    behave("abess", "sleep")
    problem = random_problem(2, 8, Budget.per_row(5), seed=3)
    found = solve(problem, "abess", time_limit=0.2)
    assert found.status is Status.TIME_LIMIT
    assert found.stats["killed"] >= 1
    assert found.stats["rows_answered"] == 0
    assert found.mask.sum(axis=1).tolist() == [5, 5]
    behave("abess", "")
    assert solve(problem, "abess").stats["rows_answered"] == 2


def test_a_callback_stops_it_between_rows(behaviours):
    problem = random_problem(4, 8, Budget.per_row(5), seed=3)
    seen = []
    found = solve(problem, "abess", callback=lambda step: seen.append(step) or True)
    assert found.status is Status.INTERRUPTED
    assert found.stats["rows_answered"] == 1
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("act", "told"),
    [("die", r"abess's process died \(status 9\)"), ("raise", "abess failed: RuntimeError: no luck at all")],
)
def test_a_peer_that_fails_is_an_error_in_one_line(behave, act, told):
    behave("abess", act)
    with pytest.raises(ChildProcessError, match=told):
        solve(random_problem(1, 8, Budget.per_row(5), seed=3), "abess")


def test_what_it_prints_is_not_taken_for_an_answer(behave):
    behave("abess", "print")
    problem = random_problem(1, 8, Budget.per_row(5), seed=3)
    assert solve(problem, "abess").value == pytest.approx(solve(problem, "brute-force").value)


def test_what_it_can_not_take_is_refused_in_one_line(behaviours, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="'okridge' does not do the selection variant, only joint"):
        solve(random_problem(1, 8, Budget.per_row(5), refit=False, seed=0), "okridge")
    with pytest.raises(ValueError, match="'abess' does not do the budget 'columns'"):
        solve(random_problem(2, 8, Budget.columns(5), seed=0), "abess")
    with pytest.raises(ValueError, match="2400 weights share one budget, more than 2000"):
        solve(random_problem(40, 60, Budget.per_layer(5), seed=0), "abess")
    monkeypatch.setenv("CBS_PEERS", str(tmp_path))
    with pytest.raises(ValueError, match="solver 'abess' needs abess: cbs peers install abess"):
        get_solver("abess")
    with pytest.raises(ValueError, match="it is not installed: cbs peers install abess"):
        solve(random_problem(1, 8, Budget.per_row(5), seed=0), Abess())


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_installed_peers_agree_with_ours(peer):
    if not peer.installed():
        pytest.skip(f"{peer.name}: {peer.install_hint()}")
    trusting = type(peer)(trust=True)
    for problem in (
        random_problem(2, 16, Budget.per_row(12), seed=0),
        random_problem(1, 12, Budget.per_row(6), seed=1),
        random_problem(2, 8, Budget.per_layer(7), seed=1),
    ):
        best = solve(problem, "branch-and-bound", gap=1e-9).value
        found = solve(problem, trusting, gap=GAP)
        assert found.value >= best * (1 - 1e-9)
        assert found.bound <= best
        if peer.name == "okridge":
            assert found.status is Status.OPTIMAL
        if peer.name != "abess":
            assert found.value <= best * (1 + 1e-3)
            assert found.bound >= 0.8 * best
