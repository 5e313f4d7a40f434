import ast
import itertools
import subprocess
import sys
import tempfile
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import solvers.checker
from solvers import Budget, SubsetProblem, checker
from solvers.bounds.split import split_blocks
from solvers.certificate import certify
from solvers.certificate.original import stored
from solvers.checker import Refuted
from solvers.checker.claims import parse_certificate, read_digests
from solvers.checker.proofs import Prover
from solvers.form.blocks import blocks
from solvers.instances import save
from tests.solvers.exactly import exact_optimum, exact_row_values
from tests.solvers.oracles import BUDGETS, all_masks, best_mask, gram, make_problem, optimum
from tests.solvers.proof_trees import branch, branch_and_split, chain, tree_proofs

FOLDER = Path(solvers.checker.__file__).parent


class Files:
    """A problem and a valid certificate with trees, on disk; fields can be changed."""

    def __init__(self, folder, budget="per_row", refit=True, depth=3, seed=0, m=2, n=6, grow=branch):
        self.certificate, self.instance = folder / "layer.cert", folder / "layer.npz"
        self.problem, *contents = self.made(budget, refit, depth, seed, m, n, grow)
        for path, content in zip((self.certificate, self.instance), contents, strict=True):
            path.write_bytes(content)
        self.fields = self.read(self.certificate)

    @staticmethod
    @cache
    def made(budget, refit, depth, seed, m, n, grow):
        """The problem, and what stands in both files: the same for all tests that ask for the same."""
        problem = make_problem(np.random.default_rng(seed), BUDGETS[budget], m=m, n=n, refit=refit)
        counts = np.full(m, 3) if budget == "per_layer" else None
        certificate = certify(problem, best_mask(problem), tree_proofs(problem, depth, counts, grow=grow))
        with tempfile.TemporaryDirectory() as folder:
            paths = Path(folder, "c"), Path(folder, "p.npz")
            certificate.save(paths[0])
            save(paths[1], problem)
            return problem, *(path.read_bytes() for path in paths)

    @staticmethod
    def read(path):
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}

    def change(self, name, index, value):
        self.fields[name][index] = value
        self.write()

    def write(self):
        with open(self.certificate, "wb") as file:
            np.savez(file, **self.fields)

    def verify(self):
        return checker.verify(self.certificate, self.instance)

    def refuted(self, words):
        with pytest.raises(Refuted, match=words) as caught:
            self.verify()
        assert "\n" not in str(caught.value)


@pytest.fixture(params=[("per_row", True), ("per_row", False), ("n_of_m", True), ("columns", True)])
def files(request, tmp_path):
    found = Files(tmp_path, *request.param)
    assert found.verify().gap < 0.9
    return found


def leaf(files, which=0):
    inner = files.fields["entry"] >= 0
    return np.flatnonzero(~inner & (files.fields["vector"] >= 0))[which]


def test_the_verdict_tells_what_was_checked(files):
    verdict = files.verify()
    exact, mask = exact_optimum(files.problem)
    assert verdict.bound <= exact <= verdict.high
    assert (files.fields["mask"] == mask.ravel()).all()
    assert verdict.low <= files.problem.value(mask) * (1 + 1e-12)
    assert verdict.leaves == (files.fields["entry"] < 0).sum()
    assert verdict.vectors == files.fields["vectors"].sum()
    assert verdict.gap == pytest.approx((verdict.high - verdict.bound) / verdict.high)
    assert verdict.proofs == len(files.fields["row"])


def test_another_mask_of_the_budget(files):
    masks = list(all_masks(files.problem))
    worst = max(masks, key=files.problem.value)
    files.fields["mask"] = worst.ravel()
    files.write()
    files.refuted("the value claimed of problem 0 is .*, but it lies between")


def test_a_mask_off_the_budget(files):
    kept = np.flatnonzero(~files.fields["mask"])[0]
    files.change("mask", kept, True)
    files.refuted("the mask of problem 0 (prunes|has rows that differ)")


def test_the_value(files):
    files.change("value", 0, files.fields["value"][0] * (1 - 1e-7))
    files.refuted("the value claimed of problem 0")


def test_the_bound(files):
    files.change("bound", (), np.nextafter(files.fields["bound"], np.inf))
    files.refuted("the bound claimed is .*, the proofs show")


@pytest.mark.parametrize("bound", [np.inf, -np.inf, np.nan])
def test_a_bound_that_is_no_number(files, bound):
    files.change("bound", (), bound)
    files.refuted("the bound claimed")


def test_the_split_beyond_semidefinite(files):
    files.fields["d"] *= 1.01
    files.write()
    files.refuted("the split of row 0 of problem 0 leaves a remainder not shown to be positive semidefinite")


def test_a_split_that_is_not_positive(tmp_path):
    files = Files(tmp_path)
    files.change("d", 0, 0.0)
    files.refuted("the split of row 0 of problem 0 holds a number that is not positive")


def test_a_smaller_split_proves_less(files):
    files.fields["d"] -= 0.3 * np.abs(files.fields["d"])
    files.write()
    files.refuted("leaf at node .* of row 0 of problem 0 claims .*, but .* is proven")


def test_a_branching_entry(files):
    root = files.fields["entry"][0]
    files.change(
        "entry", 0, (root + 1) % 6 if (root + 1) % 6 not in files.fields["entry"] else (root + 5) % 6
    )
    files.refuted("row 0 of problem 0")


def test_children_exchanged(files):
    pruned, kept = files.fields["pruned"][0], files.fields["kept"][0]
    files.fields["pruned"][0], files.fields["kept"][0] = kept, pruned
    files.write()
    files.refuted("(leaf at node .* claims|no masks, but it has)")


def test_a_leaf_cut_off(files):
    inner = np.flatnonzero(files.fields["entry"] >= 0)
    inner = inner[inner < files.fields["nodes"][0]]
    last = inner[-1]
    files.change("pruned", last, files.fields["kept"][last])
    files.refuted("the tree of row 0 of problem 0 does not cover every mask: node .* has two parents")


def test_a_subtree_made_a_leaf(files):
    """The root as a leaf that claims what the best leaf of its tree claims."""
    nodes = files.fields["nodes"][0]
    at, best = leaf(files), files.fields["claim"][:nodes].max()
    for name in ("entry", "pruned", "kept"):
        files.fields[name][0] = -1
    files.fields["vector"][0], files.fields["claim"][0] = files.fields["vector"][at], best
    files.write()
    files.refuted("does not cover every mask: .* nodes can't be reached from the root")
    keep = np.arange(len(files.fields["entry"])) >= nodes
    keep[0] = True
    for name in ("entry", "pruned", "kept", "vector", "claim"):
        files.fields[name] = files.fields[name][keep]
    files.fields["nodes"][0] = 1
    files.write()
    files.refuted("leaf at node 0 of row 0 of problem 0 claims")


@pytest.fixture(params=[True, False])
def subtrees(request, tmp_path):
    found = Files(tmp_path, refit=request.param, depth=2, grow=branch_and_split)
    assert found.fields["splits"].tolist() == [5, 5]
    exact = exact_optimum(found.problem)[0]
    assert found.verify().bound <= exact
    assert found.verify().bound > Files(tmp_path, refit=request.param, depth=2).verify().bound
    found.write()
    return found


def test_a_subtrees_split_beyond_semidefinite(subtrees):
    n = subtrees.problem.n
    assumed = subtrees.fields["root"].reshape(-1, n)[1]
    alive = assumed >= 0 if subtrees.problem.refit else assumed == 0
    subtrees.fields["d"][n : 2 * n][alive] *= 1.0 + 1e-3
    subtrees.fields["d"][n : 2 * n][alive] += 1e-3
    subtrees.write()
    subtrees.refuted("the split of row 0 of problem 0 leaves a remainder not shown")


@pytest.mark.parametrize("value", [0, 1, -1])
def test_what_a_split_assumes(subtrees, value):
    n = subtrees.problem.n
    root = subtrees.fields["root"]
    at = next(i for i in range(n, len(root)) if root[i] != value and (root[i] or value))
    subtrees.change("root", at, value)
    subtrees.refuted("row 0 of problem 0 (lacks fixings|claims|leaves a remainder|holds a number)")


def test_a_split_used_outside_its_subtree(subtrees):
    subtrees.change("split", 0, subtrees.fields["split"][1])
    subtrees.refuted("leaf at node .* of row 0 of problem 0 lacks fixings that its split assumes")


def test_one_split_for_two_subtrees(subtrees):
    n = subtrees.problem.n
    d = subtrees.fields["d"]
    d[2 * n : 3 * n] = d[n : 2 * n] = np.maximum(d[n : 2 * n], d[:n])
    subtrees.write()
    subtrees.refuted("the split of row 0 of problem 0 leaves a remainder not shown")


@pytest.mark.parametrize("refit", [True, False])
def test_one_split_for_two_curvatures(tmp_path, refit):
    rng = np.random.default_rng(0)
    H = np.stack([gram(rng, 6)] * 2) * np.array([1.0, 0.5])[:, None, None]
    problem = SubsetProblem(np.ones((2, 6)), H, Budget.per_row(3), refit=refit)
    certify(problem, next(all_masks(problem))).save(tmp_path / "c")
    save(tmp_path / "p.npz", problem)
    checker.verify(tmp_path / "c", tmp_path / "p.npz")
    fields = Files.read(tmp_path / "c")
    fields["d"][6:] = fields["d"][:6]
    with open(tmp_path / "c", "wb") as file:
        np.savez(file, **fields)
    with pytest.raises(Refuted, match="the split of row 1 of problem 0 leaves a remainder"):
        checker.verify(tmp_path / "c", tmp_path / "p.npz")


def test_splits_that_are_not_there(subtrees):
    subtrees.change("split", 0, 5)
    subtrees.refuted("a vector of row 0 of problem 0 has a split that is not there")
    subtrees.change("split", 0, 1)
    subtrees.change("root", 0, 1)
    subtrees.refuted("the first split of row 0 of problem 0 assumes fixings")


def test_an_assumption_that_is_none(subtrees):
    at = subtrees.problem.n + np.flatnonzero(subtrees.fields["root"][subtrees.problem.n :])[0]
    subtrees.change("root", at, 2 * subtrees.fields["root"][at])
    subtrees.refuted("the split of row 0 of problem 0 assumes a fixing that is none")


def test_a_vector(files):
    files.fields["u"][0] += np.float32(0.5 * np.abs(files.fields["u"]).max())
    files.write()
    files.refuted("leaf at node .* of row 0 of problem 0 claims")


@pytest.mark.parametrize("number", [np.nan, np.inf, 3e38])
def test_a_vector_that_is_no_number(files, number):
    files.change("u", 0, number)
    files.refuted("leaf at node .* of row 0 of problem 0 claims")


def test_a_vector_that_is_not_there(files):
    files.change("vector", leaf(files), files.fields["vectors"][0])
    files.refuted("a leaf of row 0 of problem 0 has a vector that is not there")


def test_a_leaf_called_impossible(files):
    files.change("vector", leaf(files), -1)
    files.refuted("leaf at node .* of row 0 of problem 0 says that it has no masks, but it has")


def test_a_claim(files):
    at = leaf(files)
    files.change("claim", at, files.fields["claim"][at] + 1e-11 * files.problem.scale)
    files.refuted(f"leaf at node {at} of row 0 of problem 0 claims .* is proven")


def test_a_claim_that_is_no_number(files):
    files.change("claim", leaf(files), np.nan)
    files.refuted("leaf at node .* claims nan")


def test_a_missing_proof(tmp_path):
    files = Files(tmp_path)
    nodes, vectors = files.fields["nodes"][0], files.fields["vectors"][0]
    for name in ("entry", "pruned", "kept", "vector", "claim"):
        files.fields[name] = files.fields[name][nodes:]
    files.fields["u"] = files.fields["u"][vectors * files.problem.n :]
    files.fields["d"] = files.fields["d"][files.problem.n :]
    files.fields["root"] = files.fields["root"][files.problem.n :]
    files.fields["split"] = files.fields["split"][vectors:]
    for name in ("problem", "row", "prune", "nodes", "vectors", "splits", "pairs"):
        files.fields[name] = files.fields[name][1:]
    files.write()
    files.refuted("there is no proof about row 0 of problem 0")
    files.fields["row"][:] = 0
    files.write()
    with pytest.raises(Refuted):
        files.verify()


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_that_is_not_there(files, row):
    files.change("row", 0, row)
    files.refuted(f"a proof about row {row} of problem 0, which does not exist")


def test_a_count_where_the_budget_says_it(files):
    files.change("prune", 0, 2)
    files.refuted("prunes 2, which the budget says already")


def test_one_weight_off_by_one_bit(files):
    W = files.problem.W.copy()
    W[1, 2] = np.nextafter(W[1, 2], 9.0)
    instance = files.read(files.instance) | {"weights": W}
    np.savez(files.instance, **instance)
    files.refuted("is not the problem certified: its digest is")


@pytest.mark.parametrize(
    "changed",
    [{"hessian": 2}, {"prune": 2}, {"refit": 0}, {"gradient": 1}, {"movable": 1}, {"budget": 1}],
    ids=lambda changed: next(iter(changed)),
)
def test_every_field_of_the_problem_is_in_the_digest(tmp_path, changed):
    files = Files(tmp_path)
    instance = files.read(files.instance)
    name = next(iter(changed))
    instance[name] = {
        "hessian": instance["hessian"] * 2.0, "prune": np.array(2), "refit": np.array(False),
        "gradient": np.zeros((2, 6)), "movable": np.array([1]), "budget": np.array("columns"),
    }[name]  # fmt: skip
    np.savez(files.instance, **instance)
    files.refuted("is not the problem certified")


def test_a_forged_digest(files, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    kind = files.problem.budget.kind
    budget = kind if kind != "per_row" else "per_row"
    strange = Files(other, budget, files.problem.refit, seed=99)
    files.fields["digest"] = strange.fields["digest"]
    files.write()
    with pytest.raises(Refuted, match=r"row|mask|value"):
        checker.verify(files.certificate, strange.instance)


def test_a_layer_budget_is_shared_by_its_rows(tmp_path):
    files = Files(tmp_path, "per_layer")
    verdict = files.verify()
    assert verdict.bound <= exact_optimum(files.problem)[0]
    bound = files.fields["bound"]
    files.change("bound", (), bound + 1e-9)
    files.refuted("the bound claimed is")
    files.change("bound", (), bound)
    files.change("prune", 0, 4)
    files.refuted("leaf at node|the bound claimed")
    files.change("prune", 0, 7)
    files.refuted("a proof about row 0 of problem 0 prunes 7 of 6")


@pytest.mark.parametrize("refit", [True, False])
def test_curves_bound_every_count(tmp_path, refit):
    problem = make_problem(
        np.random.default_rng(3), Budget.per_layer(5), m=2, n=5, refit=refit, gradient=True
    )
    proofs = [p for k in (1, 3) for p in tree_proofs(problem, 5, np.full(2, k))]
    certify(problem, next(all_masks(problem)), proofs).save(tmp_path / "c")
    stored_problem = stored(problem)
    prover = Prover([stored_problem])
    for proof in parse_certificate(read_digests(tmp_path / "c")[0], [stored_problem]).proofs:
        prover.check(proof)
    masks = np.array(list(itertools.product([False, True], repeat=5)))
    values = np.array([exact_row_values(problem, np.stack([mask, mask])) for mask in masks])
    for row, curve in enumerate(prover.curves(0)):
        best = [values[masks.sum(axis=1) == k, row].min() for k in range(6)]
        assert all(low <= exact for low, exact in zip(curve.tolist(), best, strict=True))
        assert curve[[1, 3]] == pytest.approx([float(best[1]), float(best[3])], rel=1e-8)
    if not refit:
        assert min(best[1:]) < best[0]


def test_one_problem_does_not_share(tmp_path):
    files = Files(tmp_path)
    files.change("shared", (), True)
    files.refuted("only budgets per_layer can be shared")


def test_the_number_of_files(files):
    with pytest.raises(Refuted, match="about 1 problems, 2 files were given"):
        checker.verify(files.certificate, files.instance, files.instance)


def test_cut_short_or_damaged(files):
    whole = files.certificate.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        files.certificate.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"certificate .*layer.cert' can't be read") as caught:
            files.verify()
        assert "\n" not in str(caught.value)
    damaged = bytearray(whole)
    damaged[whole.index(files.fields["claim"].tobytes()) + 3] ^= 1
    files.certificate.write_bytes(bytes(damaged))
    with pytest.raises(ValueError, match="can't be read: Bad CRC-32"):
        files.verify()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("claim", "field 'claim' has .* entries, not"),
        ("mask", "field 'mask' has"),
        ("d", "field 'd' has"),
        ("u", "field 'u' has"),
        ("vectors", "field 'vectors' has"),
        ("root", "field 'root' has"),
        ("split", "field 'split' has"),
        ("splits", "field 'splits' has"),
        ("value", "need a bound, and 1 values"),
    ],
)
def test_lengths_that_do_not_fit(tmp_path, name, words):
    files = Files(tmp_path)
    files.fields[name] = files.fields[name][:-1]
    files.write()
    with pytest.raises(ValueError, match=words):
        files.verify()


def test_fields_that_are_missing_or_of_another_type(tmp_path):
    files = Files(tmp_path)
    for name in list(files.fields):
        rest = {key: value for key, value in files.fields.items() if key != name}
        np.savez(tmp_path / "less.npz", **rest)
        with pytest.raises(ValueError, match=f"field '{name}' is missing"):
            checker.verify(tmp_path / "less.npz", files.instance)
        np.savez(tmp_path / "less.npz", **rest, **{name: np.zeros(3, complex)})
        with pytest.raises(ValueError, match=f"field '{name}' holds complex128"):
            checker.verify(tmp_path / "less.npz", files.instance)
    files.fields["format"] = np.array("cbs certificate 99")
    files.write()
    with pytest.raises(ValueError, match="format is 'cbs certificate 99', not"):
        files.verify()


def test_pickles_are_refused(tmp_path):
    files = Files(tmp_path)
    files.fields["claim"] = np.array([{}], dtype=object)
    with open(files.certificate, "wb") as file:
        np.savez(file, allow_pickle=True, **files.fields)
    with pytest.raises(ValueError, match="can't be read"):
        files.verify()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.floats(1e-11, 1.0), st.booleans())
def test_no_claim_above_a_leafs_best_mask_survives(tmp_path_factory, seed, excess, refit):
    """The cost of a leaf's best mask, and a bit: no vector whatsoever can prove it."""
    rng = np.random.default_rng(seed)
    problem = make_problem(rng, Budget.per_row(2), m=1, n=5, refit=refit)
    folder = tmp_path_factory.mktemp("claims")
    masks = list(all_masks(problem))
    best = min(masks, key=problem.value)
    found = blocks(problem)
    split = split_blocks(found)[0]
    proof = chain(found[0], split, 3) if seed % 2 else tree_proofs(problem, 3)[0]
    certify(problem, best, [proof]).save(folder / "c")
    save(folder / "p.npz", problem)
    fields = Files.read(folder / "c")
    fields["claim"][fields["entry"] < 0] = problem.value(best) + excess * problem.scale
    with open(folder / "c", "wb") as file:
        np.savez(file, **fields)
    with pytest.raises(Refuted):
        checker.verify(folder / "c", folder / "p.npz")


@settings(derandomize=True, deadline=None, max_examples=120)
@given(st.integers(0, 10**6))
def test_whatever_is_tampered_with_a_verified_bound_is_a_bound(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("any")
    grow = branch if seed % 3 else branch_and_split
    files = Files(folder, "per_row", bool(seed % 2), depth=2, m=1, n=5, seed=seed % 7, grow=grow)
    best = Fraction(optimum(files.problem))
    names = [
        "root",
        "split",
        "splits",
        "d",
        "u",
        "claim",
        "bound",
        "entry",
        "pruned",
        "kept",
        "vector",
        "value",
        "row",
        "nodes",
    ]
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


def test_the_checker_imports_nothing_of_the_search():
    allowed = {"numpy", "flint", *sys.stdlib_module_names}
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
                for name in names:
                    assert name.startswith("solvers.checker") or name.split(".")[0] in allowed, (path, name)


def test_the_checker_runs_alone(tmp_path):
    """In an interpreter whose package `solvers` is an empty shell around the checker's folder."""
    files = Files(tmp_path)
    code = (
        "import sys, types; shell = types.ModuleType('solvers'); "
        f"shell.__path__ = [{str(FOLDER.parent)!r}]; sys.modules['solvers'] = shell; "
        "from solvers.checker import verify; "
        f"print(verify({str(files.certificate)!r}, {str(files.instance)!r}).bound); "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'scipy', 'numba', 'cbs'}), "
        "sorted(name for name in sys.modules if name.startswith('solvers') and 'checker' not in name))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == [repr(float(files.fields["bound"])), "[] ['solvers']"]
