"""Networks of publications, whose trained weights are in files: MLPNet and ResNet20."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cbs.data import first_line


class MLPNet(nn.Module):
    """The MLPNet of the CBS paper: 784-40-20-10, ReLU, no biases, 32,360 weights, all prunable."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 40, bias=False)
        self.fc2 = nn.Linear(40, 20, bias=False)
        self.fc3 = nn.Linear(20, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[N, 10]` of images `[N, 784]` or `[N, 1, 28, 28]`."""
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


def mlpnet(path: str | os.PathLike[str] | None = None) -> MLPNet:
    """The MLPNet, with the weights of an `.npz` file that holds `fc1`, `fc2` and `fc3` if one is given.

    Raises:
        ValueError: if the file can't be read or lacks one of them, or a shape or type is not the network's.
    """
    model = MLPNet()
    if path is None:
        return model
    arrays = read_arrays(path, [name for name, _ in model.named_children()])
    for name, layer in model.named_children():
        if name not in arrays:
            raise ValueError(f"{path}: no array {name!r}; MLPNet needs fc1, fc2 and fc3")
        W = arrays[name]
        assert isinstance(layer, nn.Linear)
        if W.shape != layer.weight.shape:
            raise ValueError(
                f"{path}: {name} has shape {list(W.shape)}, MLPNet needs {list(layer.weight.shape)}"
            )
        if W.dtype.kind != "f":
            raise ValueError(f"{path}: {name} holds {W.dtype}, MLPNet needs floating-point numbers")
        layer.weight.data.copy_(torch.from_numpy(W.astype(np.float32)))
    return model.eval()


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution where the image shrinks."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Sequential()
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Features `[N, channels, h / stride, w / stride]` of features `[N, before, h, w]`."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class ResNet20(nn.Module):
    """The residual network for CIFAR-10 with 16, 32 and 64 channels (He et al. 2016, section 4.2).

    Shortcuts are 1 x 1 convolutions where a stage begins.

    Args:
        kept: the share of every stage's channels that there are, above 0 and at most 1.
    """

    def __init__(self, kept: float = 1.0) -> None:
        super().__init__()
        a, b, c = (int(kept * channels) for channels in (16, 32, 64))
        self.conv1, self.bn1 = nn.Conv2d(3, a, 3, 1, 1, bias=False), nn.BatchNorm2d(a)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(Block(before, now, stride), Block(now, now, 1), Block(now, now, 1))
            for before, now, stride in ((a, a, 1), (a, b, 2), (b, c, 2))
        )
        self.fc = nn.Linear(c, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[N, 10]` of images `[N, 3, 32, 32]`."""
        x = F.relu(self.bn1(self.conv1(x)))
        logits: Tensor = self.fc(self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3)))
        return logits

    @property
    def inner(self) -> list[str]:
        """Names of the 18 convolutions of 3 x 3 that the literature prunes: all but the first."""
        return [
            name
            for name, module in self.named_modules()
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and name != "conv1"
        ]


def resnet20(path: str | os.PathLike[str]) -> ResNet20:
    """ResNet20 with the weights of an `.npz` file that holds its state dict.

    Raises:
        ValueError: if the file can't be read or lacks one of them, or a shape is not the network's.
    """
    model = ResNet20()
    state = model.state_dict()
    arrays = read_arrays(path, list(state))
    for name, there in state.items():
        if name not in arrays:
            raise ValueError(f"{path}: no array {name!r}; it must hold ResNet20's state dict")
        if arrays[name].shape != there.shape:
            raise ValueError(
                f"{path}: {name} has shape {list(arrays[name].shape)}, ResNet20 needs {list(there.shape)}"
            )
    model.load_state_dict({name: torch.from_numpy(arrays[name]).to(state[name].dtype) for name in state})
    return model.eval()


def read_arrays(path: str | os.PathLike[str], names: list[str]) -> Mapping[str, NDArray[np.generic]]:
    """Those of the named arrays that an `.npz` file has.

    Raises:
        ValueError: if it can't be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in names if name in file}
    except Exception as error:  # NumPy and zipfile raise many classes for bytes that are no archive
        raise ValueError(f"{path} can't be read ({first_line(error)})") from None
