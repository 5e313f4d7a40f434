"""The network refit: what masks leave moves together, to the least divergence of the network's outputs."""

from cbs.refit.network import Refitted, RefitWarning, refit_network

__all__ = ["RefitWarning", "Refitted", "refit_network"]
