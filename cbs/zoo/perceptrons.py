"""Multilayer perceptrons that are made and trained here, the digits network among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from cbs.data import Samples, Split, digits
from cbs.schedule.training import train

DIGITS = (64, 32, 16, 10)
"""Widths of the digits network."""


def perceptron(widths: Sequence[int], seed: int = 0) -> nn.Sequential:
    """An untrained MLP with ReLU and biases: orthogonal weights from `seed`, biases zero.

    Args:
        widths: of the inputs, the hidden layers and the outputs.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Linear(inputs, outputs) for inputs, outputs in pairwise(widths)]
        for layer in layers:  # PyTorch's default leaves a fifth of the units dead
            _orthogonal(layer.weight, gain=2**0.5)
            nn.init.zeros_(layer.bias)
    parts = [part for layer in layers for part in (layer, nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def digits_mlp(seed: int = 0) -> nn.Sequential:
    """An untrained MLP 64-32-16-10 with ReLU and biases: orthogonal weights from `seed`, biases zero."""
    return perceptron(DIGITS, seed)


def trained_digits_mlp(seed: int = 0) -> tuple[nn.Sequential, Split]:
    """The digits MLP after `train`, and the digits it was trained and can be tested on.

    Trained in double precision and then rounded to single, so that the weights, and all that is said of
    them, do not depend on how many threads add up a sum.
    """
    split = digits()
    model = digits_mlp(seed)
    train_double(model, split.train, seed=seed)
    return model, split


def train_double(model: nn.Module, samples: Samples, *, seed: int, **options: Any) -> None:
    """Train a network in place by `cbs.train` in double precision, then round it to single.

    Args:
        model: the network, in single precision before and afterwards.
        samples: what it is trained on.
        seed: of the order of the samples.
        options: of `cbs.train`.
    """
    model.double()
    train(model, replace(samples, inputs=samples.inputs.double()), seed=seed, **options)
    model.float()


@torch.no_grad()
def _orthogonal(weight: Tensor, gain: float) -> None:
    """`nn.init.orthogonal_`, factorised in double precision."""
    drawn = torch.empty_like(weight).normal_().double()
    tall = drawn if len(drawn) >= drawn.shape[1] else drawn.T
    Q, R = torch.linalg.qr(tall)
    Q *= R.diagonal().sign()
    weight.copy_(gain * (Q if tall is drawn else Q.T))
