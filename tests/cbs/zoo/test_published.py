"""Networks of publications: weights from files."""

import numpy as np
import pytest
import torch

from cbs.zoo import ResNet20
from cbs.zoo.published import resnet20


def test_resnet20_has_the_published_size_and_takes_a_state_dict(tmp_path):
    model = ResNet20().eval()
    assert sum(p.numel() for name, p in model.named_parameters() if "downsample" not in name) == 269_722
    assert [model.get_submodule(name).weight[0].numel() for name in model.inner] == [144] * 7 + [288] * 6 + [
        576
    ] * 5
    np.savez(tmp_path / "net.npz", **{name: value.numpy() for name, value in model.state_dict().items()})
    again = resnet20(tmp_path / "net.npz")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), model(images))
    assert not again.training


def test_a_share_of_the_channels():
    thin = ResNet20(0.5)
    assert thin.layer3[0].conv1.weight.shape == (32, 16, 3, 3)


def test_files_of_other_networks_are_refused(tmp_path):
    state = {name: value.numpy() for name, value in ResNet20().state_dict().items()}
    np.savez(tmp_path / "net.npz", **(state | {"fc.weight": np.zeros((10, 3))}))
    with pytest.raises(ValueError, match=r"fc.weight has shape \[10, 3\], ResNet20 needs \[10, 64\]"):
        resnet20(tmp_path / "net.npz")
    del state["fc.bias"]
    np.savez(tmp_path / "net.npz", **state)
    with pytest.raises(ValueError, match=r"no array 'fc\.bias'"):
        resnet20(tmp_path / "net.npz")
    (tmp_path / "net.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="can't be read"):
        resnet20(tmp_path / "net.npz")
