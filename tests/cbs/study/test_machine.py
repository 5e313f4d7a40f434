import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cbs
import solvers
from cbs.study.machine import machine, revision, version


def test_versions_and_machines_are_told():
    assert version() == importlib.metadata.version("combinatorial-brain-surgeon")
    assert re.fullmatch(r".+, \d+ cores", machine())
    if Path("/proc/cpuinfo").exists() and "model name" in (told := Path("/proc/cpuinfo").read_text()):
        assert machine().partition(",")[0].split()[0] in told


def test_a_revision_changes_with_any_line_of_the_source(tmp_path):
    for package in (cbs, solvers):
        folder = Path(package.__file__).parent
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__"))

    def told():
        code = "from cbs.study.machine import revision; print(revision())"
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    assert told() == revision()
    with (tmp_path / "solvers" / "budget.py").open("a") as file:
        file.write("\n")
    assert told() != revision()
