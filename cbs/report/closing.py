"""What a run ends with: its table to read, what its files are, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cbs.report.layers import layers_markdown, left_out_markdown, shares
from cbs.report.stages import staged, stages_markdown
from cbs.report.tables import markdown
from cbs.result import PruneResult

FILES = """\
| file | what it is |
| --- | --- |
| `METHOD-SPARSITY.safetensors` | state dict of the pruned network, in plain weights |
| `METHOD-SPARSITY.masks.safetensors` | a bool tensor for every pruned layer, **True where pruned** |
| `report.json` | settings, environment, and every result down to its rows |
| `config.toml` | asks for the same again: `cbs prune --config config.toml` |
| `plot.png` | accuracy, loss and layer objectives against sparsity, over the certified bound |
| `layers.png` | sparsity and certified gap of every layer, of the best at every sparsity |
| `table.md` | this page |
| `report.html` | the same to look at: figures, tables, layers, masks, in one file that a browser opens |
"""
LONG = 200
"""Characters of a setting that a page has."""
STAGES = "| `stages.png` | accuracy, divergence, sparsity and seconds, stage by stage |\n"


def best(results: Sequence[PruneResult]) -> list[PruneResult]:
    """At every sparsity, the result of highest accuracy, and of least loss increase among equals.

    Accuracy is that on test data if there is any; without accuracies, the loss increase decides alone.
    """
    chosen: dict[float, PruneResult] = {}
    for result in results:
        if result.asked not in chosen or _rank(result) > _rank(chosen[result.asked]):
            chosen[result.asked] = result
    return list(chosen.values())


def _rank(result: PruneResult) -> tuple[float, float]:
    accuracy = (result.test_after or result.after).accuracy
    return (0.0 if accuracy is None else accuracy, -result.loss_increase)


def next_steps(
    results: Sequence[PruneResult], folder: Path, settings: Mapping[str, Any] | None = None
) -> str:
    """Which method did best at each sparsity, which file that is, and how to load it and train on.

    Args:
        results: of the run.
        folder: of the run.
        settings: the run's, by which commands name the network.
    """
    winners = best(results)
    accuracy = (winners[0].test_after or winners[0].after).accuracy
    by = winners[0].measured.increase if accuracy is None else "accuracy"
    words = ", ".join(f"{result.method} at {result.share}" for result in winners)
    shell = "\n".join(f"    {line}" for line in _commands(winners[-1], folder, settings or {}))
    shell = f"next, in a shell:\n\n{shell}\n\n" if shell else ""
    return f"best by {by}: {words}\n\n{shell}next, in Python:\n\n{_snippet(winners[-1], folder, '    ')}"


def _commands(result: PruneResult, folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """What may be done with a pruned network, as commands."""
    from cbs.report.folder import file_names

    if "model" not in settings:
        return []
    weights, masks = (str(folder / name) for name in file_names(result.method, result.asked))
    data = [word for name in ("data", "test") if settings.get(name) for word in (f"--{name}", settings[name])]
    this = [str(folder), "--result", Path(weights).stem]
    quantized = ["quantize", str(settings["model"]), *map(str, data), "--weights", weights, "--masks", masks]
    commands = {
        "milliseconds and bytes, dense against pruned": ["bench", *this],
        "a small file, which cbs.load reads": ["export", *this[:1], "small.safetensors", *this[1:]],
        "fewer bits": [*quantized, "--bits", "4"],
    }
    return [f"{shlex.join(['cbs', *words])}  # {what}" for what, words in commands.items()]


def _snippet(result: PruneResult, folder: Path, indent: str = "") -> str:
    from cbs.report.folder import file_names

    weights, masks = (str(folder / name) for name in file_names(result.method, result.asked))
    lines: tuple[str, ...] = (
        "import cbs, torch",
        "from safetensors.torch import load_file",
        f"model.load_state_dict(load_file({weights!r}))  # into your network",
        f"masks = load_file({masks!r})  # True where pruned",
        "# train on, in any loop and by any optimizer: what is pruned stays zero",
        "optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)",
        "cbs.keep_masks(model, optimizer, masks=masks)",
    )
    if result.neurons:
        key = f"({result.method!r}, {result.asked!r})"
        lines += (
            "# or without the pruned neurons, a smaller network of the same outputs",
            "import json",
            f"results = json.load(open({str(folder / 'report.json')!r}))['results']",
            f"(record,) = (r for r in results if (r['method'], r['asked']) == {key})",
            "small = cbs.shrink(model, record['neurons'])",
        )
    return "\n".join(f"{indent}{line}" for line in lines)


def page(results: Sequence[PruneResult], settings: Mapping[str, Any], folder: Path) -> str:
    """`table.md` of a run folder: the table, how it was made, what each file is, and what to do next."""
    dense = results[0].test_before or results[0].before
    on = "test" if results[0].test_before else "calibration"
    head = "" if dense.accuracy is None else f"Dense accuracy on {on} data {100 * dense.accuracy:.2f}%.\n\n"
    shown = {name: value for name, value in settings.items() if value is not None and name != "identity"}
    given = "\n".join(f"    {name} = {_short(value)}" for name, value in shown.items())
    several = staged(results)
    story = f"## Stages\n\n{stages_markdown(several)}\n" if several else ""
    return (
        f"# Pruned networks in {shlex.quote(folder.name)}\n\n{head}{markdown(results)}\n"
        "The certified gap is `(value - bound) / value` of the layer objectives: 0% is a proof that no masks "
        "of the budget do better.\n\n"
        f"{story}{_layers(results)}## Settings\n\n{given}\n\n## Files\n\n{FILES}{STAGES * bool(several)}\n"
        f"## Next\n\n```python\n{_snippet(best(results)[-1], folder)}\n```\n"
        f"{_shell(best(results)[-1], folder, settings)}"
    )


def _layers(results: Sequence[PruneResult]) -> str:
    """The layers of the best result at every sparsity, and what was left out of all."""
    parts = ["## Layers\n\n"]
    parts += [
        f"{result.method}, {shares(result)}.\n\n{layers_markdown(result)}\n" for result in best(results)
    ]
    if left := left_out_markdown(results[0]):
        parts.append(f"Not pruned:\n\n{left}\n")
    return "".join(parts)


def _short(value: Any) -> str:
    """A setting in one line that can be read: long lists are in report.json."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= LONG else f"{text[: LONG - 4]} ..."


def _shell(result: PruneResult, folder: Path, settings: Mapping[str, Any]) -> str:
    lines = _commands(result, folder, settings)
    return "" if not lines else "\n```console\n" + "\n".join(lines) + "\n```\n"
