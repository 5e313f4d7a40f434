"""Tests are found where their modules are: a folder a room, a file a module."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ACROSS = {
    "tests/cbs": {
        "certificates",
        "dtypes",
        "elimination",
        "malformed",
        "mlpnet",
        "regression",
        "resnet20",
        "surgeon",
        "text",
    },
    "tests/cbs/cli": {"certificates", "checkpoint", "errors", "lost_work", "tables"},
    "tests/solvers": {"conformance", "packaging", "values", "zero_optimum"},
    "tests/solvers/checker": {"assumptions", "malformed"},
    "tests/solvers/claims": {"claims"},
    "tests/solvers/exact/curves": {"checkpoint"},
    "tests/solvers/exact/tree": {"checkpoint"},
    "tests/solvers/foreign": {"licensed"},
    "tests/solvers/hessian": {"hessian"},
    "tests/solvers/runtime": {"forked"},
}
"""Tests of what several modules do together, by what that is."""


@pytest.mark.parametrize("package", ["cbs", "solvers"])
def test_every_test_has_its_module(package):
    for path in sorted((ROOT / "tests" / package).rglob("test_*.py")):
        folder, name = path.parent.relative_to(ROOT), path.stem.removeprefix("test_")
        module = ROOT / folder.relative_to("tests") / f"{name}.py"
        assert module.is_file() or name in ACROSS.get(folder.as_posix(), ()), path
