import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cbs.cli.files import is_file, read_data
from cbs.data import gather

X, IDS, Y = np.arange(12.0).reshape(6, 2), np.arange(18).reshape(6, 3), np.arange(6)


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".safetensors"])
def test_arrays_are_arguments_by_name_and_targets(suffix, tmp_path):
    path = tmp_path / f"data{suffix}"
    arrays = {"input_ids": IDS, "scale": X, "labels": Y}
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
        save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    assert is_file(str(path))
    samples = gather(read_data("data", str(path)))
    given = samples.inputs.given()
    assert {*given} == {"input_ids", "scale"}
    assert given["input_ids"].tolist() == IDS.tolist()
    assert samples.targets.tolist() == Y.tolist()


@pytest.mark.parametrize("name", ["x", "X", "inputs"])
def test_a_single_input_is_given_by_position(name, tmp_path):
    np.savez(tmp_path / "d.npz", **{name: X, "y": Y})
    samples = gather(read_data("data", str(tmp_path / "d.npz")))
    assert samples.inputs.tolist() == X.tolist()
    assert samples.targets.tolist() == Y.tolist()
    np.savez(tmp_path / "d.npz", **{name: X})
    assert not gather(read_data("data", str(tmp_path / "d.npz"))).labelled


def test_a_tensor_or_a_pair(tmp_path):
    torch.save((torch.from_numpy(X), torch.from_numpy(Y)), tmp_path / "d.pt")
    assert gather(read_data("data", str(tmp_path / "d.pt"))).targets.tolist() == Y.tolist()
    np.save(tmp_path / "d.npy", X)
    assert gather(read_data("data", str(tmp_path / "d.npy"))).inputs.tolist() == X.tolist()


def test_what_holds_no_data_is_refused_in_one_line(tmp_path):
    np.savez(tmp_path / "two.npz", x=X, y=Y, labels=Y)
    np.savez(tmp_path / "none.npz", y=Y)
    np.savez(tmp_path / "empty.npz")
    np.savez(tmp_path / "objects.npz", x=np.array([None, 1]))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "a.txt").write_text("a line")
    for name, message in {
        "two.npz": "has targets under 'y' and 'labels'", "none.npz": "holds no inputs, only 'y'",
        "empty.npz": "holds no arrays", "objects.npz": "can't be read", "model.pt": "more than tensors",
        "text.npz": "can't be read", "a.txt": "takes a model folder with a tokenizer",
        "nowhere.pt": "there is no such file",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=message) as error:
            read_data("data", str(tmp_path / name))
        assert "\n" not in str(error.value)
