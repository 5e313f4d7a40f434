import json

import pytest

from cbs.cli import main
from solvers import Budget
from solvers.instances import random_problem, save
from solvers.peers.known import PEERS
from tests.solvers.peers import standins


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("CBS_PEERS", str(tmp_path / "peers"))
    return tmp_path / "peers"


def test_peers_are_listed_with_what_installs_them(here, capsys):
    standins.make(here, "okridge")
    assert main(["peers", "list"]) == 0
    text = capsys.readouterr().out
    for peer in PEERS:
        assert peer.name in text
    assert "9.9" in text
    assert "cbs peers install abess" in text
    assert "l0learn" in text
    assert main(["peers", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [name for name, facts in found["peers"].items() if facts["installed"]] == ["okridge"]
    assert found["peers"]["okridge"]["folder"] == str(here / "okridge")


def test_what_is_there_is_not_made_again_and_can_be_deleted(here, capsys):
    standins.make(here, "okridge")
    assert main(["peers", "install", "okridge", "okridge"]) == 0
    assert capsys.readouterr().err == "okridge: 9.9 is there\n"
    assert main(["peers", "remove", "okridge"]) == 0
    assert not (here / "okridge").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("okrige", "unknown peer 'okrige'; did you mean 'okridge'?"),
        ("zebra", "unknown peer 'zebra'; known: okridge, l0bnb, el0ps, abess"),
        ("l0learn", "peer 'l0learn' can't be installed: its wheels end with Python 3.10"),
    ],
)
def test_names_that_are_none_are_refused_before_any_work(here, capsys, name, told):
    assert main(["peers", "install", "abess", name]) == 2
    captured = capsys.readouterr()
    assert told in captured.err
    assert captured.err.count("\n") == 1
    assert not here.exists()
    assert main(["peers", "remove", name]) == 2


def test_a_peer_that_fails_is_one_line_and_no_traceback(here, capsys, tmp_path):
    standins.make(here, "abess").write_text("raise")
    save(tmp_path / "row.npz", random_problem(1, 8, Budget.per_row(5), seed=0))
    assert main(["solve", str(tmp_path / "row.npz"), "--solver", "abess"]) == 2
    told = "cbs: abess failed: RuntimeError: no luck at all; make it anew by: cbs peers install --again abess"
    assert capsys.readouterr().err.splitlines()[-1] == told
