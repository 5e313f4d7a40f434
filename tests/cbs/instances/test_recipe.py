"""Recipes: files that say what a library holds."""

import pytest

from cbs.instances import read_recipe
from cbs.instances.recipe import recipe_names


def test_those_that_come_with_the_package():
    assert recipe_names() == ["digits", "standard"]
    digits = read_recipe("digits")
    assert [part.network for part in digits.parts] == ["digits", "wine"]
    assert digits.parts[0].settings["damping"] == 1e-2
    assert {part.network for part in read_recipe("standard").parts} > {
        "digits",
        "resnet20",
        "encoder",
        "mlpnet",
    }


def test_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[[networks]]\nnetwork = "wine"\nrows = [0, 2]\nbudgets = ["2:4"]\nseed = 3\n')
    recipe = read_recipe(path)
    assert recipe.name == "mine"
    assert recipe.parts[0].settings["rows"] == [0, 2]
    assert recipe.parts[0].settings["seed"] == 3
    assert tuple(recipe.parts[0].settings["sparsities"]) == (0.5, 0.75, 0.9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = [", "is not TOML"),
        ("name = 'a'", r"it needs at least one \[\[networks\]\]"),
        ("networks = 3", r"it needs at least one \[\[networks\]\]"),
        ("nam = 'a'\n[[networks]]\nnetwork = 'wine'", r"unknown key 'nam'; did you mean 'name'\?"),
        ("name = 3\n[[networks]]\nnetwork = 'wine'", "name must be a text"),
        ("[[networks]]\nnetwork = 'wines'", r"network 1: unknown network 'wines'; did you mean 'wine'\?"),
        ("[[networks]]\nnetwork = 'wine'\nrow = 3", r"network 1: unknown key 'row'; did you mean 'rows'\?"),
        ("[[networks]]\nnetwork = 'wine'\nrows = 'all'", "rows must be a number of rows, or list some"),
        ("[[networks]]\nnetwork = 'wine'\nbudgets = ['row']", "network 1: unknown budget 'row'"),
        ("[[networks]]\nnetwork = 'wine'\nlayers = 'all'", "network 1: layers must list names"),
        ("[[networks]]\nnetwork = 'wine'\nseed = -1", "network 1: seed must be a whole number"),
        ("[[networks]]\nnetwork = 'wine'\nsparsities = [2]", "network 1: sparsity must be a number between"),
    ],
)
def test_files_that_are_none(tmp_path, text, message):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_recipe(tmp_path / "r.toml")


def test_names_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"unknown recipe 'digit'; did you mean 'digits'\?"):
        read_recipe("digit")
    with pytest.raises(ValueError, match=r"can't be read \(No such file"):
        read_recipe(tmp_path / "none.toml")
