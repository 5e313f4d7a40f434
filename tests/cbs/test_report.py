import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from cbs import compare
from cbs.cli.output import plain
from cbs.report import COLUMNS, RunFolder, cells, draw, markdown, report, terminal, write


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


@pytest.fixture(scope="module")
def results():
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(40, 6, generator=generator)
    y = torch.randint(3, (40,), generator=generator)
    found = compare(
        network(), (X, y), sparsities=[0.75, 0.25], methods=["magnitude", "random"], test=(X[:20], y[:20]),
        scope="row", solver="magnitude", certify=False,
    )  # fmt: skip
    low = {result.asked: 0.5 * min(r.value for r in found if r.asked == result.asked) for result in found}
    return [dataclasses.replace(result, bound=low[result.asked]) for result in found]


def test_cells_are_the_result(results):
    result = results[0]
    line = dict(zip(COLUMNS, cells(result), strict=True))
    assert line["method"] == "magnitude"
    assert line["accuracy"] == f"{100 * result.test_after.accuracy:.2f}%"
    assert float(line["loss increase"]) == pytest.approx(result.loss_increase, abs=1e-4)
    assert line["certified gap"] == f"{100 * (1 - result.bound / result.value):.2f}%"
    assert float(line["sparsity"][:-1]) == pytest.approx(100 * result.sparsity, abs=0.1)


def test_cells_without_bound_accuracy_or_end(results):
    bare = dataclasses.replace(results[0], bound=None, status="interrupted", test_after=None)
    bare = dataclasses.replace(bare, after=dataclasses.replace(bare.after, accuracy=None))
    line = dict(zip(COLUMNS, cells(bare), strict=True))
    assert line["certified gap"] == "unknown (interrupted)"
    assert line["accuracy"] == "-"


def test_tables_have_a_line_a_result(results):
    lines = markdown(results).splitlines()
    assert lines[0] == "| " + " | ".join(COLUMNS) + " |"
    assert len(lines) == 2 + len(results)
    assert all(line.count("|") == len(COLUMNS) + 1 for line in lines)
    assert terminal(results).row_count == len(results) + 1  # an empty line between two sparsities


def test_weights_and_masks_come_back(results, tmp_path):
    write(tmp_path, results, plain(report(results, {})))
    names = {
        f"{m}-{s}{kind}.safetensors"
        for m in ("magnitude", "random")
        for s in (0.25, 0.75)
        for kind in ("", ".masks")
    }
    assert {path.name for path in tmp_path.iterdir()} == names | {"plot.png", "report.json"}
    X = torch.randn(7, 6, generator=torch.Generator().manual_seed(2))
    for result in results:
        stem = f"{result.method}-{result.asked}"
        again = network()
        again.load_state_dict(load_file(tmp_path / f"{stem}.safetensors"))
        assert torch.equal(again(X), result.model(X))
        masks = load_file(tmp_path / f"{stem}.masks.safetensors")
        assert set(masks) == {"0", "2"}
        for name, mask in masks.items():
            assert mask.dtype == torch.bool
            assert torch.equal(mask, result.masks[name])
            assert not again.get_submodule(name).weight[mask].any()


def test_report_is_json_with_every_row(results, tmp_path):
    facts = report(results, {"sparsities": [0.75, 0.25]})
    write(tmp_path, results, plain(facts))
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored == json.loads(json.dumps(plain(facts)))
    assert stored["settings"] == {"sparsities": [0.75, 0.25]}
    assert stored["environment"]["torch"] == torch.__version__
    assert stored["interrupted"] is False
    first = stored["results"][0]
    assert first["value"] == results[0].value
    assert first["loss_increase"] == results[0].loss_increase
    assert [len(layer["rows"]) for layer in first["layers"]] == [5, 3]


def test_plot_shows_the_figures_of_the_results(results):
    figure = draw(results)
    accuracy, loss, objective = figure.axes
    for axes, value in (
        (accuracy, lambda r: r.test_after.accuracy),
        (loss, lambda r: r.loss_increase),
        (objective, lambda r: r.value),
    ):
        lines = {line.get_label(): line for line in axes.lines}
        for method in ("magnitude", "random"):
            mine = sorted((r for r in results if r.method == method), key=lambda r: r.asked)
            assert np.array_equal(lines[method].get_ydata(), [value(r) for r in mine])
            assert np.array_equal(lines[method].get_xdata(), [r.asked for r in mine])
    bound = next(line for line in objective.lines if line.get_label() == "certified lower bound")
    lowest = {r.asked: r.bound for r in results}
    assert np.array_equal(bound.get_ydata(), [lowest[0.25], lowest[0.75]])
    assert objective.get_yscale() == "log"


def test_labels_do_not_overlap(results):
    many = [dataclasses.replace(r, method=f"{r.method} {i}") for r in results for i in range(6)]
    texts = draw(many).axes[2].texts
    heights = np.sort([text.xyann[1] for text in texts])
    assert len(texts) == 13
    assert np.diff(heights).min() > 0.05


def test_plot_of_one_result_without_bound_or_accuracy(results, tmp_path):
    bare = dataclasses.replace(results[0], bound=None, test_after=None, test_before=None)
    bare = dataclasses.replace(bare, after=dataclasses.replace(bare.after, accuracy=None))
    draw([bare]).savefig(tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_folder_appears_whole(tmp_path):
    path = tmp_path / "runs" / "a"
    with RunFolder(path) as hidden:
        (hidden / "report.json").write_text("{}")
        assert not path.exists()
    assert [p.name for p in path.iterdir()] == ["report.json"]
    assert [p.name for p in path.parent.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_folder_is_gone_after_an_exception(tmp_path, kind):
    def fail():
        with RunFolder(tmp_path / "runs" / "a") as hidden:
            (hidden / "half").write_text("")
            raise kind

    with pytest.raises(kind):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_folder_that_can_not_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for path, message in ((tmp_path / "file" / "a", "can't be written"), (tmp_path / "file", "exists")):
        with pytest.raises(ValueError, match=message) as caught, RunFolder(path):
            pytest.fail("entered")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="can't be written"), RunFolder(tmp_path / "new" / ("x" * 300)):
        pytest.fail("entered")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
