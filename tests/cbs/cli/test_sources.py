"""Models and data by the file that they are in."""

import sys

import pytest
from torch import nn

from cbs.cli.sources import find_loss, gather_job

MODULE = """
import torch
from torch import nn
import beside

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 2))

def build():
    return Net()

ready = Net()
data = torch.ones(6, 4), torch.zeros(6, dtype=torch.long)
def loss(outputs, targets): return nn.functional.cross_entropy(outputs, targets) * beside.two
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "beside.py").write_text("two = 2")
    for name in ("sourced.py", "random.py", "two words.py"):
        (tmp_path / "lib" / name).write_text(MODULE)
    (tmp_path / "lib" / "broken_file.py").write_text("import torch\nraise RuntimeError('no luck\\nat all')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name in ("beside", "sourced", "file_random", "two words", "broken_file"):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["lib/sourced.py", "lib/random.py", "lib/two words.py"])
@pytest.mark.parametrize("what", ["build", "Net", "ready"])
def test_a_file_is_a_model_and_its_data(files, name, what):
    import random

    job = gather_job(f"{name}:{what}", None, f"{files / name}:data", None, None)
    assert isinstance(job.model, nn.Sequential)
    assert job.data[0].shape == (6, 4)
    assert random is sys.modules["random"]
    module = sys.modules[type(job.model).__module__]
    assert job.data is module.data  # one module, however the file is named
    assert find_loss(f"{name}:loss") is module.loss


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("lib/none.py:build", "there is no file 'lib/none.py'"),
        ("lib/sourced.py", "is a file; say what in it is the model, or makes it: lib/sourced.py:NAME"),
        ("lib/sourced.py:biuld", "has no 'biuld'; did you mean 'build'?"),
        ("lib/broken_file.py:build", "importing 'lib/broken_file.py' failed (RuntimeError: no luck)"),
        ("lib:build", "has no 'build'"),
    ],
)
def test_files_that_are_none(files, model, told):
    with pytest.raises(ValueError) as error:
        gather_job(model, None, "lib/sourced.py:data", None, None)
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert "broken_file" not in sys.modules
