import json
import os
import subprocess
import sys

import pytest

from cbs.cli.app import main

TEXT = """
name = "mine"
time_limits = [5]

[[instances]]
random = true
n = 6
count = 2
variants = ["joint", "selection"]

[[solvers]]
name = "brute-force"

[[solvers]]
name = "highs"

[[calls]]
function = "mine.py:sometimes"
grid = {number = [0, 1]}

[[tables]]
name = "values"
rows = "variant"
columns = "solver"
value = "value"
where = {kind = "solve"}
into = "README.md"
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(TEXT)
    (tmp_path / "mine.py").write_text(
        "def sometimes(number):\n"
        "    if number:\n        raise ValueError('not this one' + 99 * '!')\n"
        "    return {'value': 1.0}\n"
    )
    (tmp_path / "README.md").write_text("a\n<!-- values: begin -->\n<!-- values: end -->\nb\n")
    return tmp_path


def test_a_study_is_planned_run_shown_exported_and_retried(here, capsys):
    assert main(["study", "run", "mine.toml", "--plan"]) == 0
    assert not (here / "mine.sqlite").exists()
    told = capsys.readouterr().out
    assert "brute-force      4        4" in told
    assert "left out, 2 cells: solver 'highs' does not do the joint variant" in told
    assert main(["study", "run", "mine.toml", "--workers", "1"]) == 1
    out, err = capsys.readouterr()
    assert "8 of 8 cells done, 8 of them now, 1 failed: cbs study show mine.toml --failed" in out
    assert "8 of 8: " in err
    assert main(["study", "show", "mine.toml"]) == 0
    told = capsys.readouterr().out
    assert "sometimes          0        0     1       1" in told
    assert "1 failed: not this one" in told
    assert main(["study", "show", "mine.toml", "--failed"]) == 0
    assert capsys.readouterr().out == f"number=1, sometimes: not this one{99 * '!'}\n"
    assert main(["study", "show", "mine.sqlite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"]["brute-force"] == {"done": 4}
    assert main(["study", "show", "mine.toml", "--write"]) == 0
    assert "| variant | brute-force | highs |" in (here / "README.md").read_text()
    written = (here / "README.md").read_text()
    assert main(["study", "export", "mine.toml", "-o", "mine.csv", "--arrays", "arrays"]) == 0
    assert "8 rows in mine.csv\narrays of 6 cells in arrays" in capsys.readouterr().out
    (here / "README.md").write_text("<!-- values: begin --><!-- values: end -->")
    assert main(["study", "show", "mine.toml", "--cells", "mine.csv", "--write"]) == 0
    assert (here / "README.md").read_text().strip() in written
    assert main(["study", "retry", "mine.toml", "--workers", "1"]) == 1
    assert "8 of 8 cells done, 1 of them now" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "none.toml"], "study 'none.toml' can't be read"),
        (["run", "mine.toml", "--store", "postgresql://127.0.0.1:9/x"], "can't be opened"),
        (["run", "mine.toml", "--executor", "dsk:tcp://h:1"], "dask"),
        (["run", "mine.toml", "--only", "nothing"], "meets no cell"),
        (["show", "mine.toml"], "is not there"),
        (["show", "none.sqlite"], "is not there"),
        (["show", "mine.toml", "--cells", "none.csv"], "can't be read"),
        (["export", "mine.toml", "-o", "x.csv"], "is not there"),
        (["run", "mine.toml", "--workers", "0"], "--workers"),
    ],
)
def test_bad_input_is_a_line_and_status_2(here, capsys, arguments, told):
    assert main(["study", *arguments]) == 2
    *progress, last = capsys.readouterr().err.splitlines()
    assert told in last
    assert last.startswith("cbs: ")
    assert progress in ([], ["instances: random True"])
    assert {path.name for path in here.iterdir()} <= {"mine.toml", "mine.py", "README.md", "__pycache__"}


def test_a_store_on_a_full_disk_ends_in_a_line(here):
    limited = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000))\n"
        "import cbs.study.driver as driver; driver.ROOM = 0.0\n"
        "from cbs.cli.app import main\n"
        "sys.exit(main(['study', 'run', 'mine.toml', '--workers', '1']))\n"
    )
    environment = {**os.environ, "NUMBA_DISABLE_CACHING": "1"}
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "cbs: store" in done.stderr.splitlines()[-1]
