"""Files of every format; models of others by HiGHS."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from solvers import Budget, solve
from solvers.instances import digest, export, random_problem, read_problem, read_programme, save, write_qplib

if find_spec("highspy") is None:  # imported here it would keep OR-Tools out of this process
    pytest.skip("HiGHS is not installed", allow_module_level=True)


def stripped(path, sign):
    lines = [line for line in path.read_text().splitlines() if not line.startswith(sign)]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("ending", "sign"), [("mps", "*"), ("lp", "\\"), ("qplib", "#")])
@pytest.mark.parametrize(
    "budget", [Budget.per_row(3), Budget.per_layer(7), Budget.n_of_m(1, 3)], ids=lambda b: b.kind
)
def test_selection_without_its_comments_is_the_same_problem(tmp_path, ending, sign, budget):
    problem = random_problem(2, 6, budget, seed=1, refit=False)
    path = tmp_path / f"m.{ending}"
    unit = write_qplib(path, problem) if ending == "qplib" else export(path, problem)
    stripped(path, sign)
    found = read_problem(path)
    assert (unit or 1.0) * solve(found).value == pytest.approx(solve(problem).value, rel=1e-6)


@pytest.mark.parametrize(("ending", "sign"), [("mps", "*"), ("lp", "\\")])
def test_a_joint_model_is_evaluated_but_no_selection_problem(tmp_path, ending, sign):
    problem = random_problem(2, 6, Budget.per_row(3), seed=1)
    path = tmp_path / f"m.{ending}"
    unit = export(path, problem)
    mask = solve(problem).mask
    programme = read_programme(path)
    assert programme.whole.sum() == 12
    variables = dict(zip(programme.names, np.arange(len(programme.c)), strict=True))
    x = np.zeros(len(programme.c))
    x[variables["constant"]] = 1.0
    scale = np.sqrt(unit * np.diag(np.linalg.inv(problem.hessian.dense(0))))
    for r, i in np.argwhere(~mask):
        x[variables[f"z_{r}_{i}"]] = 1.0
        x[variables[f"v_{r}_{i}"]] = problem.weights(mask)[r, i] / scale[i]
    assert unit * programme.objective(x) == pytest.approx(problem.value(mask), rel=1e-6)
    assert programme.violation(x) < 1e-9
    stripped(path, sign)
    with pytest.raises(ValueError, match="is no subset-selection problem: variable 'v_0_0' is not binary"):
        read_problem(path)


def test_instance_files_are_read_by_their_content(tmp_path):
    problem = random_problem(2, 6, Budget.per_row(3), seed=1)
    save(tmp_path / "p.npz", problem)
    assert digest(read_problem(tmp_path / "p.npz")) == digest(problem)


def test_what_can_not_be_read_is_told(tmp_path):
    (tmp_path / "x.mps").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="can't be read: it is not a text"):
        read_problem(tmp_path / "x.mps")
    with pytest.raises(ValueError, match="can't be read: No such file"):
        read_problem(tmp_path / "y.qplib")
    (tmp_path / "x.mps").write_text("no model\n")
    with pytest.raises(ValueError, match=r"can't be read by HiGHS|no subset-selection problem"):
        read_problem(tmp_path / "x.mps")
    with pytest.raises(ValueError, match=r"must end in \.mps, \.lp, \.qplib"):
        read_programme(tmp_path / "x.npz")


def test_a_file_without_a_model_is_told(tmp_path):
    (tmp_path / "x.lp").write_text("hello world\n")
    with pytest.raises(ValueError, match="has no variables"):
        read_programme(tmp_path / "x.lp")


def test_or_tools_can_be_imported_after_a_model_was_read(tmp_path):
    path = tmp_path / "m.mps"
    export(path, random_problem(1, 4, Budget.per_row(2), seed=0, refit=False))
    stripped(path, "*")
    code = (
        f"from solvers.instances import read_problem; print(read_problem({str(path)!r}).n)\n"
        "from ortools.sat.python import cp_model"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
