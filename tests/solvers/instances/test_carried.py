"""Instances inside model files: bit for bit, and refused where the model was changed."""

import numpy as np
import pytest

from solvers import Budget
from solvers.instances import digest, export, random_problem, read_problem, write_qplib


@pytest.mark.parametrize("ending", ["mps", "lp", "qplib"])
@pytest.mark.parametrize("refit", [True, False], ids=["joint", "selection"])
def test_models_read_back_bit_for_bit(rng, tmp_path, ending, refit):
    problem = random_problem(2, 6, Budget.n_of_m(1, 3), seed=3, refit=refit, per_row=True)
    path = tmp_path / f"m.{ending}"
    (write_qplib if ending == "qplib" else export)(path, problem)
    again = read_problem(path)
    assert digest(again) == digest(problem)
    assert np.array_equal(again.W, problem.W)
    assert again.budget == problem.budget
    assert path.read_bytes() == _written_again(path, again, ending)


def _written_again(path, problem, ending):
    other = path.with_name(f"again.{ending}")
    (write_qplib if ending == "qplib" else export)(other, problem)
    return other.read_bytes()


@pytest.mark.parametrize("ending", ["mps", "lp", "qplib"])
def test_a_model_that_was_changed_is_refused(tmp_path, ending):
    problem = random_problem(1, 4, Budget.per_row(2), seed=0, refit=False)
    path = tmp_path / f"m.{ending}"
    (write_qplib if ending == "qplib" else export)(path, problem)
    text = path.read_text()
    place = text.index("x_0_1") if ending != "qplib" else text.index("1 1 ")
    path.write_text(text[:place] + text[place:].replace("1", "2", 1))
    with pytest.raises(ValueError, match="was changed after it was written"):
        read_problem(path)


def test_damaged_comments_are_refused(tmp_path):
    problem = random_problem(1, 4, Budget.per_row(2), seed=0)
    path = tmp_path / "m.mps"
    export(path, problem)
    lines = path.read_text().splitlines()
    for change in ("* not base64 at all!", "* AAAA"):
        path.write_text("\n".join([*lines[:2], change, *lines[3:]]))
        with pytest.raises(ValueError, match="instance in its comments is damaged"):
            read_problem(path)
    path.write_text("\n".join([lines[0], "* cbs instance 1 x", *lines[2:]]))
    with pytest.raises(ValueError, match="instance in its comments is damaged"):
        read_problem(path)
