"""Small networks that come with the package."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbs.data import Split, digits, first_line
from cbs.schedule.training import train


def digits_mlp(seed: int = 0) -> nn.Sequential:
    """An untrained MLP 64-32-16-10 with ReLU and biases: orthogonal weights from `seed`, biases zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(64, 32), nn.Linear(32, 16), nn.Linear(16, 10)]
        for layer in layers:  # PyTorch's default leaves a fifth of the units dead
            _orthogonal(layer.weight, gain=2**0.5)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


@torch.no_grad()
def _orthogonal(weight: Tensor, gain: float) -> None:
    """`nn.init.orthogonal_`, factorised in double precision."""
    drawn = torch.empty_like(weight).normal_().double()
    tall = drawn if len(drawn) >= drawn.shape[1] else drawn.T
    Q, R = torch.linalg.qr(tall)
    Q *= R.diagonal().sign()
    weight.copy_(gain * (Q if tall is drawn else Q.T))


def trained_digits_mlp(seed: int = 0) -> tuple[nn.Sequential, Split]:
    """The digits MLP after `train`, and the digits it was trained and can be tested on.

    Trained in double precision and then rounded to single, so that the weights, and all that is said of
    them, do not depend on how many threads add up a sum.
    """
    split = digits()
    model = digits_mlp(seed).double()
    train(model, replace(split.train, inputs=split.train.inputs.double()), seed=seed)
    return model.float(), split


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
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name]) for name, _ in model.named_children() if name in file}
    except Exception as error:  # NumPy and zipfile raise many classes for bytes that are no archive
        raise ValueError(f"{path} can't be read ({first_line(error)})") from None
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
