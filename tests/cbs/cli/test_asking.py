"""The help of `cbs prune`: a line for every field of `Request`, and all that is said of it on demand."""

import re

import pytest
import typer.main

from cbs.arguments import helps
from cbs.cli import main
from cbs.cli.app import app
from cbs.cli.asking import PANELS, SHORT, TYPED, panel, short


def test_the_whole_help_is_that_of_python(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["prune", "--help-all"]) == 0
    words = re.sub(r"[│╭╮╰╯─\s]+", "", capsys.readouterr().out)
    for name, text in helps().items():
        assert re.sub(r"[`\s]+", "", text)[1:].replace("*", "") in words.replace("*", ""), name


def test_every_field_has_a_line_and_a_panel(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["prune", "--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 150
    titles = re.findall(r"╭─ (.*?) ─", text)
    assert titles[:3] == ["Arguments", "Network and data", "What to prune"]
    for name in helps():
        assert f"--{TYPED.get(name, name).replace('_', '-')}" in text
        assert panel(name) in titles
        assert len(short(name)) < 80
    assert {name for names in PANELS.values() for name in names} - helps().keys() <= {
        "exclude",
        "max_loss_increase",
    }
    assert SHORT.keys() <= helps().keys()


def test_a_field_that_nobody_shortened_has_its_first_sentence(monkeypatch):
    monkeypatch.delitem(SHORT, "damping")
    assert short("damping") == f"A{helps()['damping'][1:].split('. ')[0].rstrip('.')}."


@pytest.mark.parametrize("name", ["sparsity", "method"])
def test_defaults_that_are_not_pythons_are_told(capsys, name):
    assert main(["prune", "--help"]) == 0
    assert {"sparsity": "0.5,0.75,0.9", "method": "without MODEL all"}[name] in capsys.readouterr().out


def test_no_two_options_are_typed_alike():
    for name, command in typer.main.get_command(app).commands.items():
        typed = [word for one in command.params for word in (*one.opts, *one.secondary_opts)]
        assert len(typed) == len(set(typed)), name
