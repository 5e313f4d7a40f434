"""Every command says as much as is wanted, and no more."""

import logging
import re
import sys

import pytest

from cbs.cli import main
from cbs.cli.app import command_names
from cbs.cli.tone import PACKAGES
from solvers import Budget
from solvers.instances import random_problem, save
from tests.cbs.cli.test_configuration import MODULE


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "spoken.py").write_text(MODULE)
    save(tmp_path / "layer.npz", random_problem(2, 8, Budget.per_row(4), seed=0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("spoken", None)


PRUNE = ("prune", "spoken:net", "--data", "spoken:data", "-m", "magnitude", "-s", "0.5")


def test_quiet_is_the_answer_alone(capsys, here):
    for argv in (("solve", "layer.npz"), (*PRUNE, "-o", "out")):
        assert main([*argv, "--quiet"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert len(out.splitlines()) == (8 if argv[0] == "solve" else 2)
    assert main(["solve", "none.npz", "-q"]) == 2
    assert "none.npz" in capsys.readouterr().err


def test_verbose_has_every_pass_and_search(capsys, here):
    levels = [logging.getLogger(name).level for name in PACKAGES]
    assert main([*PRUNE[:-4], "-m", "joint", "-s", "0.5", "--scope", "row", "-v", "-q"]) == 2
    assert capsys.readouterr().err == "cbs: --quiet and --verbose exclude one another; give one of them\n"
    assert main([*PRUNE[:-4], "-m", "joint", "-s", "0.5", "--scope", "row", "-o", "out", "--verbose"]) == 0
    told = capsys.readouterr().err.splitlines()
    lines = [line for line in told if re.match(r" *[0-9.]+ s   (cbs|solvers.*): ", line)]
    assert any("cbs: computing Gram" in line for line in lines)
    for layer in ("0", "2"):
        at = max(  # after it was told once more if code had to be compiled
            i for i, line in enumerate(lines) if line.endswith(f"cbs: joint at 50%: select layer {layer}")
        )
        assert "solvers.solve: auto begins on SubsetProblem" in lines[at + 1]
        assert "bound" in lines[at + 2]
    assert [logging.getLogger(name).level for name in PACKAGES] == levels
    assert main([*PRUNE, "-o", "again"]) == 0
    assert " s   cbs" not in capsys.readouterr().err


@pytest.mark.parametrize("argv", [("--no-color",), ()])
def test_colours_are_off_where_they_are_not_wanted(capsys, here, monkeypatch, argv):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for command in (("solvers",), (*PRUNE, "-o", "out")):
        assert main([*command, *argv]) == 0
        coloured = any(f"\x1b[3{n}m" in "".join(capsys.readouterr()) for n in range(8))
        assert not coloured or not argv
    assert "NO_COLOR" not in __import__("os").environ


def test_every_command_takes_them(capsys):
    for name in command_names():
        assert main([*name.split(), "-h"]) == 0
        text = capsys.readouterr().out
        for option in ("--config", "--quiet", "--verbose", "--no-color"):
            assert option in text
