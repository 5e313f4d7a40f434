import functools

import numpy as np
import pytest
import torch

from cbs.schedule.training import train
from cbs.zoo import mlpnet, trained_digits_mlp


def test_the_digits_network_is_trained_well_and_the_same_every_time():
    state = torch.get_rng_state()
    model, split = trained_digits_mlp()
    accuracy = (model(split.test.inputs).argmax(1) == split.test.targets).double().mean()
    assert accuracy > 0.96
    assert torch.equal(torch.get_rng_state(), state)
    assert [tuple(p.shape) for p in model.parameters()] == [(32, 64), (32,), (16, 32), (16,), (10, 16), (10,)]


def test_mlpnet_takes_its_weights_from_a_file(tmp_path, rng):
    arrays = {"fc1": (40, 784), "fc2": (20, 40), "fc3": (10, 20)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in arrays.items()}
    np.savez(tmp_path / "net.npz", **arrays)
    model = mlpnet(tmp_path / "net.npz")
    assert sum(p.numel() for p in model.parameters()) == 32_360
    images = torch.rand(2, 1, 28, 28)
    A, B, C = (torch.from_numpy(arrays[name]) for name in arrays)
    expected = torch.relu(torch.relu(images.flatten(1) @ A.T) @ B.T) @ C.T
    torch.testing.assert_close(model(images), expected)


def test_files_of_other_networks_are_refused(tmp_path):
    np.savez(tmp_path / "net.npz", fc1=np.zeros((40, 784)))
    with pytest.raises(ValueError, match="no array 'fc2'"):
        mlpnet(tmp_path / "net.npz")
    np.savez(tmp_path / "net.npz", fc1=np.zeros((4, 784)))
    with pytest.raises(ValueError, match=r"fc1 has shape \[4, 784\], MLPNet needs \[40, 784\]"):
        mlpnet(tmp_path / "net.npz")


def test_the_digits_network_does_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr("cbs.zoo.perceptrons.train", functools.partial(train, epochs=6))
    threads = torch.get_num_threads()
    weights = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            model, _ = trained_digits_mlp()
            weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    finally:
        torch.set_num_threads(threads)
    assert weights[0].dtype == torch.float32
    assert torch.equal(*weights)
