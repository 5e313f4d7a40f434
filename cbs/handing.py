"""Results as they are handed out: in the user's own modules, whatever stood for these during the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from cbs.network.kinds.opening import close_model, is_open, open_model, parts_of
from cbs.network.surgery import clone

if TYPE_CHECKING:
    from cbs.network.network import Network
    from cbs.result import PruneResult


class Handing:
    """Puts the user's modules back into results of one network, each model once.

    Args:
        network: the dense network.
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self._done: dict[int, tuple[nn.Module, nn.Module]] = {}
        self._original: Mapping[str, Tensor] | None = None

    def __call__(self, result: PruneResult) -> PruneResult:
        """The result, itself where its network has nothing that was rewritten."""
        if not is_open(result.model):
            return result
        _, closed = self._done.get(id(result.model), (None, None))
        if closed is None:
            closed = close_model(result.model)
            self._done[id(result.model)] = result.model, closed
        inside = parts_of(self.network.model)
        saved = {name: values for name, values in result.saved.items() if name not in inside}
        if self._original is None:
            self._original = clone(close_model(self.network.model)).state_dict()
        return replace(result, model=closed, saved=saved, original=self._original)


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
        model.load_state_dict(open_model(closed, stay).model.state_dict())
