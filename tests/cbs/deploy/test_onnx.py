import onnxruntime
import pytest
import torch
from torch import nn

from cbs.deploy import onnx as module
from cbs.deploy.batch import as_batch
from cbs.deploy.onnx import write_onnx
from cbs.network.surgery import clone
from tests.cbs.networks import Residual, convnet, masked, seeded


@pytest.mark.parametrize(
    ("make", "shape"), [(convnet, (2, 4, 6)), (lambda dtype: Residual().to(dtype), (2, 5, 5))]
)
def test_outputs_are_those_of_torch_for_any_batch(tmp_path, make, shape):
    model = clone(masked(seeded(make, dtype=torch.float32), 0.8)).eval()
    made = write_onnx(model, tmp_path / "net.onnx", torch.randn(5, *shape))
    assert made.error < 1e-6
    running = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    assert running.get_inputs()[0].shape[0] == "batch"
    for count in (1, 7):
        x = torch.randn(count, *shape)
        (found,) = running.run(None, {"input": x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), model(x), rtol=1e-4, atol=1e-6)


class Answering(nn.Module):
    """Keyword arguments, of which one is no tensor; outputs in a mapping, of which one is none."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x, scale=None, times=1):
        y = times * self.layer(x)
        return {"logits": y if scale is None else y * scale, "cache": object(), "parts": (x, y)}


def test_answers_in_structures_become_outputs(tmp_path):
    model = Answering().eval()
    inputs = {"x": torch.randn(5, 4), "scale": torch.rand(5, 1), "times": 3}
    assert write_onnx(model, tmp_path / "net.onnx", as_batch(inputs)).error < 1e-6
    running = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    assert [given.name for given in running.get_inputs()] == ["x", "scale"]
    found = running.run(None, {name: inputs[name].numpy() for name in ("x", "scale")})
    with torch.no_grad():
        wanted = model(**inputs)
    for a, b in zip(found, (wanted["logits"], *wanted["parts"]), strict=True):
        torch.testing.assert_close(torch.from_numpy(a), b)


def test_nothing_is_printed(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(module, "EXPORTERS", {"trace": module.EXPORTERS["trace"]})
    with pytest.raises(ValueError, match="can't be exported"):
        write_onnx(Fixed(), tmp_path / "net.onnx", torch.randn(5, 3))
    assert capfd.readouterr() == ("", "")


class Fixed(nn.Module):
    """What tracing takes for a constant is not one."""

    def forward(self, x):
        return x * len(x.tolist())


def test_a_file_with_other_outputs_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EXPORTERS", {"trace": module.EXPORTERS["trace"]})
    (tmp_path / "net.onnx").write_bytes(b"before")
    with pytest.raises(ValueError, match=r"can't be exported to ONNX \(trace: outputs differ by") as told:
        write_onnx(Fixed(), tmp_path / "net.onnx", torch.randn(5, 3))
    assert "\n" not in str(told.value)
    assert (tmp_path / "net.onnx").read_bytes() == b"before"


def test_what_is_missing_is_told(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="inputs are missing"):
        write_onnx(nn.Linear(2, 2), tmp_path / "net.onnx", None)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="install it, or the extra 'onnx'"):
        write_onnx(nn.Linear(2, 2), tmp_path / "net.onnx", torch.randn(2, 2))


@pytest.mark.slow
def test_the_exporter_by_torch_export(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EXPORTERS", {"torch.export": module.EXPORTERS["torch.export"]})
    model = convnet(dtype=torch.float32)
    assert write_onnx(model, tmp_path / "net.onnx", torch.randn(5, 2, 4, 6)).error < 1e-6
