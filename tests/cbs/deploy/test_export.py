import copy
import io
import pickle

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import cbs
from cbs.deploy.export import slimmed
from tests.cbs.networks import Residual, convnet, image_samples, masked, mlp, samples, seeded


@pytest.fixture(scope="module")
def pruned():
    """The digits network, 90% of its weights pruned; and with half its neurons pruned."""
    model, split = cbs.trained_digits_mlp()
    asked = {"method": "wanda", "certify": False}
    weights = cbs.prune(model, split.train, sparsity=0.9, **asked)
    neurons = cbs.prune(model, split.train, sparsity=0.5, granularity="neurons", **asked)
    return model, split.test.inputs, {"weights": weights, "neurons": neurons}


@pytest.mark.parametrize("what", ["weights", "neurons"])
def test_one_network_in_all_its_forms(tmp_path, pruned, what):
    _, x, results = pruned
    result = results[what]
    made = cbs.export(result, tmp_path / "net.safetensors")
    assert made.needs_model is None
    assert made.bytes == (tmp_path / "net.safetensors").stat().st_size < 0.75 * made.dense_bytes
    assert made.dense_parameters == 2778
    assert made.parameters < 2778
    loaded = cbs.load(tmp_path / "net.safetensors")
    assert sum(p.numel() for p in loaded.parameters()) == made.parameters
    assert not loaded.training
    with torch.no_grad():
        wanted = result.model(x)
        size = wanted.abs().max()
        assert (loaded(x) - wanted).abs().max() <= 1e-5 * size
        quick = cbs.load(tmp_path / "net.safetensors", runtime="sparse")
        assert (quick(x) - wanted).abs().max() <= 1e-5 * size
    if what == "neurons":
        small = result.permanent()
        assert [m.weight.shape for m in loaded[::2]] == [m.weight.shape for m in small[::2]]
        gone = {group.name: len(group.neurons) for group in result.neurons}
        assert {name: count for name, count, _ in made.removed} == gone
        assert sum(gone.values()) == 24


def test_masks_on_any_parameter(tmp_path):
    model = seeded(lambda: nn.Sequential(nn.LSTM(5, 4, batch_first=True)))
    lstm = model[0]
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0"):
        nn.utils.prune.random_unstructured(lstm, name, 0.6)
    made = cbs.export(model, tmp_path / "net.safetensors")
    assert made.needs_model is None
    back = cbs.load(tmp_path / "net.safetensors")[0]
    x = torch.randn(2, 7, 5)
    assert torch.equal(back(x)[0], lstm(x)[0])
    assert float((back.weight_hh_l0 == 0).float().mean()) == pytest.approx(0.6, abs=0.02)


def test_quantized_networks_keep_their_codes(tmp_path, pruned):
    _, x, results = pruned
    quantized = cbs.quantize(results["weights"], bits=4)
    made = cbs.export(quantized, tmp_path / "net.safetensors")
    plain = cbs.export(quantized.model, tmp_path / "plain.safetensors")
    header = 4000
    assert made.bytes - quantized.bytes < header
    assert made.bytes < plain.bytes
    with torch.no_grad():
        assert torch.equal(cbs.load(tmp_path / "net.safetensors")(x), quantized.model(x))


def test_other_precisions_and_structures(tmp_path):
    for make, shape in ((convnet, (2, 4, 6)), (lambda dtype: Residual().to(dtype), (2, 5, 5))):
        for dtype in (torch.float64, torch.bfloat16):
            model = masked(seeded(make, dtype=dtype), 0.8).eval()
            x = torch.randn(3, *shape).to(dtype)
            cbs.export(model, tmp_path / "net.safetensors", inputs=x)
            back = cbs.load(tmp_path / "net.safetensors", model=lambda make=make: make(dtype=torch.float32))
            with torch.no_grad():
                torch.testing.assert_close(back(x), model(x))


def test_two_inputs(tmp_path):
    model = Two()
    nn.utils.prune.l1_unstructured(model.a, "weight", 0.5)
    for inputs in ((torch.randn(3, 4), torch.randn(3, 2)), {"x": torch.randn(3, 4), "y": torch.randn(3, 2)}):
        made = cbs.export(model, tmp_path / "net.onnx", inputs=inputs)
        assert made.error < 1e-5
    assert cbs.export(model, tmp_path / "net.safetensors").needs_model is None


class Two(nn.Module):
    """A network of two inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, x, y):
        return self.a(x) * self.b(y)


def test_what_can_not_be_exported_is_told_in_one_line(tmp_path, pruned):
    model, *_ = pruned
    for given, path, settings, why in (
        (3, "net.safetensors", {}, "model must be"),
        (model, "net.bin", {}, "must end in .safetensors or .onnx"),
        (model, "net.safetensors", {"format": "onnx"}, "must end in"),
        (model, "net.safetensors", {"format": "pickle"}, "must end in"),
        (model, "net.onnx", {}, "inputs are missing"),
        (model, "net.safetensors", {"inputs": torch.randn(0, 64)}, "a batch of some samples"),
        (model, "net.safetensors", {"builder": "nowhere:make"}, "can't be imported"),
    ):
        with pytest.raises(ValueError, match=why) as told:
            cbs.export(given, tmp_path / path, **settings)
        assert "\n" not in str(told.value)
    assert not any(tmp_path.iterdir())
    with pytest.raises(OSError, match="No such file"):
        cbs.export(model, tmp_path / "no folder" / "net.safetensors")
    with pytest.raises(ValueError, match="runtime must be"):
        cbs.load(tmp_path / "net.safetensors", runtime="fast")


def test_what_people_do_with_a_pruned_network(pruned):
    """Save, load, copy, trace and export it by PyTorch's own means, masks and all."""
    _, x, results = pruned
    result = results["weights"]
    with torch.no_grad():
        wanted = result.model(x)
        buffer = io.BytesIO()
        torch.save(result.model.state_dict(), buffer)
        buffer.seek(0)
        again = masked(cbs.digits_mlp(), 0.5)
        again.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(again(x), wanted)
        dense = cbs.digits_mlp()
        dense.load_state_dict(result.state)
        assert torch.equal(dense(x), wanted)
        whole = io.BytesIO()
        torch.save(result.model, whole)
        whole.seek(0)
        assert torch.equal(torch.load(whole, weights_only=False)(x), wanted)
        assert torch.equal(copy.deepcopy(result.model)(x), wanted)
        revived = pickle.loads(pickle.dumps(result))
        assert torch.equal(revived.model(x), wanted)
        assert revived.to_dict() == result.to_dict()
        with pytest.warns(DeprecationWarning, match="deprecated"):
            traced = torch.jit.trace(result.permanent(), x)
        assert torch.equal(traced(x), wanted)
    program = torch.export.export(result.permanent(), (x[:4],))
    assert torch.equal(program.module()(x[:4]), wanted[:4])
    assert result.example.shape == (16, 64)


def test_a_result_from_its_record_has_no_example(tmp_path, pruned):
    *_, results = pruned
    result = results["weights"]
    record = result.to_dict()
    assert "example" not in record
    again = cbs.PruneResult.from_dict(record, result.model, result.saved)
    assert again.example is None
    made = cbs.export(again, tmp_path / "net.safetensors")
    assert made.removed == []
    assert made.parameters == 2778
    kept = sum(layer.kept for layer in result.layers)
    values = load_file(tmp_path / "net.safetensors")
    assert sum(len(values[f"{i}.weight:values"]) for i in (0, 2, 4)) == kept


def test_slimming_leaves_the_model_alone():
    model = masked(seeded(mlp), 0.9)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    slimmed(model, samples(10).inputs)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert model[0].out_features == 5


def test_samples_are_inputs(tmp_path):
    model = masked(seeded(convnet), 0.5).float()
    data = image_samples().cast(torch.Tensor.float)
    assert cbs.export(model, tmp_path / "net.onnx", inputs=data).error < 1e-5
