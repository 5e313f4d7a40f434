"""The checker refuses trees with splits in groups whatever a file says of them that is not so."""

import numpy as np
import pytest

from solvers import Budget, checker
from solvers.certificate import certify
from solvers.checker import Refuted
from solvers.form.blocks import blocks
from solvers.instances.files import save
from tests.solvers.grouped_trees import grow
from tests.solvers.oracles import all_masks, make_problem


@pytest.fixture(scope="module", params=["parts of pools", "whole pools"])
def written(tmp_path_factory, request):
    folder, whole = tmp_path_factory.mktemp("forest"), request.param == "whole pools"
    budget, n, size = (Budget.n_of_m(2, 4), 16, 8) if whole else (Budget.n_of_m(2, 5), 10, 4)
    problem = make_problem(np.random.default_rng(1), budget, m=1, n=n)
    proof = grow(blocks(problem)[0], 3, size).proof()
    certify(problem, next(all_masks(problem)), [proof]).save(folder / "c")
    save(folder / "p.npz", problem)
    with np.load(folder / "c") as archive:
        return folder, {name: archive[name] for name in archive.files}, n, whole


class Forged:
    def __init__(self, written):
        self.folder, fields, self.n, self.whole = written
        self.fields = {name: field.copy() for name, field in fields.items()}

    def verify(self):
        with open(self.folder / "forged", "wb") as file:
            np.savez(file, **self.fields)
        return checker.verify(self.folder / "forged", self.folder / "p.npz")

    def refuted(self, words, error=Refuted):
        with pytest.raises(error, match=words) as caught:
            self.verify()
        assert "\n" not in str(caught.value)


@pytest.fixture
def forged(written):
    found = Forged(written)
    found.verify()
    return found


@pytest.mark.parametrize(("name", "words"), [("d", "semidefinite"), ("cross", "definite")])
def test_a_larger_split_of_any_node(forged, name, words):
    forged.fields[name][-10:] *= 30.0
    forged.refuted(words)


def test_a_claim_that_is_too_high_names_its_node_and_by_how_much(forged):
    leaf = np.flatnonzero((forged.fields["entry"] < 0) & (forged.fields["vector"] >= 0))[-1]
    forged.fields["claim"][leaf] += 0.25
    forged.refuted(rf"leaf at node {leaf} of row 0 of problem 0 claims .* less\)")


@pytest.mark.parametrize("price", [np.nan, np.inf, -np.inf])
def test_prices_that_are_not_finite(forged, price):
    forged.fields["price"][-1] = price
    forged.refuted("price that is not finite")


def test_pools_that_are_whole_in_a_block_have_no_price(forged):
    """Those of others count."""
    pools = forged.n // (4 if forged.whole else 5)
    price = forged.fields["price"].reshape(-1, pools) + np.arange(1, pools + 1, dtype=np.float32)
    forged.fields["price"] = price.ravel()
    if forged.whole:
        assert forged.verify().bound == forged.fields["bound"]
    else:
        forged.refuted("is proven")


def test_a_block_that_lacks_an_entry_of_its_pools(forged):
    """What is left of it is no whole pool, so that all of its sets count; and it lies across pools."""
    if not forged.whole:
        pytest.skip("blocks are parts of pools")
    fields, ends = forged.fields, np.cumsum(forged.fields["crossing"])
    pairs, cross = fields["pair"].reshape(-1, 2), fields["cross"]
    lone = pairs[0, 0]
    rest = np.flatnonzero((pairs != lone).all(axis=1) | (np.arange(len(pairs)) >= ends[1]))
    fields["pair"], fields["cross"] = pairs[rest].ravel(), cross[rest]
    gone = len(pairs) - len(rest)
    fields["crossing"][1] -= gone
    fields["pairs"] = fields["pairs"] - gone
    forged.refuted("across pools .split 1.")


def test_pairs_out_of_place(forged):
    pairs = forged.fields["pair"].reshape(-1, 2)
    joined = "1296 states" if forged.whole else "across pools"
    far = next(k for k in range(5, forged.n) if [0, k] not in pairs.tolist())
    for wrong, words in (((3, 2), "out of place"), ((2, 200), "out of place"), ((0, far), joined)):
        pairs[0] = wrong
        forged.fields["pair"] = pairs.ravel()
        forged.refuted(words)


def test_pairs_of_a_split_that_assumes_them_fixed(forged):
    fields = forged.fields
    root = fields["root"].reshape(-1, forged.n)
    ends = np.cumsum(fields["crossing"])
    split = np.flatnonzero((root != 0).any(axis=1) & (fields["crossing"] > 0))[0]
    fixed = int(np.flatnonzero(root[split])[0])
    other = fixed + 1 if fixed % 4 < 3 else fixed - 1
    fields["pair"].reshape(-1, 2)[ends[split] - 1] = sorted((fixed, other))
    forged.refuted(f"assumes fixed .split {split}.")


@pytest.mark.parametrize("change", [1, -1, 1 << 40])
def test_entries_that_belong_to_no_split(forged, change):
    forged.fields["crossing"] = forged.fields["crossing"].astype(np.int64)
    forged.fields["crossing"][-1] += change
    forged.refuted("does not say which splits", ValueError)
    forged.fields["crossing"] = forged.fields["crossing"][:-1]
    forged.refuted("entries, not", ValueError)
    forged.fields["crossing"] = forged.fields["crossing"].astype(np.float64)
    forged.refuted("whole numbers", ValueError)


def test_entries_of_other_splits_than_their_own(forged):
    forged.fields["crossing"] = np.roll(forged.fields["crossing"], 1)
    forged.refuted("split of row 0")


def test_a_leaf_without_what_its_split_assumes(forged):
    forged.fields["split"][:] = forged.fields["split"].max()
    forged.refuted("lacks fixings that its split assumes")


def test_a_leaf_that_says_that_it_holds_no_masks(forged):
    leaf = np.flatnonzero((forged.fields["entry"] < 0) & (forged.fields["vector"] >= 0))[0]
    forged.fields["vector"][leaf] = -1
    forged.refuted("says that it has no masks, but it has")


def test_points_of_any_size_prove_no_more(forged):
    for u in (0.0, 1e30, np.nan):
        forged.fields["u"][:] = u
        forged.refuted("is proven")
