"""What compiles ahead says where it keeps that, and refuses what it does not know."""

import json

from cbs.cli import main
from solvers.runtime.caches import folder_of_code

KIND = ["warm", "--solver", "greedy", "--kind", "joint,per_row"]


def test_what_is_ready_is_told(capsys):
    assert main([*KIND, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(folder_of_code())
    assert found["files"] >= 1
    assert found["bytes"] > 1000
    assert found["deleted"] == 0
    assert main(KIND) == 0
    told = capsys.readouterr()
    assert "1 of 1, " in told.err
    assert "greedy joint per_row" in told.err
    assert told.out.startswith("0 compiled, 0 deleted: ")


def test_what_is_unknown_is_refused(capsys):
    assert main(["warm", "--kind", "wide"]) == 2
    assert "kind 'wide'" in capsys.readouterr().err
    assert main(["warm", "--solver", "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err


def test_a_folder_that_keeps_nothing_is_a_fault(capsys, monkeypatch):
    monkeypatch.setattr("solvers.runtime.warming.kept", dict)
    assert main(KIND) == 2
    assert "set NUMBA_CACHE_DIR" in capsys.readouterr().err
