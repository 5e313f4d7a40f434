"""Functions that are parts of one another and entries for Python: they compute what Python does."""

import pickle

import numpy as np
import pytest
from numba import njit as numbas
from numba import typeof

from solvers.exact.tree.store import pop
from solvers.runtime.compiled import Part, everything, njit


@njit(cache=False)
def sorted_sum(x, power=2):
    if len(x) == 0:
        raise ValueError("nothing to sum")
    return (np.sort(x) ** power)[:3].sum()


@njit(cache=False)
def both(x, y):
    return sorted_sum(x) + sorted_sum(y, 3), len(x)


def test_parts_and_entries_compute_what_python_does(rng):
    x, y = rng.standard_normal(9), rng.standard_normal(7)
    value, length = both(x, y)
    want = sorted_sum.py_func(x) + sorted_sum.py_func(y, 3)
    np.testing.assert_allclose(value, want, rtol=1e-14)
    assert length == 9
    np.testing.assert_allclose(sorted_sum(x), sorted_sum.py_func(x), rtol=1e-14)
    np.testing.assert_allclose(numbas(lambda x: sorted_sum(x) + 1.0)(x), sorted_sum.py_func(x) + 1.0)
    with pytest.raises(ValueError, match="nothing to sum"):
        both(np.zeros(0), y)


def test_a_part_has_no_machine_code_and_is_linked_once(rng):
    both(rng.standard_normal(4), rng.standard_normal(4))
    libraries = [each.library for each in sorted_sum.part.overloads.values()]
    assert libraries
    assert all(isinstance(library, Part) for library in libraries)
    (entry,) = both.overloads.values()
    linked = everything(entry.library._linking_libraries)
    assert len(linked) == len(set(linked))
    assert set(libraries) & set(linked)
    defined = [f for f in entry.library._final_module.functions if not f.is_declaration]
    assert {f.linkage.name for f in defined if "sorted_sum" in f.name} <= {"private"}


def fill(x, y):
    x[:] = y
    return x.sum()


def test_a_slice_of_another_length_is_an_error_that_takes_no_strings_to_be_compiled():
    short, x, y = njit(cache=False)(fill), np.zeros(3), np.arange(3.0)
    assert short(x, y) == 3.0
    with pytest.raises(ValueError, match=r"^cannot assign slice from input of different size$"):
        short(x, np.zeros(2))
    (entry,) = short.overloads.values()
    parts = [library.name for library in everything(entry.library._linking_libraries)]
    assert parts
    assert not [name for name in parts if "str" in name]
    with pytest.raises(ValueError, match=r"slice of shape \(3,\) from input of shape \(2,\)"):
        numbas(fill)(x, np.zeros(2))


def test_arrays_that_cannot_be_written_to_share_the_code_of_others(rng):
    x = rng.standard_normal(5)
    first = both(x, x)
    x.flags.writeable = False
    assert both(x, x) == first
    assert len(both.overloads) == 1


def test_kinds_that_two_threads_have_asked_for_at_once_are_not_asked_for_again(rng, monkeypatch):
    x = rng.standard_normal(5)
    both(x, x)
    x.flags.writeable = False
    kinds = (typeof(x), typeof(x[::2]))
    asked, compile_ = [], type(both).compile
    monkeypatch.setattr(
        type(both), "compile", lambda self, kinds: asked.append(kinds) or compile_(self, kinds)
    )
    for _ in range(2):  # as two threads do that both find no code
        both.compile(kinds)
    asked.clear()
    both(x, x[::2])
    assert not asked


def test_an_entry_is_pickled_by_name():
    assert pickle.loads(pickle.dumps(pop)) is pop
