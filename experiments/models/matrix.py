"""Every kind of network by every kind of pruning: what works, what is left out and why, what is refused.

A cell is one `cbs.prune`, held against what was asked: the sparsity, zeros in the state dict wherever a mask
says so, and a fresh copy of the network that loads that state with plain PyTorch and answers as the pruned
one does. Anything but a result, or one line that refuses, is a fault.
"""

import copy
import time
import traceback
import warnings
from typing import Any

import torch
from nets import made
from torch import nn

import cbs
from cbs.data import gather
from cbs.network.answers import answer

COLUMNS: dict[str, dict[str, Any]] = {
    "magnitude": {"method": "magnitude"},
    "wanda": {"method": "wanda"},
    "obd": {"method": "obd"},
    "obc": {"method": "obc", "scope": "layer"},
    "joint": {"method": "joint", "scope": "layer", "time_limit": 20},
    "joint, network": {"method": "joint", "solver": "greedy", "certify": False},
    "sequential": {"method": "obc", "pipeline": "sequential", "scope": "layer"},
    "refit network": {"method": "magnitude", "refit": "network", "time_limit": 20},
    "neurons": {"method": "magnitude", "granularity": "neurons", "scope": "layer"},
    "2:4": {"method": "joint", "solver": "greedy", "budget": "2:4", "certify": False},
}


def tried(network: str, column: str) -> dict[str, Any]:
    """One pruning: `outcome` is works, refused or FAULT, `told` a line, `left_out` names and reasons."""
    model, data = made(network)
    options = dict(COLUMNS[column])
    if "budget" not in options:
        options["sparsity"] = 0.5
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = cbs.prune(model, data, **options)
            told = problem(model, data, result, options)
    except ValueError as error:
        line = str(error)
        seconds = round(time.perf_counter() - began, 2)
        outcome = "refused" if "\n" not in line else "FAULT"
        return {"outcome": outcome, "told": line, "left_out": {}, "seconds": seconds}
    except Exception as error:
        lines = traceback.format_exc().strip().splitlines()
        place = [line.strip() for line in lines if line.strip().startswith("File")][-1]
        told = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} ({place})"
        return {"outcome": "FAULT", "told": told, "left_out": {}, "seconds": 0.0}
    left = {where: str(why) for where, why in result.left_out.items()}
    seconds = round(time.perf_counter() - began, 2)
    layers = len(result.layers)
    return {
        "outcome": "FAULT" if told else "works", "told": told, "left_out": left, "seconds": seconds,
        "layers": layers, "achieved_sparsity": round(result.sparsity, 4),
    }  # fmt: skip


def problem(model: nn.Module, data: Any, result: cbs.PruneResult, options: dict[str, Any]) -> str:
    """What of a result is not as it should be, in a line; empty if all is."""
    asked = options.get("sparsity", 0.5)
    if options.get("granularity") != "neurons" and abs(result.sparsity - asked) > 0.02:
        return f"sparsity {result.sparsity:.3f} where {asked} was asked for"
    state = result.state
    fresh = copy.deepcopy(model)
    fresh.load_state_dict({**fresh.state_dict(), **state})
    for parameter, mask in result.masks.items():
        held = dict(fresh.named_parameters(remove_duplicate=False))
        found = held.get(parameter, held.get(f"{parameter}.weight"))
        if found is None:
            return f"mask of {parameter!r}, which is no parameter of the network"
        if bool(found[torch.as_tensor(mask).reshape(found.shape)].any()):
            return f"{parameter!r} is not zero where its mask prunes"
    inputs = next(gather(data, model=model).batches(8))[0]
    with torch.no_grad():
        one, other = answer(fresh.eval(), inputs), answer(result.model.eval(), inputs)
    if not torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max())):
        return f"reloaded it answers otherwise, by {float((one - other).abs().max()):.3g}"
    return ""
