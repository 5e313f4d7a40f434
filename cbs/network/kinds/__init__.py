"""Layer types: how modules that are no single matrix are rewritten as matrices, and users' own."""

from cbs.network.kinds.opening import close_model, is_open, open_model
from cbs.network.kinds.registry import Slot, kind_of, register_layer

__all__ = ["Slot", "close_model", "is_open", "kind_of", "open_model", "register_layer"]
