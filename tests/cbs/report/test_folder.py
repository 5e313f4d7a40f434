import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from safetensors.torch import load_file
from torch import nn

from cbs import Samples, compare, prune
from cbs.cli.output import plain
from cbs.methods import get_method
from cbs.report import (
    COLUMNS,
    RunFolder,
    cells,
    draw,
    identity,
    markdown,
    read_report,
    report,
    terminal,
)


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
    return [changed(result, bound=low[result.asked]) for result in found]


@pytest.fixture(scope="module")
def removed():
    """A pruning of neurons."""
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(40, 6, generator=generator), torch.randint(3, (40,), generator=generator)
    return prune(
        network(), data, sparsity=0.4, method="magnitude", granularity="neurons", test=data, certify=False
    )


def changed(result, **changes):
    """A result of which fields of its parts, or of its request, are others."""
    for part in ("request", "measured", "certified"):
        old = getattr(result, part)
        names = {field.name for field in dataclasses.fields(old)} & changes.keys()
        new = dataclasses.replace(old, **{name: changes.pop(name) for name in names})
        result = dataclasses.replace(result, **{part: new})
    assert not changes
    return result


def test_cells_are_the_result(results):
    result = results[0]
    line = dict(zip(COLUMNS, cells(result), strict=True))
    assert line["method"] == "magnitude"
    assert line["accuracy"] == f"{100 * result.test_after.accuracy:.2f}%"
    assert float(line["loss increase"]) == pytest.approx(result.loss_increase, abs=1e-4)
    assert line["certified gap"] == f"{100 * (1 - result.bound / result.value):.2f}%"
    assert float(line["sparsity"][:-1]) == pytest.approx(100 * result.sparsity, abs=0.1)


def test_cells_without_bound_accuracy_or_end(results):
    bare = changed(results[0], bound=None, status="interrupted", test_after=None)
    bare = changed(bare, after=dataclasses.replace(bare.after, accuracy=None))
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
    fill(tmp_path / "a", results)
    tmp_path /= "a"
    names = {
        f"{m}-{s}{kind}.safetensors"
        for m in ("magnitude", "random")
        for s in (0.25, 0.75)
        for kind in ("", ".masks")
    }
    assert {path.name for path in tmp_path.iterdir()} == names | {"report.json", "table.md"}
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
    fill(tmp_path / "a", results)
    stored = json.loads((tmp_path / "a" / "report.json").read_text())
    assert stored == json.loads(json.dumps(plain(report(results, SETTINGS | {"identity": SAME}))))
    assert stored["settings"]["sparsities"] == [0.75, 0.25]
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


def test_bounds_of_weights_and_of_neurons_are_told_apart(results, removed):
    bounded = changed(removed, bound=removed.value / 2)
    objective = draw([*results, bounded]).axes[2]
    lines = {line.get_label(): line for line in objective.lines}
    assert np.array_equal(lines["certified lower bound of neurons"].get_ydata(), [bounded.bound])
    assert len(lines["certified lower bound of weights"].get_ydata()) == 2
    assert "certified lower bound" not in lines


def test_removed_neurons_come_back_from_the_folder(removed, tmp_path):
    fill(tmp_path / "a", [removed])
    with RunFolder(tmp_path / "a", SETTINGS, resume=True) as run:
        (again,) = run.revive(network(), SAME)
    assert again.neurons == removed.neurons
    assert all(torch.equal(mask, removed.masks[name]) for name, mask in again.masks.items())
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    assert again.permanent()[0].weight.shape == (3, 6)
    torch.testing.assert_close(again.permanent()(x), removed.model(x))
    assert cells(again)[0] == "40.0% of neurons"


@pytest.mark.parametrize("times", [6, 15])
def test_labels_neither_overlap_nor_leave_the_figure(results, times):
    many = [changed(r, method=f"{r.method} {i}") for r in results for i in range(times)]
    figure = draw(many)
    texts = figure.axes[2].texts
    assert len(texts) == 2 * times + 1
    figure.draw_without_rendering()
    boxes = sorted((Text.get_window_extent(text) for text in texts), key=lambda box: box.y0)
    assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))
    assert boxes[0].y0 >= 0.0
    assert boxes[-1].y1 <= figure.bbox.y1


def test_plot_of_one_result_without_bound_or_accuracy(results, tmp_path):
    bare = changed(results[0], bound=None, test_after=None, test_before=None)
    bare = changed(bare, after=dataclasses.replace(bare.after, accuracy=None))
    draw([bare]).savefig(tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


SETTINGS = {"seed": 0, "sparsities": [0.75, 0.25], "output": "a", "weights": None}
SAME = {"model": "m", "calibration data": "c", "test data": None}


def fill(path, results, whole=True):
    with RunFolder(path, SETTINGS) as run:
        assert run.revive(network(), SAME) == []
        for result in results:
            run.keep(result)
        run.conclude(results, whole=whole)
        run.finish(plot=False)


def test_what_is_in_the_folder_at_any_time(results, tmp_path):
    path = tmp_path / "runs" / "a"
    with RunFolder(path, SETTINGS) as run:
        assert read_report(path)["results"] == []
        for count, result in enumerate(results, 1):
            run.keep(result)
            stored = read_report(path)
            assert stored["interrupted"] is True
            assert stored["results"] == [plain(r.to_dict()) for r in results[:count]]
            for ending in ("safetensors", "masks.safetensors"):
                assert (path / f"{result.method}-{result.asked}.{ending}").exists()
        before = {file: file.stat().st_mtime_ns for file in path.glob("*.safetensors")}
        bounded = changed(results[0], bound=0.0)
        run.keep(bounded)
        assert read_report(path)["results"][0] == plain(bounded.to_dict())
        assert {file: file.stat().st_mtime_ns for file in path.glob("*.safetensors")} == before
        facts = run.conclude(results)
        run.finish()
    assert facts == read_report(path)
    assert facts["interrupted"] is False
    assert (path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in path.parent.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_folder_is_gone_after_an_exception_without_result(tmp_path, kind):
    def fail():
        with RunFolder(tmp_path / "runs" / "a", SETTINGS):
            raise kind

    with pytest.raises(kind):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_folder_with_a_result_stays(results, tmp_path, kind):
    def fail():
        with RunFolder(tmp_path / "a", SETTINGS) as run:
            run.keep(results[0])
            raise kind

    with pytest.raises(kind):
        fail()
    assert len(read_report(tmp_path / "a")["results"]) == 1


def test_a_run_is_gone_on_with(results, tmp_path):
    fill(tmp_path / "a", results[:2], whole=False)
    with RunFolder(tmp_path / "a", SETTINGS | {"output": "elsewhere"}, resume=True) as run:
        found = run.revive(network(), SAME)
        assert [again.to_dict() for again in found] == [result.to_dict() for result in results[:2]]
        X = torch.randn(7, 6, generator=torch.Generator().manual_seed(2))
        for again, result in zip(found, results, strict=False):
            assert torch.equal(again.model(X), result.model(X))
            assert torch.equal(again.undo()(X), network()(X))
            for name, mask in result.masks.items():
                assert torch.equal(again.masks[name], mask)
        for result in results[2:]:
            run.keep(result)
        assert len(run.conclude(results)["results"]) == len(results)
        run.finish(plot=False)
    assert read_report(tmp_path / "a")["interrupted"] is False


def test_a_method_of_ones_own_is_in_the_report_in_words(tmp_path):
    mine = dataclasses.replace(get_method("magnitude"), name="mine", paper="a note")
    data = (torch.randn(40, 6, generator=torch.Generator().manual_seed(1)), torch.arange(40) % 3)
    (result,) = compare(network(), data, sparsities=[0.5], methods=[mine], certify=False)
    assert result.request.method == mine
    with RunFolder(tmp_path / "a", SETTINGS) as run:
        run.revive(network(), SAME)
        run.keep(result)
    record = read_report(tmp_path / "a")["results"][0]
    assert record["request"]["method"] == record["method"] == "mine"
    assert record["history"][0]["method"] == {name: str(text) for name, text in mine.describe().items()}
    with RunFolder(tmp_path / "a", SETTINGS, resume=True) as run:
        (again,) = run.revive(network(), SAME)
    assert again.to_dict() == result.to_dict()
    (taken,) = compare(network(), data, sparsities=[0.5], methods=[mine], certify=False, finished=[again])
    assert taken.request.method == mine
    assert taken.seconds == result.seconds
    assert torch.equal(taken.masks["0"], result.masks["0"])


def test_interrupted_results_and_those_without_files_are_computed_again(results, tmp_path):
    stopped = changed(results[0], status="interrupted")
    fill(tmp_path / "a", [stopped, *results[1:]])
    (tmp_path / "a" / f"{results[1].method}-{results[1].asked}.masks.safetensors").unlink()
    with RunFolder(tmp_path / "a", SETTINGS, resume=True) as run:
        found = run.revive(network(), SAME)
    assert [again.to_dict() for again in found] == [result.to_dict() for result in results[2:]]


def test_a_run_of_something_else_is_not_gone_on_with(results, tmp_path):
    fill(tmp_path / "a", results)
    before = (tmp_path / "a" / "report.json").read_bytes()
    with (
        pytest.raises(ValueError, match=r"is of a run with seed 0, not 1; give that"),
        RunFolder(tmp_path / "a", SETTINGS | {"seed": 1}, resume=True),
    ):
        pytest.fail("entered")
    for what in SAME:
        with (
            pytest.raises(ValueError, match=f"of a run with another {what}"),
            RunFolder(tmp_path / "a", SETTINGS, resume=True) as run,
        ):
            run.revive(network(), SAME | {what: "another"})
    assert (tmp_path / "a" / "report.json").read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "", lambda text: "[]", lambda text: "[" * 100_000, lambda text: text[: len(text) // 2],
        lambda text: text.replace('"layout": 4', '"layout": 1'),
        lambda text: text.replace('"layout": 4,', ""),
        lambda text: text.replace('"results": [', '"results": [3, '), lambda text: '{"settings": {}}',
    ],
)  # fmt: skip
def test_a_damaged_report_is_told_in_one_line(results, tmp_path, damage):
    fill(tmp_path / "a", results[:1])
    file = tmp_path / "a" / "report.json"
    file.write_text(damage(file.read_text()))
    with (
        pytest.raises(ValueError, match="is no run folder to go on with") as error,
        RunFolder(tmp_path / "a", SETTINGS, resume=True),
    ):
        pytest.fail("entered")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("ending", "damage"),
    [
        ("safetensors", lambda data: b""),
        ("safetensors", lambda data: data[: len(data) // 2]),
        ("masks.safetensors", lambda data: b"\xff" * 8 + data),
        ("masks.safetensors", lambda data: data.replace(b'"0"', b'"9"')),
        ("json", lambda data: data.replace(b'"value": ', b'"valve": ', 1)),
        ("json", lambda data: data.replace(b'"seconds": ', b'"seconds": "long", "old": ', 1)),
        ("json", lambda data: data.replace(b'"shape": [', b'"shape": "wide", "old": [', 1)),
    ],
)
def test_damaged_results_are_told_in_one_line(results, tmp_path, ending, damage):
    fill(tmp_path / "a", results[:1])
    result = results[0]
    name = "report.json" if ending == "json" else f"{result.method}-{result.asked}.{ending}"
    file = tmp_path / "a" / name
    damaged = damage(file.read_bytes())
    assert damaged != file.read_bytes()
    file.write_bytes(damaged)
    with (
        pytest.raises(ValueError, match="is damaged") as error,
        RunFolder(tmp_path / "a", SETTINGS, resume=True) as run,
    ):
        run.revive(network(), SAME)
    assert "\n" not in str(error.value)


def test_identity_tells_networks_and_data_apart():
    X, y = torch.randn(9, 6), torch.randint(3, (9,))
    same = identity(network(), Samples(X, y), None)
    order = torch.randperm(9)
    assert identity(network(), Samples(X[order], y[order]), None) == same
    half = network().bfloat16()
    for other in (
        identity(nn.Sequential(*network()[:2]), Samples(X, y), None),
        identity(half, Samples(X, y), None),
        identity(network(), Samples(X.bfloat16(), y), None),
        identity(network(), Samples(X[order], y), None),
        identity(network(), Samples(X, y), Samples(X, y)),
        identity(network(), Samples(X[:8], y[:8]), None),
    ):
        assert sum(other[what] != same[what] for what in same) == 1


def test_folder_that_can_not_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for path, message in ((tmp_path / "file" / "a", "can't be written"), (tmp_path / "file", "exists")):
        with pytest.raises(ValueError, match=message) as caught, RunFolder(path, {}):
            pytest.fail("entered")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="can't be written"), RunFolder(tmp_path / "new" / ("x" * 300), {}):
        pytest.fail("entered")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
