import json

import pytest
import torch

import cbs
from cbs.report import RunFolder
from cbs.report.page import compose, read


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with two methods at two sparsities, as `cbs prune` leaves it."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(40, 6, generator=generator), torch.randint(3, (40,), generator=generator)
    results = cbs.compare(model, data, sparsities=[0.25, 0.75], methods=["magnitude", "obc"], scope="row")
    path = tmp_path_factory.mktemp("runs") / "run"
    with RunFolder(path, {"model": "net.py:build", "scope": "row", "stages": 1}) as folder:
        for result in results:
            folder.keep(result)
        folder.conclude(results)
        folder.finish()
    return path, results


def test_results_are_cells(run):
    path, results = run
    with read(path) as source:
        cells = source.frame
        for (_, cell), result in zip(cells.iterrows(), results, strict=True):
            assert (cell["solver"], cell["sparsity"]) == (result.method, result.asked)
            assert cell["accuracy"] == result.after.accuracy
            assert (cell["value"], cell["bound"], cell["gap"]) == (result.value, result.bound, result.gap)
        masks = source.arrays(cells["key"][3])
        assert {name: mask.tolist() for name, mask in masks.items()} == {
            f"mask:{name}": mask.tolist() for name, mask in results[3].masks.items()
        }
        report = compose(source.frame, source.arrays, title=source.title, facts=source.facts)
    assert report.title == "Pruned: net.py:build"
    names = {figure.name.rsplit("-", 1)[0] for figure in report.figures}
    assert {"accuracy-net-py", "layers-gap-net-py", "masks"} <= names | {
        figure.name for figure in report.figures
    }
    best = max((r for r in results if r.asked == 0.75), key=lambda r: (r.after.accuracy, -r.after.loss))
    (accuracy,) = [f for f in report.figures if f.name.startswith("accuracy")]
    assert f"{best.method} keeps {100 * best.after.accuracy:.2f}% at 75.0%" in accuracy.finding
    assert f"dense network has {100 * best.before.accuracy:.2f}%" in accuracy.finding


def test_the_folder_has_its_page(run):
    page = (run[0] / "report.html").read_text()
    assert "Pruned: net.py:build" in page
    assert "<dt>scope</dt><dd>row</dd>" in page
    assert "report.html" in (run[0] / "table.md").read_text()


def test_damaged_folders_are_refused(run, tmp_path):
    report = json.loads((run[0] / "report.json").read_text())
    for change, told in (
        ({"results": []}, "has no results yet"),
        ({"results": [{"method": "x"}]}, "is damaged"),
        ({"layout": 99}, "another version wrote it"),
    ):
        (tmp_path / "report.json").write_text(json.dumps(report | change))
        with pytest.raises(ValueError, match=told), read(tmp_path):
            pass


def test_masks_that_are_gone_are_left_out(run, tmp_path):
    (tmp_path / "report.json").write_bytes((run[0] / "report.json").read_bytes())
    for method in ("obc", "magnitude"):
        (tmp_path / f"{method}-0.75.masks.safetensors").write_bytes(b"no")
    with read(tmp_path) as source:
        assert source.arrays("obc-0.25") == {}
        with pytest.raises(ValueError, match="can't be read"):
            source.arrays("obc-0.75")
        (told,) = compose(source.frame, source.arrays).summary.warnings
        assert told.startswith("The arrays of 1 cell can't be read")
