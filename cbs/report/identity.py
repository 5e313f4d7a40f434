"""Digests that tell whether two runs speak of the same network and the same data."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cbs.data import Samples
from cbs.data.nested import shared_words, tensors_of
from cbs.network.surgery import clone


def identity(model: nn.Module, data: Samples, test: Samples | None) -> dict[str, str | None]:
    """Digests of a run's network and data, by what each is to the user.

    Args:
        model: the dense network: names, types and values of its state dict count.
        data: calibration samples, in any order.
        test: held-out samples, or None.
    """
    return {
        "model": _digest_of_model(model),
        "calibration data": _digest_of_samples(data),
        "test data": None if test is None else _digest_of_samples(test),
    }


def _digest_of_model(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in clone(model).state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(_rows(tensor[None]).tobytes())
    return digest.hexdigest()


def _digest_of_samples(samples: Samples) -> str:
    heads, each = [], list[bytes]()
    for inputs, targets in samples.groups():
        named = [*tensors_of(inputs), *tensors_of(targets)]
        heads.append(
            " ".join(f"{part.dtype} {list(part.shape[1:])}" for part in named) + shared_words(inputs)
        )
        rows = [_rows(part) for part in named]
        each += [
            hashlib.sha256(b" ".join(row.tobytes() for row in sample)).digest()
            for sample in zip(*rows, strict=True)
        ]
    head = "; ".join(dict.fromkeys(heads))
    return hashlib.sha256(head.encode() + b"".join(sorted(each))).hexdigest()


def _rows(tensor: Tensor) -> NDArray[np.uint8]:
    """The bytes of a tensor `[N, ...]`, row by row `[N, b]`, whatever its type."""
    plain = tensor.detach().cpu().contiguous()
    found: NDArray[np.uint8] = plain.reshape(len(plain), -1).view(torch.uint8).numpy()
    return found
