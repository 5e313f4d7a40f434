"""Quantized networks: what is measured is what their codes say, and pruned weights stay exactly zero."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune

import cbs
from cbs.change import layer_weights
from cbs.curvature import Gram
from cbs.data import Samples
from cbs.network.network import Network
from cbs.network.surgery import clone
from cbs.quantization.packing import pack_mask
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

DATA = {mlp: samples(40), convnet: image_samples(12)}


def masked(make):
    model = seeded(make)
    for module in model:
        if hasattr(module, "weight") and module.weight.ndim > 1:
            torch_prune.l1_unstructured(module, "weight", 0.4)
    torch_prune.random_unstructured(model[-1], "bias", 1)
    return model


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("make", "per", "rounding", "bits"),
    [
        (mlp, "row", "nearest", 2), (mlp, "tensor", "feedback", 3), (mlp, "row", "feedback", 8),
        (convnet, "row", "feedback", 2), (convnet, "tensor", "nearest", 3),
        (convnet, "tensor", "feedback", 4),
    ],
)  # fmt: skip
def test_a_quantized_network_is_what_it_says(make, per, rounding, bits, tmp_path):
    model = masked(make).train()
    before = state(model)
    result = cbs.quantize(model, DATA[make], bits=bits, per=per, rounding=rounding, test=DATA[make])
    assert same(state(model), before)
    assert model.training
    assert result.model.training
    expected, dense = 0, 0
    plain = torch.nn.Sequential(*result.model).eval()
    for name, module in model.named_modules():
        small = result.model.get_submodule(name)
        for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            values = getattr(module, key, None)
            if values is None or (key == "weight" and values.ndim > 1):
                continue
            expected += values.numel() * values.element_size()
            dense += values.numel() * values.element_size()
            if rounding == "nearest":
                assert torch.equal(getattr(small, key), values)
        if not hasattr(module, "weight") or module.weight.ndim == 1:
            continue
        mask = module.weight_mask == 0
        assert torch.equal(small.weight_mask, module.weight_mask)
        assert not small.weight[mask].any()
        assert not small.weight_orig[mask].any()
        rows = [(small.weight, mask)] if per == "tensor" else zip(small.weight, mask, strict=True)
        grids = 0
        for row, out in rows:
            assert len(row[~out].unique()) <= 2**bits
            grids += 1
        kept = int((~mask).sum())
        dense += mask.numel() * 8
        flat = mask.reshape(len(mask), -1).numpy()
        expected += -(-kept * bits // 8) + 8 * grids + min(-(-mask.numel() // 8), len(pack_mask(flat).data))
    assert (result.bytes, result.dense_bytes) == (expected, dense)
    assert torch.equal(result.model[-1].bias_mask, model[-1].bias_mask)
    assert torch.equal(result.model[-1].bias, model[-1].bias)
    x, y = DATA[make].inputs, DATA[make].targets
    assert result.after.loss == pytest.approx(F.cross_entropy(plain(x), y).item())
    assert result.test_after == result.after
    for layer in result.layers:
        assert layer.measured == pytest.approx(layer.value, rel=1e-6)
    path = tmp_path / "small.safetensors"
    result.save(path)
    header = int.from_bytes(path.read_bytes()[:8], "little")
    assert os.path.getsize(path) == result.bytes + header + 8
    loaded = cbs.load_quantized(path, seeded(make, seed=3)).eval()
    assert torch.equal(loaded(x), plain(x))
    for name, mask in ((n, m.weight_mask) for n, m in model.named_modules() if hasattr(m, "weight_mask")):
        assert torch.equal(loaded.get_submodule(name).weight_mask, mask)
        assert torch.equal(loaded.get_submodule(name).weight, result.model.get_submodule(name).weight)
    json.dumps(result.to_dict())


@pytest.mark.parametrize("make", [mlp, convnet])
def test_the_value_is_half_the_squared_change_of_the_outputs(make):
    """By running the first layer in both networks, and the damping term on top."""
    model, data = seeded(make), DATA[make]
    result = cbs.quantize(model, data, bits=3, damping=0.0)
    off = model[0](data.inputs) - result.model[0](data.inputs)
    assert result.layers[0].value == pytest.approx(0.5 * off.square().sum().item() / len(data))


@pytest.mark.parametrize("make", [mlp, convnet])
@pytest.mark.parametrize("bits", [2, 3])
def test_feedback_never_has_a_larger_layer_objective_in_any_row(make, bits):
    """By the Grams, row by row; where the nearest levels are better they are taken, which happens."""
    model, taken = seeded(make, seed=5), 0
    network = Network(model, DATA[make])
    grams = network(cbs.Gram())
    one, other = (
        cbs.quantize(model, DATA[make], bits=bits, rounding=rounding) for rounding in ("nearest", "feedback")
    )
    for layer, gram, plain, better in zip(network.layers, grams, one.layers, other.layers, strict=True):
        nearest, feedback = (
            gram.row_values([layer_weights(layer.of(clone(result.model)))]) for result in (one, other)
        )
        assert (feedback <= nearest).all()
        assert (plain.value, better.value) == pytest.approx((nearest.sum(), feedback.sum()))
        assert better.nearest_rows <= int((feedback == nearest).sum())
        taken += better.nearest_rows
    assert other.value < one.value
    assert (make, bits) == (convnet, 2) or taken > 0


def test_without_data_the_same_levels_are_nearest():
    model = masked(convnet)
    one, other = cbs.quantize(model, bits=3), cbs.quantize(model, DATA[convnet], bits=3)
    assert same(state(one.model), state(other.model))
    assert one.bytes == other.bytes
    assert (one.value, one.after, one.layers[0].measured) == (None, None, None)


def test_layers_left_out_stay_as_they_are():
    model = seeded(convnet)
    result = cbs.quantize(model, bits=2, layers=["0"])
    assert [layer.name for layer in result.layers] == ["0"]
    assert torch.equal(result.model[6].weight, model[6].weight)
    assert not torch.equal(result.model[0].weight, model[0].weight)


@pytest.mark.parametrize("granularity", ["weights", "neurons"])
def test_a_pruning_is_quantized_with_its_masks_or_without_its_neurons(granularity, tmp_path):
    pruned = cbs.prune(
        seeded(convnet),
        DATA[convnet],
        sparsity=0.5,
        method="magnitude",
        granularity=granularity,
        certify=False,
    )
    result = cbs.quantize(pruned, DATA[convnet], bits=4, rounding="feedback")
    assert result.before.loss == pytest.approx(pruned.after.loss)
    result.save(tmp_path / "small.safetensors")
    if granularity == "weights":
        for name, mask in pruned.masks.items():
            assert not result.model.get_submodule(name).weight[mask].any()
        like = seeded(convnet)
    else:
        like = pruned.permanent()
        shapes = [p.shape for p in result.model.parameters()]
        assert shapes == [p.shape for p in like.parameters()]
    loaded = cbs.load_quantized(tmp_path / "small.safetensors", like)
    x = DATA[convnet].inputs
    assert torch.equal(loaded.eval()(x), result.model.eval()(x))


def test_eight_bits_hardly_move_the_digits_network():
    model, split = cbs.trained_digits_mlp()
    results = {
        (bits, rounding): cbs.quantize(model, split.train, bits=bits, rounding=rounding, test=split.test)
        for bits in (2, 8)
        for rounding in ("nearest", "feedback")
    }
    eight = results[8, "nearest"]
    assert eight.test_after.accuracy == pytest.approx(eight.test_before.accuracy, abs=0.003)
    assert eight.dense_bytes == 4 * (2720 + 58)
    assert eight.bytes == 2720 + 58 * 8 + 58 * 4  # codes, grids, biases
    assert results[2, "feedback"].after.loss < results[2, "nearest"].after.loss


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "bits must be a whole number from 2 to 8, got 1"),
        ({"bits": 16}, "bits must be a whole number from 2 to 8, got 16"),
        ({"bits": 4.0}, "bits must be a whole number from 2 to 8, got 4.0"),
        ({"per": "rows"}, "unknown per 'rows'; did you mean 'row'"),
        ({"rounding": "near"}, "unknown rounding 'near'; did you mean 'nearest'"),
        ({"grid": "max"}, "unknown grid 'max'; known: search, range"),
        ({"damping": -1}, "damping must be a finite number >= 0, got -1"),
        ({"data": None, "rounding": "feedback"}, "data is missing: rounding 'feedback' is on the layer Gram"),
        ({"data": None, "test": DATA[mlp]}, "data is missing: test needs a loss"),
        ({"samples": 0}, "samples must be a whole number >= 1 or None, got 0"),
        ({"samples": 2.0}, "samples must be a whole number >= 1 or None, got 2.0"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"seed": "x"}, "seed must be a whole number >= 0, got 'x'"),
        ({"layers": ["1"]}, "layers: '1' names no prunable layer"),
        ({"model": 3}, "model must be a torch.nn.Module or the result of a pruning, not int"),
        (
            {"data": (DATA[mlp].inputs * 0, DATA[mlp].targets), "damping": 0.0, "rounding": "feedback"},
            "layer '0'",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(options, message):
    options = {"model": seeded(mlp), "data": DATA[mlp], **options}
    with pytest.raises(ValueError, match=message) as error:
        cbs.quantize(options.pop("model"), options.pop("data"), **options)
    assert len(str(error.value).splitlines()) == 1


def test_half_precision_is_rounded_to_its_own_type_and_back(tmp_path):
    model = seeded(mlp, dtype=torch.float32).to(torch.bfloat16)
    result = cbs.quantize(model, bits=4)
    assert result.model[0].weight.dtype == torch.bfloat16
    result.save(tmp_path / "small.safetensors")
    loaded = cbs.load_quantized(tmp_path / "small.safetensors", model)
    assert same(state(loaded), state(result.model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rounding", ["nearest", "feedback"])
def test_the_value_is_of_the_weights_as_their_type_has_them(dtype, rounding):
    data = Samples(DATA[mlp].inputs.to(dtype), DATA[mlp].targets)
    model = seeded(mlp, dtype=torch.float32).to(dtype)
    result = cbs.quantize(model, data, bits=8, rounding=rounding)
    network = Network(model, data, loss=F.cross_entropy)
    for layer, gram, told in zip(network.layers, network(Gram()), result.layers, strict=True):
        assert told.value == pytest.approx(
            gram.row_values([layer_weights(layer.of(result.model))]).sum(), rel=1e-9
        )


@pytest.mark.parametrize("data", [None, DATA[mlp]])
def test_weights_beyond_what_a_grid_holds_are_refused_and_those_it_holds_are_finite(data):
    model = seeded(mlp)
    with torch.no_grad():
        model[2].weight[0, 0] = 1e60
    with pytest.raises(ValueError, match=r"^layer '2': its weights reach 1e\+60") as error:
        cbs.quantize(model, data)
    assert len(str(error.value).splitlines()) == 1
    with torch.no_grad():
        model[2].weight[0, :2] = torch.tensor([8e37, -8e37])
    assert bool(torch.isfinite(cbs.quantize(model, None).model[2].weight).all())


def test_numbers_of_the_result_are_plain():
    result = cbs.quantize(seeded(mlp), DATA[mlp], bits=np.int64(4))
    assert json.loads(json.dumps(result.to_dict()))["bits"] == 4
    assert "4 bits a weight" in repr(result)


@pytest.mark.slow
def test_mlpnet_keeps_its_accuracy_at_eight_bits_and_feedback_helps_at_few():
    folder = os.environ.get("CBS_DATA")
    if folder is None:
        pytest.skip("CBS_DATA names no folder with MNIST and MLPNet's weights")
    split, model = cbs.mnist(folder), cbs.mlpnet(Path(folder) / "mlpnet_93.97.npz")
    pruned = cbs.prune(
        model, split.train, sparsity=0.9, solver="greedy", samples=5000, certify=False, test=split.test
    )
    for network, dense in ((model, model), (pruned, pruned.model)):
        losses = {}
        for bits in (8, 3):
            for rounding in ("nearest", "feedback"):
                result = cbs.quantize(
                    network, split.train, bits=bits, rounding=rounding, samples=5000, test=split.test
                )
                losses[bits, rounding] = result.test_after.loss
                for name, mask in pruned.masks.items() if network is pruned else ():
                    assert not result.model.get_submodule(name).weight[mask].any()
        eight = cbs.quantize(network, bits=8)
        accuracy = (eight.model(split.test.inputs).argmax(1) == split.test.targets).double().mean().item()
        before = (dense(split.test.inputs).argmax(1) == split.test.targets).double().mean().item()
        assert accuracy == pytest.approx(before, abs=0.001)
        assert losses[3, "feedback"] < losses[3, "nearest"]
        assert losses[8, "nearest"] < losses[3, "feedback"]
