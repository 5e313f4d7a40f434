"""Whatever is done to a file, it is refused in one line: other bytes, members, numbers, types, lengths."""

import warnings
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers.bounds.groups.central_path import group_split
from solvers.bounds.split import split_blocks
from solvers.certificate import certify, group_proof
from solvers.certificate.original import stored
from solvers.checker import Refuted, verify
from solvers.checker.problem import read_problem
from solvers.form.blocks import blocks
from solvers.hessian import factor
from solvers.instances import load, save
from tests.solvers.exactly import exact_optimum
from tests.solvers.oracles import BUDGETS, make_problem
from tests.solvers.proof_trees import branch_and_split, tree_proofs

KINDS = ("tree", "selection", "layer", "columns", "blocks", "image")
SEEDS = st.integers(0, 2**32 - 1)


def build(kind):
    """A problem, its optimum and proofs about it."""
    rng = np.random.default_rng(0)
    budget = {"layer": "per_layer", "columns": "columns"}.get(kind, "per_row")
    problem = make_problem(
        rng, BUDGETS[budget], n=6, refit=kind != "selection", kind="factor" if kind == "image" else "shared",
        gradient=kind in ("image", "columns"), movable=(2,) if kind == "columns" else (),
    )  # fmt: skip
    optimum, mask = exact_optimum(problem)
    if kind == "blocks":
        found = blocks(problem)
        proofs = [
            group_proof(
                block, split.d, group_split(block, split.d[0], split.z, 0.2 * block.constant, size=2)[0]
            )
            for block, split in zip(found, split_blocks(found), strict=True)
        ]
    elif kind == "image":
        proofs = []
    else:
        counts = np.full(problem.m, 3) if kind == "layer" else None
        proofs = tree_proofs(problem, 2, counts, grow=branch_and_split)
    return problem, optimum, certify(problem, mask, proofs)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """By kind: certificate, instance, optimum."""
    folder, found = tmp_path_factory.mktemp("corpus"), {}
    with pytest.MonkeyPatch.context() as patch:
        for kind in KINDS:
            patch.setattr(factor, "WIDE", 2 if kind == "image" else 2048)
            problem, optimum, certificate = build(kind)
            paths = folder / f"{kind}.cert", folder / f"{kind}.npz"
            certificate.save(paths[0])
            save(paths[1], problem)
            assert verify(*paths).bound <= optimum
            found[kind] = (*paths, optimum)
    assert "image" in np.load(found["image"][0]).files
    assert np.load(found["blocks"][0])["pairs"].any()
    return found


def fields_of(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def mutated_bytes(data, rng):
    """A few bytes changed, taken out, put in, or all after them gone."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(data)))
        kind = rng.integers(6)
        if kind < 3:
            data[at] = int(rng.integers(256)) if kind else data[at] ^ (1 << int(rng.integers(8)))
        elif kind == 3:
            del data[at : at + int(rng.integers(1, 9))]
        elif kind == 4:
            data[at:at] = rng.bytes(int(rng.integers(1, 9)))
        elif rng.random() < 0.3:
            del data[at:]
        if not data:
            return b""
    return bytes(data)


NUMBERS = (0, 1, -1, 2, -2, 127, 2**31 - 1, -(2**31), 2**53 + 1, 2**62, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 5e-324, 1e308, -1e308, 1e-300)


def mutated_array(array, others, rng):
    """Another array in its place: entries, shape or type are others."""
    kind = rng.integers(12)
    flat = array.copy().ravel()
    if kind < 5 and flat.size and flat.dtype.kind in "iuf":
        at = rng.integers(flat.size, size=rng.integers(1, 3))
        pick = rng.choice(FLOATS) if flat.dtype.kind == "f" else rng.choice(np.array(NUMBERS, np.int64))
        if rng.random() < 0.4:
            pick = flat[at] * rng.choice([-1.0, 0.5, 2.0]) + rng.integers(-1, 2)
        with np.errstate(all="ignore"):
            flat[at] = np.asarray(pick).astype(flat.dtype)
        return flat.reshape(array.shape)
    if kind < 6 and flat.dtype.kind == "b":
        flat ^= rng.random(flat.size) < 0.3
        return flat.reshape(array.shape)
    if kind == 6:
        return np.asarray(others[rng.choice(sorted(others))])
    if kind == 7:
        return flat[: int(rng.integers(flat.size + 1))]
    if kind == 8:
        return np.concatenate([flat, flat])[: int(rng.integers(1, 2 * flat.size + 2))]
    if kind == 9:
        types = ["f2", "f4", "f8", "g", "i1", "i8", "u8", "?", "c16", "U3", "S3", ">f8"]
        with np.errstate(all="ignore"):
            try:
                return array.astype(rng.choice(types))
            except ValueError:
                return np.array("x")
    if kind == 10:
        return array[None] if rng.random() < 0.5 else array.reshape(-1, 1)
    strange = [np.zeros(0), np.array("\u00fc" * 99), np.zeros((2, 0, 3)), np.array(2**64 - 1, np.uint64)]
    return strange[int(rng.integers(len(strange)))]


def judged(action):
    """What an action gives, or None if it refuses, in one line."""
    try:
        return action()
    except (Refuted, ValueError) as error:
        text = str(error)
        assert len(text.splitlines()) == 1, text
        assert len(text) < 1000, text
        return None


def check(files, optimum):
    """A verdict about mutated files is a refusal, or true."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdict = judged(lambda: verify(*files))
    assert verdict is None or verdict.bound <= optimum * (1 + Fraction(1, 10**12))


@settings(derandomize=True, deadline=None, max_examples=250)
@given(st.sampled_from(KINDS), SEEDS)
def test_certificates_with_other_fields(corpus, tmp_path_factory, kind, seed):
    certificate, instance, optimum = corpus[kind]
    rng, fields = np.random.default_rng(seed), fields_of(certificate)
    for _ in range(rng.integers(1, 3)):
        name = rng.choice(sorted(fields))
        fields[name] = mutated_array(fields[name], fields, rng)
    if rng.random() < 0.1:
        del fields[rng.choice(sorted(fields))]
    if rng.random() < 0.1:
        a, b = rng.choice(sorted(fields), 2)
        fields[a], fields[b] = fields[b], fields[a]
    path = tmp_path_factory.mktemp("other") / "c.npz"
    np.savez(path, **fields)
    check((path, instance), optimum)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.sampled_from(KINDS), SEEDS, st.booleans())
def test_files_with_other_bytes(corpus, tmp_path_factory, kind, seed, which):
    files = list(corpus[kind][:2])
    rng, path = np.random.default_rng(seed), tmp_path_factory.mktemp("bytes") / "x.npz"
    path.write_bytes(mutated_bytes(files[which].read_bytes(), rng))
    files[which] = path
    check(files, corpus[kind][2])
    if which:
        judged(lambda: load(path))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.sampled_from(KINDS), SEEDS, st.booleans())
def test_members_with_other_bytes(corpus, tmp_path_factory, kind, seed, which):
    """The checksums are right."""
    files = list(corpus[kind][:2])
    rng, path = np.random.default_rng(seed), tmp_path_factory.mktemp("members") / "x.npz"
    with zipfile.ZipFile(files[which]) as old, zipfile.ZipFile(path, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            if name == chosen:
                front = rng.random() < 0.7
                content = (
                    mutated_bytes(content[:128], rng) + content[128:]
                    if front
                    else mutated_bytes(content, rng)
                )
            new.writestr(name, content)
    files[which] = path
    check(files, corpus[kind][2])
    if which:
        judged(lambda: load(path))


@settings(derandomize=True, deadline=None, max_examples=250)
@given(st.sampled_from(KINDS), SEEDS)
def test_instances_with_other_fields(corpus, tmp_path_factory, kind, seed):
    """The search and the checker take the same files for problems."""
    rng, fields = np.random.default_rng(seed), fields_of(corpus[kind][1])
    for _ in range(rng.integers(1, 3)):
        name = rng.choice(sorted(fields))
        fields[name] = mutated_array(fields[name], fields, rng)
    path = tmp_path_factory.mktemp("instance") / "i.npz"
    np.savez(path, **fields)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem, read = judged(lambda: load(path)), judged(lambda: read_problem(path))
        if problem is not None:
            assert read is not None
            assert stored(problem).digest == read.digest


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 20_000, 2000))
def test_twenty_thousand_mutated_certificates(corpus, tmp_path, first):
    for seed in range(first, first + 2000):
        rng = np.random.default_rng(seed)
        certificate, instance, optimum = corpus[KINDS[seed % len(KINDS)]]
        fields = fields_of(certificate)
        for _ in range(rng.integers(1, 4)):
            name = rng.choice(sorted(fields))
            fields[name] = mutated_array(fields[name], fields, rng)
        np.savez(tmp_path / "c.npz", **fields)
        check((tmp_path / "c.npz", instance), optimum)
