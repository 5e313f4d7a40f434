"""What a reader is told of single layers is what the results and the masks say."""

import dataclasses

import pytest
import torch
from torch import nn

import cbs
from cbs.report import layer_lines, shares
from cbs.report.layers import COLUMNS, NARROW, SHOWN, layers_markdown, left_out_markdown, modules, whole


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(4, 8, 3, groups=4, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))


@pytest.fixture(scope="module")
def result():
    data = torch.randn(20, 4, 4, 4, generator=torch.Generator().manual_seed(1)), torch.arange(20) % 3
    return cbs.prune(network(), data, sparsity=0.5, method="magnitude", scope="layer")


def test_blocks_of_a_module_are_one_line(result):
    conv, linear = modules(result)
    assert (conv.name, conv.blocks, conv.shape, conv.size) == ("0", 4, (8, 1, 3, 3), 72)
    assert conv.cells[0] == "0 (4 blocks)"
    blocks = [layer for layer in result.layers if layer.name.startswith("0[")]
    assert len(blocks) == 4
    assert conv.value == pytest.approx(sum(block.value for block in blocks))
    assert conv.bound == pytest.approx(sum(block.bound for block in blocks))
    assert conv.gap == pytest.approx(1 - conv.bound / conv.value)
    for module in (conv, linear):
        mask = result.masks[module.name]
        assert module.kept == int((~mask).sum())
        assert module.sparsity == pytest.approx(float(mask.double().mean()))
        assert mask.shape == module.shape


def test_a_bound_that_one_block_lacks_is_not_known(result):
    layers = [dataclasses.replace(result.layers[0], bound=None, status="patience"), *result.layers[1:]]
    conv = modules(dataclasses.replace(result, layers=layers))[0]
    assert (conv.bound, conv.gap) == (None, None)
    assert "1 patience" in conv.status
    assert conv.cells[COLUMNS.index("bound")] == "unknown"


def test_the_whole_network_counts_every_parameter(result):
    dense = network()
    count = sum(p.numel() for p in dense.parameters())
    pruned = sum(
        int(((a != 0) & (b == 0)).sum())
        for a, b in zip(dense.state_dict().values(), result.state.values(), strict=True)
    )
    assert whole(result) == (pruned, count)
    assert shares(result) == (
        f"50.0% of the 456 weights of 2 layers, {100 * pruned / count:.1f}% of all {count} parameters"
    )


def test_terminals_get_the_first_layers_and_how_many_more(result):
    headings, *lines = layer_lines(result)
    assert headings == NARROW
    assert [line[0] for line in lines] == ["0 (4 blocks)", "3"]
    many = [dataclasses.replace(result.layers[-1], name=f"layer{i}") for i in range(50)]
    lines = layer_lines(dataclasses.replace(result, layers=many))[1:]
    assert len(lines) == SHOWN
    assert lines[-1][0] == f"... and {50 - SHOWN + 1} more"
    assert layers_markdown(dataclasses.replace(result, layers=many)).count("\n") == 52


def test_what_is_left_out_is_told_by_reason(result):
    left = {f"gru{i}": "is recurrent" for i in range(20)} | {"head": "shares its weight"}
    told = left_out_markdown(dataclasses.replace(result, left_out=left))
    first, second = told.splitlines()
    assert first.startswith("- `gru0`, `gru1`")
    assert first.endswith(" and 8 more: is recurrent")
    assert second == "- `head`: shares its weight"
    assert shares(dataclasses.replace(result, left_out=left)).endswith("; 21 left out")
    assert left_out_markdown(result) == ""
