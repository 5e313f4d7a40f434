"""What moves: survivors, biases that are free, and normalisations, each once; and back into the network."""

import pytest
import torch
from torch import nn

from cbs.network.surgery import clone, put_mask
from cbs.refit.movable import find_movable, whole_movable, write_back
from tests.cbs.networks import convnet, masked, mlp, residual, seeded


def names(movable):
    return {part.name: part.count for part in movable.parts}


def test_survivors_biases_and_norms_move():
    model = masked(seeded(residual), names=["conv1", "conv2", "fc"])
    kept = {name: int(model.get_submodule(name).weight_mask.sum()) for name in ("conv1", "conv2", "fc")}
    found = names(find_movable(model, clone(model)))
    assert found == {
        **{f"{name}.weight": count for name, count in kept.items()},
        "conv2.bias": 4, "fc.bias": 3, "norm1.weight": 4, "norm1.bias": 4, "norm2.weight": 4, "norm2.bias": 4,
    }  # fmt: skip


def test_layers_left_out_stay_and_so_do_parameters_with_masks_of_their_own():
    model = masked(seeded(mlp))
    put_mask(model[2], "bias", torch.tensor([True, False, False, False]))
    found = names(find_movable(model, clone(model), ["2", "4"]))
    assert list(found) == ["2.weight", "4.weight", "4.bias"]
    model = masked(seeded(convnet), names=["0"])
    put_mask(model[1], "weight", torch.tensor([True, False, False]))
    assert list(names(find_movable(model, clone(model), ["0"]))) == ["0.weight", "0.bias"]


def test_tied_parameters_are_there_once():
    model = masked(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3)))
    model[3].weight = model[1].weight
    model[2].bias = model[0].bias
    found = names(find_movable(model.eval(), clone(model)))
    assert "1.weight" in found
    assert "3.weight" not in found
    assert "0.bias" in found
    assert "2.bias" not in found


def test_a_vector_goes_there_and_back_and_masks_stay():
    model = masked(seeded(convnet))
    before = {name: values.clone() for name, values in model.state_dict().items()}
    movable = find_movable(model, clone(model))
    assert movable.count == sum(names(movable).values())
    vector = movable.vector(movable.base)
    assert torch.equal(movable.vector(movable.parameters(vector)), vector)
    drawn = torch.randn(movable.count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(movable.vector(movable.tangents(drawn)), drawn)
    assert all(
        bool(t.reshape(-1)[p.index].any()) for p in movable.parts for t in [movable.tangents(drawn)[p.name]]
    )
    write_back(model, movable, drawn)
    assert torch.equal(find_movable(model, clone(model)).vector(dict(clone(model).named_parameters())), drawn)
    for name in ("0", "3", "6"):
        module = model.get_submodule(name)
        assert torch.equal(module.weight_mask, before[f"{name}.weight_mask"])
        assert not bool(module.weight_orig[module.weight_mask == 0].any())
        assert torch.equal(module.weight, module.weight_orig * module.weight_mask)
    assert torch.equal(model[1].running_var, before["1.running_var"])


def test_networks_without_masks_are_refused():
    with pytest.raises(ValueError, match=r"^model has no masks"):
        find_movable(seeded(mlp), seeded(mlp))
    model = masked(seeded(mlp), names=["0"])
    with pytest.raises(ValueError, match=r"^layers: '2' has no mask .* there are '0'"):
        find_movable(model, clone(model), ["2"])


def test_all_weights_of_layers_can_move():
    model = seeded(mlp)
    movable = whole_movable(model, ["0", "4"])
    assert torch.equal(
        movable.vector(movable.base), torch.cat([model[0].weight.flatten(), model[4].weight.flatten()])
    )


@pytest.mark.parametrize("find", ["whole", "masked"])
def test_weights_need_not_be_contiguous(find):
    model = seeded(mlp)
    with torch.no_grad():
        model[2].weight = nn.Parameter(model[2].weight.t().contiguous().t())
    model = masked(model) if find == "masked" else model
    movable = whole_movable(model, ["2"]) if find == "whole" else find_movable(model, clone(model), ["2"])
    drawn = torch.randn(movable.count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = drawn.float().double()
    assert torch.equal(movable.vector(movable.parameters(drawn)), drawn)
    assert torch.equal(movable.vector(movable.tangents(drawn)), drawn)
