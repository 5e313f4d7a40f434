"""What a shell offers while words are typed; options that many commands share."""

import pytest

import cbs
import solvers
from cbs.cli import main
from cbs.cli.app import COMPLETE
from cbs.cli.options import listed


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("cbs pru", {"prune"}),
        ("cbs prune -m joint,ob", {f"joint,{name}" for name in cbs.methods() if name.startswith("ob")}),
        ("cbs solve layer.npz --solver b", {n for n in solvers.available() if n.startswith("b")}),
        ("cbs prune --scope ", {"row", "layer", "network"}),
        ("cbs prune dig", {"digits"}),
        ("cbs prune --no-c", {"--no-certify", "--no-color"}),
        ("cbs solve lay", set()),  # the shell offers files
        ("cbs sovle x", set()),
    ],
)
def test_completion(capfd, monkeypatch, typed, offered):
    monkeypatch.setenv(COMPLETE, "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(typed.count(" ")))
    assert main() == 0
    out, err = capfd.readouterr()
    assert set(out.split()) == offered
    assert err == ""


def test_lists_are_repeated_or_have_commas():
    assert listed("layers", ["a,b", " c ", "a,"]) == ["a", "b", "c"]
    assert listed("layers", None) == []
    with pytest.raises(ValueError, match=r"layers names nothing, got ', ,'; leave it out for the default"):
        listed("layers", [", ,"])
