"""Libraries by a recipe: made once, gone on with, and never overwritten by other numbers."""

import json
from pathlib import Path

import pytest

from cbs.instances import make, read_recipe
from cbs.instances.recipe import Part, Recipe
from solvers.instances import Library
from solvers.instances.evidence import check
from solvers.instances.item import Known

SETTINGS = {
    "layers": None, "rows": 1, "variants": ["joint"], "sparsities": [0.5], "budgets": ["per_row", "network"],
    "damping": 1e-2, "seed": 0, "samples": 100, "layer_rows": None,
}  # fmt: skip
RECIPE = Recipe("test", (Part("wine", SETTINGS),))


def test_a_library_is_made_and_gone_on_with(tmp_path):
    steps = []
    done = make(RECIPE, tmp_path / "lib", callback=steps.append)
    assert len(done.instances) == 4
    assert [step.layer for step in steps] == ["0", "2", "4"]
    library = Library(tmp_path / "lib")
    assert all(item.intact() for item in library)
    library.record(
        "wine-0-r10-joint-row-50" if "wine-0-r10-joint-row-50" in library else done.instances[0], Known(3.0)
    )
    before = (tmp_path / "lib" / "index.json").read_bytes()
    again = make(RECIPE, tmp_path / "lib", callback=steps.append)
    assert (again.instances, sorted(again.kept)) == ([], sorted(done.instances))
    assert len(steps) == 3
    assert (tmp_path / "lib" / "index.json").read_bytes() == before
    library.data_path("wine-2").unlink()
    again = make(RECIPE, tmp_path / "lib")
    assert again.data == ["wine-2"]
    assert json.loads(before) == Library(tmp_path / "lib").index
    assert all(item.intact() for item in Library(tmp_path / "lib"))


def test_what_ends_the_work_keeps_what_is_done(tmp_path):
    def stop(step):
        if step.layer == "2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(RECIPE, tmp_path / "lib", callback=stop)
    assert len(Library(tmp_path / "lib")) == 2
    done = make(RECIPE, tmp_path / "lib")
    assert (len(done.instances), len(done.kept), done.data) == (2, 2, ["wine-4"])
    assert len(Library(tmp_path / "lib")) == 4


def test_other_numbers_are_told_and_not_written(tmp_path):
    make(RECIPE, tmp_path / "lib")
    other = Recipe("test", (Part("wine", SETTINGS | {"samples": 50}),))
    before = (tmp_path / "lib" / "data" / "wine-0.npz").read_bytes()
    done = make(other, tmp_path / "lib")
    assert done.differing == ["wine-0", "wine-2", "wine-4"]
    assert done.instances == []
    assert (tmp_path / "lib" / "data" / "wine-0.npz").read_bytes() == before


def test_another_damping_or_seed_has_other_names(tmp_path):
    make(RECIPE, tmp_path / "lib")
    done = make(Recipe("test", (Part("wine", SETTINGS | {"damping": 0.1}),)), tmp_path / "lib")
    assert len(done.instances) == 4
    assert "wine-d0.1-s0-joint-network-50" in done.instances
    assert any(name.startswith("wine-4-d0.1-s0-r") for name in done.instances)


def test_folders_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="can't be made"):
        make(read_recipe("digits"), tmp_path / "file" / "lib")


def repository():
    """The instances of this repository's library whose data is in it."""
    library = Library(Path(__file__).parents[3] / "instances")
    names = [name for name, entry in library.index["instances"].items()
             if all(library.data_path(data).is_file() for data in entry["data"])]  # fmt: skip
    return library, names


def test_some_of_the_repository_s_library_hold():
    library, names = repository()
    assert len(names) > 500
    for name in names[::40]:
        assert check(library, library[name], proofs=False) == []


@pytest.mark.slow
def test_all_of_the_repository_s_library_hold():
    library, names = repository()
    wrong = {name: found for name in names if (found := check(library, library[name]))}
    assert wrong == {}
    assert {Path(item.certificate).name for item in library if item.certificate} == {
        path.name for path in (library.folder / "certificates").iterdir()
    }
