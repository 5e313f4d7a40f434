"""Our solvers improve what is known, keep the rest, and leave proofs that hold."""

import pytest

from solvers.instances import Library
from solvers.instances.evidence import check
from solvers.instances.improve import improve
from solvers.instances.item import Known
from tests.solvers.instances.libraries import small_library


@pytest.mark.parametrize("name", ["a-r0", "a-r2", "a-layer", "a-columns", "both"])
def test_every_budget_is_solved_and_checked(tmp_path, name):
    library = small_library(tmp_path)
    found = improve(library, library[name], time_limit=20)
    item = Library(tmp_path)[name]
    assert found.before == Known()
    assert item.known == found.after
    assert item.status == "proven"
    assert item.certificate is not None
    assert check(library, item) == []
    again = improve(library, item, time_limit=20, certify=False)
    assert again.after.value == found.after.value
    assert again.after.bound >= found.after.bound
    assert again.after.certificate == found.after.certificate
    assert check(library, library[name]) == []


def test_what_is_known_is_the_start(tmp_path):
    library = small_library(tmp_path)
    improve(library, library["a-layer"], time_limit=20)
    best = library["a-layer"].known
    found = improve(library, library["a-layer"], solver="wanda", certify=False)
    assert found.after.value == best.value
    assert found.after.bound == best.bound
    library.mask_path("a-layer").unlink()
    improve(library, library["a-layer"], time_limit=20, certify=False)
    assert check(library, library["a-layer"]) == []


def test_a_search_overwrites_nothing_that_was_found_meanwhile(tmp_path):
    library = small_library(tmp_path)
    item = library["a-layer"]  # what is known when a long search begins
    best = improve(Library(tmp_path), item, time_limit=20).after
    found = improve(library, item, solver="magnitude", certify=False)
    assert found.after.value == best.value
    assert found.after.certificate == best.certificate is not None
    assert check(library, Library(tmp_path)["a-layer"]) == []
