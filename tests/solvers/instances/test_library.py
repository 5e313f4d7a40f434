"""Libraries: problems exactly as they were digested, filters, and records that lose nothing."""

import multiprocessing

import numpy as np
import pytest

from solvers.instances import Library, digest, read_solu
from solvers.instances.item import Known
from solvers.instances.layer_data import LayerData
from tests.solvers.instances.libraries import small_library


@pytest.fixture
def library(tmp_path):
    return small_library(tmp_path / "lib")


def names(items):
    return [item.name for item in items]


def test_problems_are_those_that_were_digested(library):
    again = Library(library.folder)
    assert len(again) == 5
    for item in again:
        assert item.intact()
    problem = again["a-r2"].problem()
    assert digest(problem) == again["a-r2"].digest
    data = LayerData.load(library.data_path("a"))
    assert np.array_equal(problem.W, data.weights[2:3])
    assert np.array_equal(problem.hessian.dense(0), data.hessian)
    assert not problem.refit
    with pytest.raises(ValueError, match="is 2 layers with one budget"):
        again["both"].problem()
    assert [int(problem.pools.prune[0]) for problem in again["both"].problems()] == [12, 9]


def test_filters(library):
    library.record("a-r0", Known(1.0, 1.0))
    assert names(library.items(names="a-*")) == ["a-r0", "a-r2", "a-layer", "a-columns"]
    assert names(library.items(names=["both", "a-r?"])) == ["a-r0", "a-r2", "both"]
    assert names(library.items(variant="selection")) == ["a-r2", "a-columns"]
    assert names(library.items(budget="network")) == ["both"]
    assert names(library.items(family="net/a", budget="per_row")) == ["a-r0"]
    assert names(library.items(family="net")) == names(library)
    assert names(library.items(family="other")) == []
    assert names(library.items(status="proven")) == ["a-r0"]
    assert "a-r0" not in names(library.items(status="open"))
    assert names(library.items(sparsity=0.625)) == ["a-r0"]
    assert names(library.items(n=(9, None))) == []
    assert len(names(library.items(n=[6, 8]))) == 5
    assert len(names(library.items(n=8))) == 5
    with pytest.raises(ValueError, match=r"unknown variant 'join'; did you mean 'joint'\?"):
        next(library.items(variant="join"))
    with pytest.raises(ValueError, match="unknown status 'x'; known: proven, open"):
        next(library.items(status="x"))
    with pytest.raises(ValueError, match=r"no instance 'a-r1'; did you mean 'a-r2'\?|did you mean 'a-r0'"):
        library["a-r1"]


def test_records_are_whole_and_stand_in_the_solution_file(library):
    mask = np.zeros((1, 8), bool)
    mask[0, :5] = True
    known = Known(2.0, 1.0 / 3.0, "me", "you", None, 1.5)
    library.record("a-r0", known, [mask])
    again = Library(library.folder)["a-r0"]
    assert again.known == known
    assert np.array_equal(again.masks()[0], mask)
    assert read_solu(library.folder / "index.solu")["a-r0"].bound == 1.0 / 3.0
    assert again.facts()["gap"] == pytest.approx(5 / 6)
    assert again.facts()["provenance"]["a"]["seed"] == 0


def test_data_that_is_missing_other_or_damaged_is_refused(library):
    path = library.data_path("a")
    other = LayerData.load(path)
    other.weights[0, 0] += 1.0
    assert not Library(library.folder).put_data("a", other, {})
    other.save(path)
    with pytest.raises(ValueError, match="holds other numbers than those that the index"):
        Library(library.folder)["a-r0"].problem()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"instance 'a-r0': data file .* can't be read"):
        Library(library.folder)["a-r0"].problem()
    path.unlink()
    with pytest.raises(ValueError, match=r"a\.npz is not there; `cbs instances make` makes"):
        Library(library.folder)["a-r0"].problem()


def test_a_damaged_mask_is_refused(library):
    library.record("a-r0", Known(2.0), [np.zeros((1, 8), bool)])
    np.savez(library.mask_path("a-r0"), mask_0=np.zeros(1, np.uint8), shape=np.array([1, 8]))
    with pytest.raises(ValueError, match="does not hold packed masks"):
        library["a-r0"].masks()


def _record(folder, name, count):
    library = Library(folder)
    for i in range(count):
        library.record(name, Known(float(i)))


def test_two_processes_lose_nothing_of_each_other(library):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_record, args=(library.folder, name, 20)) for name in ("a-r0", "a-r2")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = Library(library.folder)
    assert [found[name].value for name in ("a-r0", "a-r2")] == [19.0, 19.0]
