"""What a run ends with can be followed as it is printed."""

import sys
import warnings

import pytest
import torch

import cbs
from cbs.cli import main
from cbs.report.closing import best, next_steps
from tests.cbs.networks import mlp, samples, seeded

MODULE = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
data = (torch.randn(40, 6), torch.arange(40) % 3)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a user's module in it."""
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mine", None)


def followed(text):
    """What the printed lines leave behind, run in a network of one's own; a warning is an error."""
    code = "\n".join(line[4:] for line in text.split("next, in Python:\n\n")[1].splitlines())
    mine = {}
    exec(MODULE, mine)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(code, mine)
    return mine


def test_the_next_steps_run_as_printed(here, capsys):
    argv = ["prune", "mine:model", "--data", "mine:data", "-s", "0.5", "-m", "magnitude,joint", "-o", "[out]"]
    argv += ["--scope", "row"]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "[out]: begin with report.html" in text
    assert "best by accuracy: " in text
    mine = followed(text)
    zeros = sum(int((p == 0).sum()) for p in mine["model"].parameters())
    assert zeros == 15 + 6  # three of every row of 6, two of every row of 5
    mine["model"](mine["data"][0]).sum().backward()
    mine["optimizer"].step()
    assert sum(int((p == 0).sum()) for p in mine["model"].parameters()) == zeros
    page = (here / "[out]" / "table.md").read_text()
    for word in ("| joint |", "model = mine:model", "True where pruned", "report.json", "load_file("):
        assert word in page


def test_the_smaller_network_is_made_as_printed(here, capsys):
    argv = ["prune", "mine:model", "--data", "mine:data", "-s", "0.4", "-m", "magnitude,wanda", "-o", "out"]
    assert main([*argv, "--granularity", "neurons"]) == 0
    text = capsys.readouterr().out
    assert "40.0% of neurons" in text
    mine = followed(text)
    assert [list(p.shape) for p in mine["small"].parameters()] == [[3, 6], [3], [3, 3], [3]]
    x = mine["data"][0]
    torch.testing.assert_close(mine["small"](x), mine["model"](x))
    assert main([*argv, "--granularity", "neurons", "--resume"]) == 0


def test_the_best_of_each_sparsity_is_named(tmp_path):
    results = cbs.compare(
        seeded(mlp), samples(), sparsities=[0.25, 0.5], methods=["random", "joint"], test=samples(20, seed=1)
    )
    winners = best(results)
    assert [result.asked for result in winners] == [0.25, 0.5]
    for winner in winners:
        rivals = [result for result in results if result.asked == winner.asked]
        assert winner.test_after.accuracy == max(result.test_after.accuracy for result in rivals)
        assert f"{winner.method} at {100 * winner.sparsity:.1f}%" in next_steps(results, tmp_path)
    assert torch.is_tensor(next(iter(winners[0].masks.values())))
