"""The cache of trained weights: taken as it is, and made again where it is damaged or of another recipe."""

import pytest
import torch
from torch import nn

from cbs.zoo.kept import cache_folder, kept


@pytest.fixture
def trained(tmp_path, monkeypatch):
    monkeypatch.setenv("CBS_CACHE", str(tmp_path))
    calls = []

    def fit(model):
        calls.append(1)
        torch.nn.init.constant_(model.weight, float(len(calls)))

    def run(recipe):
        model = nn.Linear(3, 2)
        kept("small", recipe, model, fit)
        return float(model.weight.detach()[0, 0]), len(calls)

    return run


def test_a_recipe_is_trained_once(trained):
    assert trained({"seed": 0}) == (1.0, 1)
    assert trained({"seed": 0}) == (1.0, 1)
    assert trained({"seed": 1}) == (2.0, 2)
    assert trained({"seed": 0}) == (1.0, 2)


@pytest.mark.parametrize("harm", ["cut", "flip", "other"])
def test_a_damaged_file_is_made_again(trained, harm):
    trained({"seed": 0})
    (path,) = (cache_folder() / "zoo").glob("*.safetensors")
    raw = bytearray(path.read_bytes())
    if harm == "cut":
        raw = raw[:-5]
    elif harm == "flip":
        raw[-2] ^= 0x40
    else:
        trained({"seed": 1})
        (other,) = set((cache_folder() / "zoo").glob("*.safetensors")) - {path}
        raw = other.read_bytes()
    before = trained({"seed": 2})[1]
    path.write_bytes(bytes(raw))
    assert trained({"seed": 0}) == (before + 1.0, before + 1)
    assert trained({"seed": 0}) == (before + 1.0, before + 1)


def test_a_cache_that_cannot_be_written_is_no_error(trained, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CBS_CACHE", str(tmp_path / "file"))
    assert trained({"seed": 0}) == (1.0, 1)
    assert trained({"seed": 0}) == (2.0, 2)
