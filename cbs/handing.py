"""Results as they are handed out: in the user's own modules, whatever stood for these during the work.

Some modules change buffers whenever they are called, in evaluation mode too: counters of calls, caches,
running means of their own. What the work's calls did to these is none of the pruning's, and is taken back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cbs.network.kinds.opening import close_model, is_open, open_model, parts_of
from cbs.network.surgery import clone

if TYPE_CHECKING:
    from cbs.network.network import Network
    from cbs.result import PruneResult


class Handing:
    """Puts the user's modules back into results of one network, each model once, and buffers as they were.

    Args:
        network: the dense network.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._done: dict[int, tuple[nn.Module, nn.Module]] = {}
        self._original: Mapping[str, Tensor] | None = None

    def __call__(self, result: PruneResult) -> PruneResult:
        """The result, itself where its network has nothing that was rewritten."""
        still = self._still() if result.request.finetune is None else {}
        if not is_open(result.model):
            _put(result.model, still)
            if result.original is None or not (other := _there(result.original, self._still())):
                return result
            return replace(result, original={**result.original, **other})
        _, closed = self._done.get(id(result.model), (None, None))
        if closed is None:
            closed = close_model(result.model)
            _put(closed, still)
            self._done[id(result.model)] = result.model, closed
        inside = parts_of(self.network.model)
        saved = {name: values for name, values in result.saved.items() if name not in inside}
        if self._original is None:
            self._original = clone(close_model(self.network.model)).state_dict()
            self._original |= _there(self._original, self._still())
        return replace(result, model=closed, saved=saved, original=self._original)

    def _still(self) -> dict[str, Tensor]:
        """Buffers of the user's network, but for those of batch norms and masks, by name."""
        return {
            f"{path}.{key}" if path else key: buffer
            for path, module in self.network.user.named_modules()
            if not isinstance(module, _BatchNorm)
            for key, buffer in module._buffers.items()
            if buffer is not None and f"{key.removesuffix('_mask')}_orig" not in module._parameters
        }


def _there(state: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of those buffers that a state has, with other values."""
    return {
        name: buffer.detach().clone()
        for name, buffer in buffers.items()
        if name in state and not _same(state[name], buffer)
    }


@torch.no_grad()
def _put(model: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Give a network's buffers these values, where they are other ones."""
    own = dict(model.named_buffers())
    for name, buffer in buffers.items():
        if name not in own or _same(own[name], buffer):
            continue
        if own[name].shape == buffer.shape and own[name].dtype == buffer.dtype and own[name].is_contiguous():
            own[name].copy_(buffer)
        else:
            path, _, key = name.rpartition(".")
            model.get_submodule(path)._buffers[key] = buffer.detach().clone().to(own[name].device)


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same type, shape and values."""
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b.to(a.device))


def theirs(model: nn.Module) -> nn.Module:
    """A network in the user's modules: itself, where nothing in it was rewritten."""
    return close_model(model) if is_open(model) else model


def take_back(model: nn.Module, closed: nn.Module, network: Network) -> None:
    """Take over, in place, what became of a network in the user's modules; `theirs` gave it.

    Args:
        model: the network with rewritten modules.
        closed: the same one in the user's modules, trained since.
        network: in which it was said what is rewritten.
    """
    if closed is not model:
        stay = {name: "" for name, _ in closed.named_modules() if name not in network.composite}
        state, own = open_model(closed, stay).model.state_dict(), model.state_dict()
        for name in [name for name in state if name not in own and name.endswith("_orig")]:
            whole = name.removesuffix("_orig")  # a part that is not pruned, of a parameter that is
            state[whole] = state.pop(name) * state.pop(f"{whole}_mask")
        model.load_state_dict(state)
