from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Budget, SubsetProblem, checker
from solvers.bounds.groups.central_path import group_split
from solvers.bounds.groups.split import group_bound
from solvers.bounds.split import split_blocks
from solvers.certificate import certify, group_proof
from solvers.certificate.certify import Witness
from solvers.certificate.groups import families_of
from solvers.certificate.original import stored
from solvers.certificate.points import SHARE, asked, completed, lift, secured
from solvers.checker import Refuted
from solvers.checker.claims import parse_certificate, read_digests
from solvers.checker.proofs import Prover
from solvers.form.blocks import blocks
from solvers.form.reduction import reduce
from solvers.instances import save
from tests.solvers.oracles import all_masks, gram, make_problem, optimum

ROOT = np.array([[0, 0, 0, 0, 0, 0], [1, -1, 0, 0, 1, 0]], np.int8)
FREE, KEPT, GONE = np.array([2, 3, 5]), np.array([0, 4]), np.array([1])


def schur(H):
    return H[np.ix_(FREE, FREE)] - H[np.ix_(FREE, KEPT)] @ np.linalg.solve(
        H[np.ix_(KEPT, KEPT)], H[np.ix_(KEPT, FREE)]
    )


def lowest(A):
    return float(np.linalg.eigvalsh(A)[0])


def test_a_split_of_the_schur_complement_becomes_one_of_the_kept_entries_too():
    H = gram(np.random.default_rng(0), 6)
    d = np.full((2, 1, 6), np.nan)
    d[0] = 0.999 * lowest(H)
    d[1, 0, FREE] = 0.999 * lowest(schur(H))
    assert d[1, 0, 2] > 1.01 * d[0, 0, 0]
    lifted = lift(d, ROOT)
    assert (lifted[0] == d[0]).all()
    assert np.allclose(lifted[1, 0, FREE], d[1, 0, FREE], rtol=2 * SHARE, atol=0.0)
    assert (lifted[1] > 0).all()
    safe = secured(H[None], lifted, ROOT, True)
    alive = np.flatnonzero(asked(ROOT[1], True))
    assert alive.tolist() == sorted([*FREE, *KEPT])
    assert lowest(H[np.ix_(alive, alive)] - np.diag(safe[1, 0, alive])) > 0
    assert np.allclose(safe, lifted, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("refit", [True, False])
def test_a_split_too_large_is_shrunk_where_it_counts(refit):
    H = gram(np.random.default_rng(1), 6)
    alive = np.flatnonzero(asked(ROOT[1], refit))
    d = np.full((2, 1, 6), 0.5 * lowest(H))
    d[1, 0, alive] = lowest(H[np.ix_(alive, alive)]) * (1.0 + 1e-13)
    safe = secured(H[None], d, ROOT, refit)
    others = np.setdiff1d(np.arange(6), alive)
    assert (safe[1, 0, others] == d[1, 0, others]).all()
    assert (safe[1, 0, alive] < d[1, 0, alive]).all()
    slack = np.full((1, 6, 6), 1e-3)
    wider = secured(H[None], d, ROOT, refit, slack)
    assert lowest(H[np.ix_(alive, alive)] - np.diag(wider[1, 0, alive])) > 1e-3 * len(alive)


def test_points_are_completed_to_where_scores_of_kept_entries_vanish():
    rng = np.random.default_rng(2)
    H, B = gram(rng, 6)[None], rng.standard_normal((1, 6, 2))
    u = rng.standard_normal((3, 1, 6, 2))
    owner = np.array([1, 0, 1], np.int32)
    out = completed(H, B, ROOT, owner, u)
    assert (out[1] == u[1]).all()
    for v in (0, 2):
        assert (out[v, 0, FREE] == u[v, 0, FREE]).all()
        assert (out[v, 0, GONE] == 0).all()
        assert np.allclose((H[0] @ out[v, 0])[KEPT], B[0][KEPT], rtol=0.0, atol=1e-12)


BUDGETS = {
    "per_row": Budget.per_row(4),
    "n_of_m": Budget.n_of_m(2, 4),
    "parts": Budget.n_of_m(2, 5),
    "per_layer": Budget.per_layer(7),
}
NEW = ("pairs", "pair", "cross", "price")


def least(block):
    """The least cost of a block's decisions."""
    codes = (np.arange(2**block.n)[:, None] >> np.arange(block.n)) & 1 > 0
    pools = np.arange(len(block.keep))[:, None] == block.labels
    fitting = codes[(codes @ pools.T.astype(int) == block.prune).all(axis=1)]
    return min(block.value(pruned) for pruned in fitting)


def group_proofs(problem, size=4, counts=None):
    found = blocks(reduce(problem).problem, counts)
    splits = split_blocks(found)
    pairs = []
    for block, split in zip(found, splits, strict=True):
        safe, bound = group_split(block, split.d[0], split.z, least(block), size=size)
        pairs.append((group_proof(block, split.d, safe), bound))
    return pairs


class Files:
    def __init__(self, folder, budget="per_row", seed=0, size=4, m=2, n=8, kind="shared", **other):
        self.certificate, self.instance = folder / "layer.cert", folder / "layer.npz"
        self.problem = make_problem(
            np.random.default_rng(seed), BUDGETS[budget], m=m, n=n, kind=kind, **other
        )
        counts = np.full(m, 4) if budget == "per_layer" else None
        self.blocks = blocks(reduce(self.problem).problem, counts)
        self.pairs = group_proofs(self.problem, size, counts)
        mask = next(all_masks(self.problem))
        self.written = certify(self.problem, mask, [proof for proof, _ in self.pairs])
        self.written.save(self.certificate)
        save(self.instance, self.problem)
        with np.load(self.certificate) as archive:
            self.fields = {name: archive[name] for name in archive.files}

    def write(self):
        with open(self.certificate, "wb") as file:
            np.savez(file, **self.fields)

    def verify(self):
        return checker.verify(self.certificate, self.instance)

    def refuted(self, words):
        self.write()
        with pytest.raises(Refuted, match=words) as caught:
            self.verify()
        assert "\n" not in str(caught.value)


@pytest.fixture
def files(tmp_path):
    found = Files(tmp_path)
    found.verify()
    return found


@pytest.mark.parametrize("budget", ["per_row", "n_of_m"])
@pytest.mark.parametrize("kind", ["shared", "stacked", "factor"])
@pytest.mark.parametrize("other", [{}, {"n": 9, "gradient": True, "movable": (2,)}], ids=["plain", "reduced"])
def test_certificates_of_blocks_hold(tmp_path, budget, kind, other):
    files = Files(tmp_path, budget, seed=1, kind=kind, **other)
    verdict = files.verify()
    offset, scale = reduce(files.problem).offset, files.problem.scale
    assert verdict.bound == files.written.bound
    assert verdict.bound <= sum(map(least, files.blocks)) + offset + 1e-12 * scale
    found = sum(bound for _, bound in files.pairs) + offset
    assert verdict.bound == pytest.approx(found, abs=1e-7 * scale)
    if kind == "shared":
        assert verdict.bound > certify(files.problem, next(all_masks(files.problem))).bound


@pytest.mark.parametrize("size", [2, 4, 8])
def test_a_proof_has_the_split_that_it_was_made_of(size):
    problem = make_problem(np.random.default_rng(2), Budget.per_row(4), m=1, n=9)
    (block,) = blocks(problem)
    (split,) = split_blocks([block])
    safe, bound = group_split(block, split.d[0], split.z, optimum(problem), size=size)
    proof = group_proof(block, split.d, safe)
    (families,) = families_of(proof)
    again = replace(safe, families=tuple(families))
    assert (again.remainder(block.H[0]) == safe.remainder(block.H[0])).all()
    assert sorted(len(x) for f in again.families for x in f.members) == sorted(
        len(x) for f in safe.families for x in f.members
    )
    assert bound - 1e-6 * block.constant <= proof.bound <= group_bound(block, safe) + 1e-6 * block.constant


def test_a_diagonal_split_is_no_split_in_blocks():
    problem = make_problem(np.random.default_rng(2), Budget.per_row(4), m=1, n=8)
    (block,) = blocks(problem)
    (split,) = split_blocks([block])
    safe, _ = group_split(block, split.d[0], split.z, 0.2 * block.constant, size=1)
    with pytest.raises(ValueError, match="use root_proof"):
        group_proof(block, split.d, safe)


def test_prices_bound_every_count(tmp_path):
    files = Files(tmp_path, "per_layer", seed=3)
    assert files.verify().bound == files.written.bound > 0.0
    for r, (proof, _) in enumerate(files.pairs):
        witness = Witness(stored(files.problem))
        assert witness.take(proof)
        low = witness.prover._curve[0, r]
        best = [least(blocks(files.problem, np.full(2, k))[r]) for k in range(9)]
        assert (low <= np.array(best) * (1 + 1e-12)).all()
        assert low[4] == pytest.approx(proof.bound, rel=1e-9)
        assert low[4] > 0.5 * best[4]
        assert low[5] > low[4]


def test_a_checked_split_in_blocks_leaves_a_diagonal_one(files):
    """What bounds the rest of a refined move: below D, and so below H."""
    archive, _ = read_digests(files.certificate)
    this = stored(files.problem)
    prover = Prover([this])
    for proof in parse_certificate(archive, [this]).proofs:
        prover.check(proof)
    for d in prover.splits(0):
        low = np.linalg.eigvalsh(files.problem.hessian.dense(0) - np.diag(d))[0]
        assert (d > 0).all()
        assert low > 0.0


def test_an_entry_off_the_diagonal(files):
    for factor in (1.5, -1.0):
        before = files.fields["cross"].copy()
        files.fields["cross"][:] *= factor
        files.refuted("row 0 of problem 0 (has a block that is not positive|leaves a remainder|claims)")
        files.fields["cross"] = before
    files.fields["cross"][0] = np.nan
    files.refuted("holds a number that is not finite")


def test_the_diagonal(files):
    before = files.fields["d"].copy()
    files.fields["d"] = 1.05 * before
    files.refuted("the split of row 0 of problem 0 leaves a remainder not shown to be positive semidefinite")
    files.fields["d"] = 0.5 * before
    files.refuted("row 0 of problem 0 (has a block that is not positive|claims)")
    files.fields["d"] = before
    files.fields["d"][3] = -1.0
    files.refuted("has a block that is not positive definite")


def test_prices(files):
    before = files.fields["price"].copy()
    for change in (1.03, 0.97):
        files.fields["price"] = change * before
        files.refuted("leaf at node 0 of row . of problem 0 claims .*, but .* is proven")
    files.fields["price"] = np.full_like(before, np.nan)
    files.refuted("price that is not finite")


def test_the_point_and_the_claim(files):
    before = files.fields["u"].copy()
    files.fields["u"] = before * np.float32(1.3)
    files.refuted("leaf at node 0 of row . of problem 0 claims")
    files.fields["u"] = np.full_like(before, np.nan)
    files.refuted("claims .* but -inf is proven")
    files.fields["u"] = before
    files.fields["claim"][1] *= 1.0 + 1e-9
    files.refuted("leaf at node 0 of row 1 of problem 0 claims")


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ((0, 8), "out of place"),
        ((-1, 3), "out of place"),
        ((3, 3), "out of place"),
        ((5, 2), "out of place"),
    ],
)
def test_places_that_are_none(files, pair, words):
    files.fields["pair"][:2] = pair
    files.refuted(words)


def test_an_entry_given_twice(files):
    files.fields["pair"][2:4] = files.fields["pair"][:2]
    files.refuted("out of place")


def test_a_block_across_pools(tmp_path):
    files = Files(tmp_path, "parts", n=10)
    pairs = files.fields["pair"].reshape(-1, 2)
    pairs[0] = (0, 5)
    files.fields["pair"] = pairs.ravel()
    files.refuted("the split of row 0 of problem 0 has a block across pools")


@pytest.mark.parametrize("size", [4, 8])
def test_whole_pools_stand_beside_a_diagonal_split_and_prove_more_than_their_parts(tmp_path, size):
    files = Files(tmp_path, "n_of_m", seed=3, size=size)
    assert files.fields["splits"].tolist() == [2, 2]
    assert files.fields["crossing"].tolist() == [0, 4 * (size - 1)] * 2
    assert not files.fields["root"].any()
    assert files.verify().bound == files.written.bound
    in_pairs = certify(
        files.problem, next(all_masks(files.problem)), [proof for proof, _ in group_proofs(files.problem, 2)]
    )
    most = sum(map(least, files.blocks))
    assert in_pairs.bound < files.written.bound - 0.01 * most
    assert files.written.bound <= most


def first_split_alone(folder, problem, split):
    """A certificate as older files have it: one split, of blocks within pools."""
    (block,) = blocks(problem)
    families = tuple(replace(family, pattern=()) for family in split.families)
    some = [replace(split, families=families, t=np.full(2, t)) for t in np.linspace(0.0, 2.0, 21)]
    best = max(some, key=lambda each: group_bound(block, each))
    written = certify(
        problem, next(all_masks(problem)), [group_proof(block, split_blocks([block])[0].d, best)]
    )
    written.save(folder / "c")
    save(folder / "p.npz", problem)
    return written


def test_a_first_split_counts_all_sets_of_its_blocks_whatever_the_budget(tmp_path):
    problem = make_problem(np.random.default_rng(3), Budget.n_of_m(2, 4), m=1, n=8)
    (block,) = blocks(problem)
    (split,) = split_blocks([block])
    whole, bound = group_split(block, split.d[0], split.z, least(block), size=4)
    assert all((np.linalg.eigvalsh(family.D) > 0.0).all() for family in whole.families)
    written = first_split_alone(tmp_path, problem, whole)
    verdict = checker.verify(tmp_path / "c", tmp_path / "p.npz")
    assert len(written.parts[0].proofs[0].splits) == 1
    assert 0.1 * bound < verdict.bound < 0.99 * bound


def test_a_first_split_that_is_definite_on_the_budgets_sets_alone_is_refused(tmp_path):
    files = Files(tmp_path, "n_of_m", seed=4, m=1)
    last = list(families_of(files.pairs[0][0]))[1]
    assert any((np.linalg.eigvalsh(family.D) < 0.0).any() for family in last)
    del files.fields["crossing"]
    files.fields |= {"splits": np.array([1]), "split": np.array([0])}
    files.fields |= {name: files.fields[name][8:] for name in ("d", "root")}
    files.refuted("the split of row 0 of problem 0 has a block that is not positive definite")


def test_a_block_too_large(tmp_path):
    files = Files(tmp_path, n=12)
    E = int(files.fields["pairs"][0])
    links = np.array([(k, k + 1) for k in range(11)])[:E]
    assert len(links) >= 9
    pairs = files.fields["pair"].reshape(-1, 2)
    rest = [(0, 2 + k) for k in range(E - len(links))]
    pairs[:E] = np.array([*links.tolist(), *rest])
    files.fields["pair"] = pairs.ravel()
    files.refuted("has a block of 1[0-9] entries, more than 8")


def test_blocks_in_a_tree(files):
    """A tree, fixings or a split that are not there are refused of a proof with blocks as of any other."""
    files.fields["vector"][0] = -1
    files.refuted("leaf at node 0 of row 0 of problem 0 says that it has no masks, but it has")
    files.fields["vector"][0] = 0
    files.fields["root"][2] = 1
    files.refuted("the first split of row 0 of problem 0 assumes fixings")
    files.fields["root"][2] = 0
    files.fields["split"][0] = 1
    files.refuted("a vector of row 0 of problem 0 has a split that is not there")
    files.fields["split"][0] = 0
    files.fields["entry"][0] = 0
    files.refuted("the tree of row 0 of problem 0 does not cover every mask")


def test_blocks_of_a_selection(tmp_path, files):
    problem = SubsetProblem(files.problem.W, files.problem.hessian, files.problem.budget, refit=False)
    mask = next(all_masks(problem))
    certify(problem, mask).save(files.certificate)
    save(files.instance, problem)
    with np.load(files.certificate) as archive:
        files.fields = {name: archive[name] for name in archive.files}
    E = 1
    files.fields |= {
        "pairs": np.array([E, 0]), "pair": np.array([0, 1]), "cross": np.zeros(1), "price": np.zeros(1)
    }  # fmt: skip
    files.refuted("has blocks, but is not of a lone joint row")


@pytest.mark.parametrize("name", NEW)
def test_lengths_that_do_not_fit(files, name):
    files.fields[name] = files.fields[name][:-1]
    files.write()
    with pytest.raises(ValueError, match=f"field '{name}' has"):
        files.verify()


def test_negative_counts(files):
    files.fields["pairs"][0] = -1
    files.write()
    with pytest.raises(ValueError, match="negative number"):
        files.verify()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, 10**6))
def test_whatever_is_tampered_with_a_verified_bound_is_a_bound(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    files = Files(tmp_path_factory.mktemp("any"), m=1, n=6, seed=seed % 5, size=2 + 2 * (seed % 2))
    best = min(Fraction(files.problem.value(mask)) for mask in all_masks(files.problem))
    names = ["d", "u", "claim", "bound", "pair", "cross", "price", "pairs"]
    for _ in range(2):
        name = names[rng.integers(len(names))]
        flat = files.fields[name].reshape(-1)
        i = rng.integers(len(flat))
        if flat.dtype.kind == "f":
            flat[i] *= 1.0 + 10.0 ** rng.uniform(-12, 0)
        else:
            flat[i] += rng.integers(-1, 2)
        files.fields[name] = flat.reshape(files.fields[name].shape)
    files.write()
    try:
        verdict = files.verify()
    except (Refuted, ValueError):
        return
    assert verdict.bound <= best * (1 + Fraction(1, 10**12))
