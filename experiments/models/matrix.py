"""Every kind of network by every kind of pruning: what works, what is left out and why, what is refused.

    python experiments/models/matrix.py [--only NAME] [--column NAME]

A cell is one `cbs.prune`, held against what was asked: the sparsity, zeros in the state dict wherever a mask
says so, and a fresh copy of the network that loads that state with plain PyTorch and answers as the pruned
one does. Writes `results/matrix.md` and `results/matrix.json`; anything but a result, or one line that
refuses, is a fault.
"""

import argparse
import copy
import json
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
from nets import NETWORKS, made
from run import put
from torch import nn

import cbs
from cbs.data import gather
from cbs.network.answers import answer

RESULTS = Path(__file__).parent / "results"
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


def cell(name: str, column: str) -> dict[str, Any]:
    """One pruning: `outcome` is works, refused or FAULT, `told` a line, `left_out` names and reasons."""
    model, data = made(name)
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
        "layers": layers, "sparsity": round(result.sparsity, 4),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="networks")
    parser.add_argument("--column", nargs="*", help="prunings")
    asked = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "matrix.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    for name in asked.only or NETWORKS:
        for column in asked.column or COLUMNS:
            one = cell(name, column)
            found = json.loads(path.read_text()) if path.is_file() else {}  # others may run beside this one
            found.setdefault(name, {})[column] = one
            print(f"{name} | {column}: {one['outcome']} {one['told']}", flush=True)
            path.write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "matrix.md").write_text(table(found))
    put(Path(__file__).parent / "README.md", "matrix", table(found))


def table(found: dict[str, dict[str, Any]]) -> str:
    """The matrix, and below it the lines of what was refused or left out, each once."""
    notes: dict[str, str] = {}

    def note(text: str) -> str:
        return notes.setdefault(text, str(len(notes) + 1))

    lines = ["| network | layers | left out | " + " | ".join(COLUMNS) + " |"]
    lines.append("|" + " --- |" * (len(COLUMNS) + 3))
    for name in NETWORKS:
        row = found.get(name, {})
        cells = []
        for column in COLUMNS:
            one = row.get(column)
            text = "" if one is None else one["outcome"]
            cells.append(text if not one or not one["told"] else f"{text} [{note(one['told'])}]")
        some = next((one for one in row.values() if one["outcome"] == "works"), None)
        reasons: dict[str, int] = {}
        for why in (some or {"left_out": {}})["left_out"].values():
            reasons[why] = reasons.get(why, 0) + 1
        left = ", ".join(f"{count} [{note(why)}]" for why, count in reasons.items())
        lines.append(f"| {name} | {some['layers'] if some else ''} | {left} | " + " | ".join(cells) + " |")
    told = [f"{number}. {text}" for text, number in notes.items()]
    return "\n".join([*lines, "", *told]) + "\n"


if __name__ == "__main__":
    main()
