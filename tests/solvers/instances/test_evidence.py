"""Claims are checked: values recomputed, proofs verified, and refused where they are no better."""

import itertools
import json

import numpy as np
import pytest

from solvers import Budget, solve, solve_together
from solvers.instances import Library
from solvers.instances.evidence import check, claim, read_masks, value_of
from solvers.instances.item import Known
from tests.solvers.instances.libraries import small_library


@pytest.fixture
def library(tmp_path):
    return small_library(tmp_path / "lib")


def by_enumeration(problem):
    """The least value of one row's masks, and its mask, by trying all."""
    best = None
    for pruned in itertools.combinations(range(problem.n), int(problem.pools.prune[0])):
        mask = np.zeros((1, problem.n), bool)
        mask[0, list(pruned)] = True
        w, H = problem.W[0], problem.hessian.dense(0)
        C = np.linalg.inv(H)[np.ix_(pruned, pruned)]
        value = 0.5 * w[list(pruned)] @ np.linalg.solve(C, w[list(pruned)])
        if best is None or value < best[0]:
            best = value, mask
    return best


def test_a_better_mask_is_taken_in_with_its_own_value(library):
    item = library["a-r0"]
    value, mask = by_enumeration(item.problem())
    worse = np.zeros((1, 8), bool)
    worse[0, np.argsort(-np.abs(item.problem().W[0]))[:5]] = True
    first = claim(library, "a-r0", masks=[worse], by="one")
    assert first.before == Known()
    taken = claim(library, "a-r0", masks=[mask], by="another")
    assert taken.after.value == pytest.approx(value, rel=1e-9)
    found = Library(library.folder)["a-r0"]
    assert found.known.value_by.startswith("another, 20")
    assert np.array_equal(found.masks()[0], mask)
    for again in (mask, worse):
        with pytest.raises(ValueError, match="no better than what is known: its value is"):
            claim(library, "a-r0", masks=[again])
    assert check(library, found) == []


def test_masks_that_are_none_are_refused(library):
    with pytest.raises(ValueError, match="does not meet the budget"):
        claim(library, "a-r0", masks=[np.zeros((1, 8), bool)])
    with pytest.raises(ValueError, match=r"mask has shape \(2, 8\)"):
        claim(library, "a-r0", masks=[np.zeros((2, 8), bool)])
    with pytest.raises(ValueError, match="masks prune 0 weights, the budget 21"):
        claim(library, "both", masks=[np.zeros((3, 8), bool), np.zeros((3, 6), bool)])
    with pytest.raises(ValueError, match="2 layers, 1 masks were given"):
        claim(library, "both", masks=[np.zeros((3, 8), bool)])
    with pytest.raises(ValueError, match="neither was given"):
        claim(library, "both")
    assert library["a-r0"].known == Known()


def test_a_bound_needs_a_certificate_that_holds(library, tmp_path):
    item = library["a-r0"]
    solution = solve(item.problem(), certify=True)
    solution.certificate.save(tmp_path / "c.npz")
    taken = claim(library, "a-r0", certificate=tmp_path / "c.npz", by="me")
    assert taken.after.bound == solution.certificate.bound
    assert taken.after.value == solution.value
    assert taken.after.status == "proven"
    found = Library(library.folder)["a-r0"]
    assert check(library, found) == []
    with pytest.raises(ValueError, match="no better than what is known: its bound is"):
        claim(library, "a-r0", certificate=tmp_path / "c.npz")
    with pytest.raises(ValueError, match=r"refuted: 'a-r2-0.npz' is not the problem certified"):
        claim(library, "a-r2", certificate=tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz") as file:
        fields = dict(file)
    fields["bound"] = np.array(solution.value)
    np.savez(tmp_path / "forged.npz", **fields)
    with pytest.raises(ValueError, match="the certificate is refuted: the bound claimed is"):
        claim(library, "a-r0", certificate=tmp_path / "forged.npz")


def test_layers_with_one_budget(library, tmp_path):
    item = library["both"]
    found = solve_together(item.problems(), certify=True)
    found.certificate.save(tmp_path / "c.npz")
    taken = claim(library, "both", certificate=tmp_path / "c.npz")
    assert taken.after.value == pytest.approx(found.value, rel=1e-12)
    item = Library(library.folder)["both"]
    assert value_of(item, item.masks())[0] == taken.after.value
    assert check(library, item) == []
    pruned = sum(int(mask.sum()) for mask in item.masks())
    assert pruned == 21


def test_a_mask_below_a_bound_is_reported_and_not_taken(library):
    library.record("a-r0", Known(None, 1e9))
    _, mask = by_enumeration(library["a-r0"].problem())
    with pytest.raises(ValueError, match=r"below the best bound known, .*one of the two is wrong"):
        claim(library, "a-r0", masks=[mask])


def test_masks_of_files(library, tmp_path):
    item, both = library["a-r0"], library["both"]
    mask = np.array([[1, 1, 0, 1, 1, 0, 1, 0]], bool)
    np.savez(tmp_path / "m.npz", mask=mask)
    np.save(tmp_path / "m.npy", mask.astype(np.int8))
    (tmp_path / "m.json").write_text(json.dumps({"pruned": [[0, 1, 3, 4, 6]]}))
    for name in ("m.npz", "m.npy", "m.json"):
        assert np.array_equal(read_masks(tmp_path / name, item)[0], mask)
    layers = [np.eye(3, 8, dtype=bool), np.eye(3, 6, dtype=bool)]
    np.savez(tmp_path / "b.npz", mask_0=layers[0], mask_1=layers[1])
    (tmp_path / "flat.json").write_text(json.dumps({"pruned": [[0], [1], [2], [0], [1], [2]]}))
    (tmp_path / "nested.json").write_text(json.dumps({"pruned": [[[0], [1], [2]], [[0], [1], [2]]]}))
    for name in ("b.npz", "flat.json", "nested.json"):
        assert all(
            np.array_equal(a, b) for a, b in zip(read_masks(tmp_path / name, both), layers, strict=True)
        )
    for name, text in (
        ("x.json", '{"pruned": [[9]]}'),
        ("y.json", "[]"),
        ("z.json", '{"pruned": 1}'),
        ("u.npz", ""),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=r"does not hold a mask of \(1, 8\)"):
            read_masks(tmp_path / name, item)
    np.savez(tmp_path / "m.npz", mask=np.full((1, 8), 2))
    with pytest.raises(ValueError, match="more than true and false"):
        read_masks(tmp_path / "m.npz", item)
    with pytest.raises(ValueError, match="can't be read"):
        read_masks(tmp_path / "none.json", item)


def test_checks_find_what_does_not_hold(library, tmp_path):
    item = library["a-r0"]
    solution = solve(item.problem(), certify=True)
    solution.certificate.save(tmp_path / "c.npz")
    claim(library, "a-r0", certificate=tmp_path / "c.npz")
    good = library.known("a-r0")

    def wrong(**changes):
        library.record("a-r0", Known(**{**vars(good), **changes}))
        return check(library, library["a-r0"])

    assert wrong() == []
    assert "its mask costs" in wrong(value=good.value * 1.1)[0]
    assert "lies above its value" in wrong(bound=good.value * 1.1)[0]
    assert "its certificate proves" in wrong(bound=good.value)[0]
    library.record("a-r0", good)
    problem = item.problem().with_budget(Budget.per_row(4))
    solve(problem, certify=True).certificate.save(library.certificate_path("a-r0"))
    assert "refuted" in check(library, library["a-r0"])[0]
    assert check(library, library["a-r0"], proofs=False) == []
    library.index["instances"]["a-r0"]["n"] = 9
    assert check(library, library["a-r0"], proofs=False) == ["its n is 8, not 9"]
    library.index["instances"]["a-r0"]["n"] = 8
    library.index["instances"]["a-r0"]["digest"] = "1" * 64
    assert check(library, library["a-r0"]) == ["its numbers have another digest"]
    library.mask_path("a-r0").unlink()
    library.index["instances"]["a-r0"]["digest"] = item.digest
    assert check(library, library["a-r0"], proofs=False) == ["it has a value without a mask"]


def test_what_others_found_meanwhile_is_kept_where_it_is_better(library, tmp_path):
    item = library["a-r0"]
    value, best = by_enumeration(item.problem())
    worse = np.zeros((1, 8), bool)
    worse[0, np.argsort(-np.abs(item.problem().W[0]))[:5]] = True
    solve(item.problem(), certify=True).certificate.save(tmp_path / "c.npz")
    mine = Library(library.folder)  # read before the others' claims
    claim(library, "a-r0", masks=[best], certificate=tmp_path / "c.npz", by="others")
    taken = claim(mine, "a-r0", masks=[worse], by="me")
    found = Library(library.folder)["a-r0"]
    assert taken.after == found.known == library["a-r0"].known
    assert found.known.value == pytest.approx(value, rel=1e-9)
    assert found.known.value_by.startswith("others, ")
    assert found.status == "proven"
    assert check(library, found) == []


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"PK")])
def test_a_mask_that_was_lost_is_claimed_again(library, damage):
    _, best = by_enumeration(library["a-r0"].problem())
    claim(library, "a-r0", masks=[best])
    damage(library.mask_path("a-r0"))
    assert len(check(library, library["a-r0"])) == 1
    claim(library, "a-r0", masks=[best])
    assert check(library, library["a-r0"]) == []
