"""Quantized networks in files: packed codes, masks and grids, and everything else at its own type."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cbs.data import first_line
from cbs.network.surgery import clone, put_mask, read_masks
from cbs.quantization.grid import Codes, Grid
from cbs.quantization.packing import FORMS, Bytes, PackedMask, pack, pack_mask, unpack, unpack_mask
from solvers.problem import Mask
from solvers.runtime.writing import replacing

FORMAT = "cbs-quantized-1"


@dataclass(frozen=True, eq=False)
class PackedLayer:
    """A layer's weights in few bits.

    Attributes:
        shape: of the weight.
        grid: the levels.
        mask: of what is pruned.
        codes: of the weights kept, in the order of the weight's entries, packed.
    """

    shape: tuple[int, ...]
    grid: Grid
    mask: PackedMask
    codes: Bytes

    @classmethod
    def of(cls, shape: tuple[int, ...], grid: Grid, codes: Codes, pruned: Mask) -> PackedLayer:
        """Pack codes `[m, n]` of weights `[m, n]`, of which some are pruned."""
        return cls(shape, grid, pack_mask(pruned), pack(codes[~pruned], grid.bits))

    @property
    def pruned(self) -> Mask:
        """`[m, n]`, True where pruned."""
        return unpack_mask(self.mask, (self.shape[0], int(np.prod(self.shape[1:]))))

    @property
    def weight(self) -> Tensor:
        """The weight that the codes mean, in single precision; zero where pruned."""
        pruned = self.pruned
        codes = np.zeros(pruned.shape, dtype=np.uint8)
        codes[~pruned] = unpack(self.codes, self.grid.bits, int((~pruned).sum()))
        values = np.where(pruned, 0.0, self.grid.values(codes)).astype(np.float32)
        return torch.from_numpy(values).reshape(self.shape)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a file has of it, by the end of its name."""
        grid = torch.from_numpy(np.stack([self.grid.low, self.grid.step]))
        found = {"codes": torch.from_numpy(self.codes), "grid": grid}
        if self.mask.form != "none":
            found["mask"] = torch.from_numpy(self.mask.data)
        return found


def file_tensors(rest: Mapping[str, Tensor], layers: Mapping[str, PackedLayer]) -> dict[str, Tensor]:
    """Everything that a file holds: tensors of a state dict at their own types, and the layers in few bits.

    Args:
        rest: of the state dict all that is not a quantized weight.
        layers: by name.
    """
    found = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in rest.items()}
    for name, layer in layers.items():
        for end, tensor in layer.tensors.items():
            found[f"{name}.weight.{end}"] = tensor.contiguous()
    return found


def count_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the values of some tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def pruned_bytes(model: nn.Module) -> int:
    """Bytes of a pruned network at its own types: of masked weights those kept, and the shortest mask.

    To be held against the `bytes` of a quantized network.
    """
    state, total = clone(model).state_dict(), 0
    for name, mask in read_masks(model).items():
        weight = state.pop(f"{name}.weight")
        total += int((~mask).sum()) * weight.element_size()
        total += len(pack_mask(mask.reshape(len(mask), -1).cpu().numpy()).data)
    return total + count_bytes(state)


def write(
    path: str | os.PathLike[str], rest: Mapping[str, Tensor], layers: Mapping[str, PackedLayer]
) -> None:
    """Write a safetensors file: as many bytes as `count_bytes(file_tensors(...))`, and a header.

    Raises:
        OSError: if it can't be written.
    """
    about = {
        name: {"shape": list(layer.shape), "bits": layer.grid.bits, "mask": layer.mask.form}
        for name, layer in layers.items()
    }
    header = {"format": FORMAT, "layers": json.dumps(about, separators=(",", ":"))}
    with replacing(path) as file:
        file.write(save(file_tensors(rest, layers), header))


def load_quantized(path: str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """A copy of a model with the weights of a file that `QuantizeResult.save` wrote, masks included.

    Args:
        path: of the file.
        model: of the same architecture; its weights do not matter, and it is not changed.

    Raises:
        ValueError: in one line, if the file can't be read, is no such file, or is another model's.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path must be a file's, got {path!r}")
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{os.fspath(path)!r} can't be read ({first_line(error)})") from None
    if header.get("format") != FORMAT:
        raise ValueError(f"{os.fspath(path)!r} holds no quantized network; cbs quantize writes such files")
    try:
        layers = {name: _layer(name, about, tensors) for name, about in json.loads(header["layers"]).items()}
        loaded = clone(model)
        loaded.load_state_dict({**tensors, **{f"{name}.weight": v.weight for name, v in layers.items()}})
        for name, layer in layers.items():
            if layer.mask.form != "none":
                put_mask(
                    loaded.get_submodule(name), "weight", torch.from_numpy(layer.pruned).reshape(layer.shape)
                )
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
        raise ValueError(f"{os.fspath(path)!r} is damaged or another model's ({lines[-1]})") from None
    return loaded


def _layer(name: str, about: Mapping[str, Any], tensors: dict[str, Tensor]) -> PackedLayer:
    """A layer of a file; what it is made of is taken out of the tensors."""
    codes, grid = (tensors.pop(f"{name}.weight.{end}") for end in ("codes", "grid"))
    mask = torch.zeros(0, dtype=torch.uint8)
    if about["mask"] != FORMS[0]:
        mask = tensors.pop(f"{name}.weight.mask")
    if about["mask"] not in FORMS or grid.dtype != torch.float32 or codes.dtype != torch.uint8:
        raise ValueError(f"layer {name!r} is not as it is written")
    low, step = grid.numpy()
    bits, shape = int(about["bits"]), tuple(map(int, about["shape"]))
    return PackedLayer(shape, Grid(low, step, bits), PackedMask(about["mask"], mask.numpy()), codes.numpy())
