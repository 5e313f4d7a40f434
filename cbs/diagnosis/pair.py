"""A dense network and what pruning made of it: two plain networks, and the modules in which they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cbs.data import Samples, gather
from cbs.network.answers import CHOICE, Output, choose_output, raw
from cbs.network.distance import by_distance
from cbs.network.eligible import unwrap
from cbs.network.evaluate import evaluating
from cbs.network.everything import Everything, WholeLoss
from cbs.network.losses import Loss, is_known, named_loss, wide_loss
from cbs.network.network import placed
from cbs.network.padding import require_named
from cbs.network.surgery import clone
from cbs.result import PruneResult

Tensors = Mapping[str, Tensor]
"""Some of a network's parameters and buffers by their names in its state dict."""
FIRST = 2
"""Samples on which a network's outputs are looked at."""
COUNTERS = ("num_batches_tracked",)
"""Buffers of which no output depends."""


@dataclass(frozen=True)
class Pair:
    """A dense network and a pruned one of the same modules, both without masks and in evaluation mode.

    Attributes:
        dense: the network before.
        pruned: after; zeros are where it is pruned.
        sites: for every module in which the two differ its tensors in the pruned network; modules that share
            a tensor are one site, under the first one's name.
        result: that the two come from, or None.
    """

    dense: nn.Module
    pruned: nn.Module
    sites: Mapping[str, Tensors]
    result: PruneResult | None = field(default=None, repr=False)

    def dense_tensors(self, name: str) -> Tensors:
        """A site's tensors in the dense network."""
        state = self.dense.state_dict()
        return {key: state[key].clone() for key in self.sites[name]}

    def loss(self, loss: str | Loss | None) -> Loss:
        """The loss that is given, or that of the result, or cross entropy."""
        if loss is None:
            loss = "cross_entropy" if self.result is None else self.result.request.loss
        return wide_loss(named_loss(loss))

    def gathered(
        self, data: Any, samples: int | None, seed: int, device: str, output: Output | None,
        padding: str | None,
    ) -> Samples:  # fmt: skip
        """The data as samples for both networks, which are told which of their outputs is looked at.

        Args:
            data: as in `cbs.prune`.
            samples: as in `cbs.prune`.
            seed: of the draw.
            device: of the samples.
            output: as in `cbs.prune`; None for the result's.
            padding: as in `cbs.prune`; None for the result's.

        Raises:
            ValueError: in one line, for what can't be read.
        """
        if self.result is not None:
            output = self.result.request.output if output is None else output
            padding = self.result.request.padding if padding is None else padding
        given = gather(data, samples, seed, self.dense).to(device).with_padding(padding)
        require_named(given, padding)
        if output is not None:
            for model in (self.dense, self.pruned):
                choose_output(model, output)
        return given

    def judged(self, samples: Samples, loss: Loss) -> tuple[Loss, Samples]:
        """The loss of the output that is looked at, and the samples with targets.

        Without labels it is the distance of the outputs from the dense network's. A loss of one's own is
        given all outputs, unless it was said which one.
        """
        if not samples.labelled:
            found: tuple[Loss, Samples] = by_distance(self.dense, samples)
            return found
        chosen = getattr(self.dense, CHOICE, None)
        if (chosen is None or isinstance(chosen, Everything)) and not is_known(loss):
            choose_output(self.dense, None)
            with evaluating(self.dense):
                outputs = raw(self.dense, samples.first(FIRST))
            if not isinstance(outputs, Tensor):
                everything = Everything()
                for model in (self.dense, self.pruned):
                    choose_output(model, everything)
                loss = WholeLoss(loss, everything)
        return loss, samples


def pair_of(pruned: PruneResult | nn.Module, dense: nn.Module | None, device: str = "cpu") -> Pair:
    """Copies of both networks, and where they differ.

    Args:
        pruned: a result, which knows its dense network; or a network, with masks or plain.
        dense: the dense network of a network.
        device: torch device for both.

    Raises:
        ValueError: in one line, if one is missing, they are not of the same parameters, or equal.
    """
    result = pruned if isinstance(pruned, PruneResult) else None
    if result is not None:
        if dense is not None:
            raise ValueError("dense is known of a result; give the result alone, or its model with dense")
        pruned, dense = result.model, result.undo()
    for name, model in (("pruned", pruned), ("dense", dense)):
        if not isinstance(model, nn.Module):
            what = "is missing" if model is None else f"must be a torch.nn.Module, not {type(model).__name__}"
            hint = "; give dense=MODEL, the network before pruning" if name == "dense" else " or a result"
            raise ValueError(f"{name} {what}{hint}")
    assert isinstance(pruned, nn.Module)
    assert isinstance(dense, nn.Module)
    before, after = (placed(clone(unwrap(model)), device).eval() for model in (dense, pruned))
    names = _differing(before, after)
    if not names:
        raise ValueError("pruned and dense have the same weights: there is nothing to tell apart")
    state = after.state_dict()
    sites = {name: {key: state[key].clone() for key in keys} for name, keys in names.items()}
    return Pair(before, after, sites, result)


def _differing(dense: nn.Module, pruned: nn.Module) -> dict[str, list[str]]:
    """For the first module of every site the keys of its tensors, of those that differ somewhere."""
    old, new = dense.state_dict(keep_vars=True), pruned.state_dict(keep_vars=True)
    for key, tensor in old.items():
        if not isinstance(tensor, Tensor):
            continue
        if key not in new:
            raise ValueError(f"pruned has no {key!r}, which dense has; give two networks of the same modules")
        if new[key].shape != tensor.shape:
            raise ValueError(
                f"pruned has {key!r} of shape {list(new[key].shape)}, dense of {list(tensor.shape)}; of a "
                "network that was made smaller give the masked one (result.model)"
            )
    for key in new:
        if key not in old:
            raise ValueError(
                f"pruned has {key!r}, which dense has not; give two networks of the same modules"
            )
    groups = Groups(dense)
    found: dict[str, list[str]] = {}
    keys = [key for key, tensor in old.items() if isinstance(tensor, Tensor)]
    for key in keys:
        found.setdefault(groups.of(key), []).append(key)
    return {
        name: mine
        for name, mine in found.items()
        if any(not torch.equal(old[k], new[k]) for k in mine if not k.endswith(COUNTERS))
    }


class Groups:
    """Which tensors of a network belong together: those of one module, and of modules that share one.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._home: dict[str, str] = {}
        owner: dict[int, str] = {}
        for name, module in model.named_modules(remove_duplicate=False):
            self._home[name] = name
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None:
                    self._join(self._home[owner.setdefault(id(tensor), name)], self._home[name])

    def _join(self, first: str, second: str) -> None:
        if first != second:
            self._home |= {name: first for name, home in self._home.items() if home == second}

    def of(self, key: str) -> str:
        """The name of the first module of the group that has a tensor, by its name in the state dict."""
        owner = key.rpartition(".")[0]
        return self._home.get(owner, owner)
