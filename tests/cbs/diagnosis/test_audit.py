import json

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import cbs
from cbs.network.surgery import clone, put_mask
from tests.cbs.diagnosis.test_pair import Tied
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def rows(found):
    return {matrix.name: matrix for matrix in found.matrices}


@pytest.mark.parametrize("make", [mlp, convnet])
def test_zeros_of_a_result_are_counted_and_held(make):
    data = samples(60) if make is mlp else image_samples(30)
    result = cbs.prune(seeded(make), data, sparsity=0.6, method="magnitude", certify=False)
    found = cbs.audit(result)
    for layer in result.layers:
        row, mask = rows(found)[f"{layer.name}.weight"], result.masks[layer.name]
        assert row.zeros == row.masked == int(mask.sum())
        assert row.held == "mask"
        assert row.came_back == 0
        assert row.shape == layer.shape
        assert row.rows == int(mask.flatten(1).all(dim=1).sum())
        assert row.columns == int(mask.transpose(0, 1).flatten(1).all(dim=1).sum())
    assert found.sparsity == pytest.approx(result.sparsity)
    parameters = [*result.permanent().parameters()]
    assert found.parameters == sum(p.numel() for p in parameters)
    assert found.zeros == sum(int((p == 0).sum()) for p in parameters)
    assert found.network_sparsity == found.zeros / found.parameters
    assert (found.loose, found.came_back) == (0, 0)
    plain = cbs.audit(result.permanent())
    assert plain.sparsity == found.sparsity
    assert plain.loose == sum(int(mask.sum()) for mask in result.masks.values())
    assert {row.held for row in plain.matrices} == {"nothing"}
    assert plain.came_back is None
    assert "come back when training goes on" in plain.verdict


def test_weights_that_came_back_are_found():
    data = samples(60)
    result = cbs.prune(seeded(mlp), data, sparsity=0.6, method="magnitude", certify=False)
    tuned = result.permanent()
    optimizer = torch.optim.SGD(tuned.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(tuned(data.inputs), data.targets).backward()
        optimizer.step()
    found = cbs.audit(tuned, against=result)
    for name, mask in result.masks.items():
        assert rows(found)[f"{name}.weight"].came_back == int(
            (tuned.get_submodule(name).weight[mask] != 0).sum()
        )
    assert found.came_back > 30
    assert f"{found.came_back} pruned weights came back" in found.verdict
    held = result.permanent()
    optimizer = torch.optim.SGD(held.parameters(), lr=0.1)
    with cbs.keep_masks(held, optimizer, masks=result.masks):
        nn.functional.cross_entropy(held(data.inputs), data.targets).backward()
        optimizer.step()
    assert cbs.audit(held, against=result.masks).came_back == 0
    assert cbs.audit(held.state_dict(), against=result).came_back == 0


def test_a_state_dict_says_the_same_as_its_network():
    result = cbs.prune(seeded(convnet), image_samples(30), sparsity=0.6, method="magnitude", certify=False)
    for model in (result.model, result.permanent()):
        one, other = cbs.audit(model), cbs.audit(model.state_dict())
        assert rows(other) == rows(one)
        assert (other.parameters, other.zeros) == (one.parameters, one.zeros)


def test_patterns_are_found_along_channels_and_kernels():
    conv = nn.Conv2d(8, 3, (1, 4), bias=False)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.weight[:, ::2] = 0
    (found,) = cbs.audit(conv).matrices
    assert (found.channels, found.kernel, found.two_of_four) == ("1:2", "4:8", 1.0)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.weight[..., 1:] = 0
        conv.weight[0, 0, 0, 0] = 0
    (found,) = cbs.audit(conv).matrices
    assert (found.channels, found.kernel) == ("", "1:4")
    assert found.two_of_four == pytest.approx(0.75)
    assert (found.rows, found.columns) == (0, 0)
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8))
    result = cbs.prune(
        model.double(), samples(40, (8,), classes=8), budget="2:4", method="wanda", certify=False
    )
    assert [row.channels for row in cbs.audit(result).matrices] == ["2:4", "2:4"]
    assert cbs.audit(result).table()[1][0][4] == "2:4"


def test_rows_are_outputs_whatever_the_module_makes_of_its_weight():
    conv = nn.ConvTranspose2d(4, 6, 2)
    with torch.no_grad():
        conv.weight[1] = 0
        conv.weight[:, 2:4] = 0
    (found,) = cbs.audit(conv).matrices
    assert (found.rows, found.columns) == (2, 1)
    assert found.shape == (4, 6, 2, 2)


def test_masks_in_part_parametrizations_and_shared_weights():
    model = seeded(mlp)
    put_mask(model[0], "weight", torch.arange(30).reshape(5, 6) % 2 == 0)
    with torch.no_grad():
        model[0].weight_orig[0, 1] = 0
        model[2].weight[0] = 0
        model[4] = parametrizations.spectral_norm(model[4])
    model[0].weight_orig.data[0, 0] = 7.0  # a weight under a mask moves, and is still out
    found = rows(cbs.audit(model))
    assert (found["0.weight"].zeros, found["0.weight"].masked, found["0.weight"].held) == (
        16,
        15,
        "mask, in part",
    )
    assert (found["2.weight"].held, found["2.weight"].rows) == ("nothing", 1)
    assert found["4.weight"].held == ""
    assert "4.parametrizations.weight.original" not in found
    tied = seeded(Tied)
    assert [row.name for row in cbs.audit(tied).matrices] == ["first.weight", "middle.weight"]
    assert cbs.audit(tied).parameters == sum(p.numel() for p in tied.parameters())


def test_the_padding_row_of_an_embedding_is_not_pruned():
    model = nn.Sequential(nn.Embedding(20, 8, padding_idx=3), nn.Linear(8, 2))
    found = cbs.audit(model)
    assert (found.matrices[0].zeros, found.matrices[0].padding, found.matrices[0].held) == (8, 8, "padding")
    assert (found.zeros, found.loose) == (8, 0)
    assert found.verdict.startswith("nothing is pruned")
    with torch.no_grad():
        model[0].weight[5] = 0
    assert cbs.audit(model).loose == 8


def test_what_never_moves_on_data_is_counted():
    model = seeded(convnet).train()
    other = clone(model)
    with torch.no_grad():
        other[0].weight[1] = 0
        other[1].bias[2] = -100
    data = image_samples(30)
    found = cbs.audit(other, data=cbs.Samples(data.inputs, data.targets, 7))
    assert found.samples == 30
    assert (rows(found)["0.weight"].dead_inputs, rows(found)["0.weight"].constant) == (0, 1)
    with torch.no_grad():
        x = clone(other).eval()[:3](data.inputs)
    assert rows(found)["3.weight"].dead_inputs == int((x == 0).all(dim=0).flatten(1).all(dim=1).sum())
    assert rows(found)["3.weight"].dead_inputs >= 1
    assert rows(found)["6.weight"].dead_inputs == 0
    assert other.training
    assert found.table()[0][-2:] == ["dead in", "const. out"]


def test_a_dense_network_has_nothing_pruned():
    found = cbs.audit(seeded(mlp))
    assert found.verdict == f"nothing is pruned: 0 of {found.parameters} parameters are zero"
    assert (found.sparsity, found.network_sparsity) == (0, 0)


def test_it_can_be_kept_and_fits_a_terminal():
    result = cbs.prune(seeded(convnet), image_samples(30), sparsity=0.6, method="magnitude", certify=False)
    found = cbs.audit(result)
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["matrices"][0]["zeros"] == found.matrices[0].zeros
    assert record["network_sparsity"] == found.network_sparsity
    assert all(len(line) <= 80 for line in repr(found).splitlines()[:-1])


def test_what_is_no_network_or_another_ones_masks_is_refused():
    model = seeded(mlp)
    for what, options, message in (
        ("a", {}, "model must be a torch.nn.Module, a result or a state dict, not str"),
        ({}, {}, "not dict"),
        (model, {"against": {"9": torch.ones(2, 2) > 0}}, "against: model has no '9'"),
        (model, {"against": {"0": torch.ones(2, 2) > 0}}, r"has shape \[2, 2\], its weight \[5, 6\]"),
        (model, {"against": {"0": torch.ones(5, 6)}}, "the mask of '0' is torch.float32; give a bool tensor"),
        (model, {"against": 3}, "against must be a result or masks by name, not int"),
        (model.state_dict(), {"data": samples()}, "data needs a network to run"),
        (model, {"data": samples(3, (7,))}, "the model refuses inputs"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            cbs.audit(what, **options)
        assert "\n" not in str(caught.value)
