import json
import zipfile

import pytest

from solvers.peers import environment
from solvers.peers.environment import folder, install, interpreter, outdated, remove, requirements, state
from solvers.peers.known import PEERS
from tests.solvers.peers import standins


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("CBS_PEERS", str(tmp_path / "peers"))
    return tmp_path / "peers"


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A pip that finds only what is in a folder."""
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return links


def wheel(links, name, version, code):
    """A wheel as pip takes it."""
    with zipfile.ZipFile(links / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", code)
        info = f"{name}-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def test_every_requirement_is_exact_and_names_no_index():
    for peer in PEERS:
        lines = requirements(peer.name).read_text().split()
        assert all(line.count("==") == 1 and "/" not in line for line in lines)
        assert any(line.startswith(f"{peer.name}==") for line in lines)


def test_the_folder_is_the_one_named_or_in_the_cache(here, monkeypatch):
    assert folder() == here
    monkeypatch.delenv("CBS_PEERS")
    assert folder().parts[-2:] == ("combinatorial-brain-surgeon", "peers")


def test_an_environment_of_other_requirements_is_outdated(here, monkeypatch):
    assert state("abess") is None
    assert not outdated("abess")
    standins.make(here, "abess")
    assert state("abess")["version"] == "9.9"
    assert install("abess") == interpreter("abess")  # which finds it there
    monkeypatch.setattr(environment, "_digest", lambda name: "other")
    assert state("abess") is None
    assert outdated("abess")
    assert remove("abess")
    assert not remove("abess")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("damage", ["{", "[]", '{"version": "1"}', None])
def test_a_damaged_environment_is_none(here, damage):
    standins.make(here, "abess")
    mark = here / "abess" / environment.MARK
    facts = json.loads(mark.read_text())
    if damage is None:
        for lost in ({"version": None}, {"python": 3}):
            mark.write_text(json.dumps(facts | lost))
            assert state("abess") is None
        mark.write_text(json.dumps(facts))
        assert state("abess") is not None
        interpreter("abess").unlink()
    else:
        mark.write_text(damage)
    assert state("abess") is None


@pytest.mark.slow
def test_a_failed_installation_leaves_nothing_and_says_what_failed(here, offline):
    with pytest.raises(
        ValueError, match=r"^peer 'abess' is not installed: pip failed: [^\n]*abess==0"
    ) as told:
        install("abess")
    assert "\n" not in str(told.value)
    assert list(here.iterdir()) == []


def test_a_folder_that_can_not_be_made_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CBS_PEERS", str(tmp_path / "file" / "peers"))
    with pytest.raises(ValueError, match=r"can't be installed in .*file/peers: .*; name another folder by"):
        install("abess")


@pytest.mark.slow
def test_an_installation_is_tried_before_it_counts_and_replaces_an_old_one(
    here, offline, monkeypatch, tmp_path
):
    pinned = tmp_path / "abess.txt"
    pinned.write_text("abess==1.0\n")
    monkeypatch.setattr(environment, "requirements", lambda name: pinned)
    wheel(offline, "abess", "1.0", "import numpy")
    with pytest.raises(ValueError, match=r"it was installed, but does not run: .*numpy"):
        install("abess")  # there is no NumPy for it
    assert list(here.iterdir()) == []
    told = []
    wheel(offline, "numpy", "1.0", "raise SystemExit('0')")
    monkeypatch.setattr(environment, "SCRIPT", tmp_path / "script.py")
    (tmp_path / "script.py").write_text('print("{\\"version\\": \\"1.0\\", \\"python\\": \\"3\\"}")')
    assert install("abess", tell=told.append) == interpreter("abess")
    assert state("abess")["version"] == "1.0"
    assert told[-1] == "abess: 1.0 is ready"
    assert [each.name for each in here.iterdir()] == ["abess"]
    (here / "abess" / "old").touch()
    install("abess", again=True)
    assert not (here / "abess" / "old").exists()
    assert [each.name for each in here.iterdir()] == ["abess"]


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_peers_install_from_the_index(here, peer):
    try:
        install(peer.name)
    except ValueError as error:
        if "No matching distribution" in str(error) or "pip failed" in str(error):
            pytest.skip(f"no index to install from, or nothing for this interpreter: {error}")
        raise
    assert state(peer.name)["version"]
    assert peer.installed()
