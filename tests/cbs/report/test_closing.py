"""What a run ends with can be followed as it is printed."""

import subprocess
import sys

import torch

import cbs
from cbs.cli import main
from cbs.report.closing import best, next_steps
from tests.cbs.networks import mlp, samples, seeded


def test_the_next_steps_run_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\ntorch.manual_seed(0)\n"
        "model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))\n"
        "data = (torch.randn(40, 6), torch.arange(40) % 3)\n"
    )
    argv = ["prune", "mine:model", "--data", "mine:data", "-s", "0.5", "-m", "magnitude,joint", "-o", "[out]"]
    argv += ["--scope", "row"]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "[out]: begin with table.md" in text
    assert "best by accuracy: " in text
    code = "\n".join(line[4:] for line in text.split("next, in Python:\n\n")[1].splitlines())
    script = f"from mine import model\n{code}\nprint(sum(int((p == 0).sum()) for p in model.parameters()))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    assert int(done.stdout) == 15 + 6  # three of every row of 6, two of every row of 5
    page = (tmp_path / "[out]" / "table.md").read_text()
    for word in ("| joint |", "model = mine:model", "True where pruned", "report.json", "load_file("):
        assert word in page


def test_the_smaller_network_is_made_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\ntorch.manual_seed(0)\n"
        "model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))\n"
        "data = (torch.randn(40, 6), torch.arange(40) % 3)\n"
    )
    argv = ["prune", "mine:model", "--data", "mine:data", "-s", "0.4", "-m", "magnitude,wanda", "-o", "out"]
    assert main([*argv, "--granularity", "neurons"]) == 0
    text = capsys.readouterr().out
    assert "40.0% of neurons" in text
    code = "\n".join(line[4:] for line in text.split("next, in Python:\n\n")[1].splitlines())
    check = (
        "print([list(p.shape) for p in small.parameters()])\n"
        "print((small(data[0]) - model(data[0])).abs().max().item() < 1e-6)"
    )
    script = f"from mine import data, model\n{code}\n{check}"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == "[[3, 6], [3], [3, 3], [3]]\nTrue\n"
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
