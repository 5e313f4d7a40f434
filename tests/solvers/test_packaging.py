"""What an installation holds and says: types, and the wheels of optional solvers."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from solvers.peers.known import PEERS
from solvers.solve import registry

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

OUTSIDE = """
import cbs
import solvers

solution = solvers.solve(solvers.SubsetProblem([[1.0]], [[1.0]], solvers.Budget.per_row(1)))
reveal_type(solution.value)
reveal_type(solvers.curve)
reveal_type(cbs.prune)
reveal_type(cbs.methods())
solvers.solve("nonsense", time_limit="long")
"""


def test_the_hint_of_every_optional_solver_installs_what_its_extra_does():
    extras = PROJECT["project"]["optional-dependencies"]
    optional = {name: cls for name, cls in registry().items() if cls.wheel}
    assert {"scip", "gurobi", "highs", "cplex", "copt", "xpress"} <= set(optional)
    for name, cls in optional.items():
        assert extras[name.removesuffix("-plain")] == [cls.wheel]
        assert cls.install_hint() == f"pip install '{cls.wheel}'"
        assert cls.requires


def test_what_has_no_extra_needs_none():
    core = " ".join(PROJECT["project"]["dependencies"])
    without = [cls for cls in registry().values() if not cls.wheel and cls not in PEERS]
    assert {cls.install_hint() for cls in without} == {None}
    needed = {module for cls in without for module in cls.requires}
    assert [module for module in sorted(needed) if module.split(".")[0] not in core] == []


@pytest.mark.slow
def test_types_are_seen_from_outside(tmp_path):
    """Installed as a wheel would be, found through `py.typed` and through lazy exports."""
    site = tmp_path / "site"
    site.mkdir()
    for package in ("cbs", "solvers"):
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "outside.py").write_text(OUTSIDE)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "outside.py"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip
    text = done.stdout
    assert 'Revealed type is "float"' in text.replace("builtins.", "")
    assert "-> solvers.curve.Curve" in text
    assert "-> cbs.result.PruneResult" in text
    assert 'Argument "time_limit" to "solve" has incompatible type "str"' in text
    assert "missing library stubs" not in text


def test_wheels_hold_the_markers_of_types():
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    files = {file.distribution_path for file in builder.recurse_included_files()}
    assert {"cbs/py.typed", "solvers/py.typed", "solvers/solve.py"} <= files
    assert {f"solvers/peers/requirements/{peer.name}.txt" for peer in PEERS} <= files
