import pytest
import torch
from torch import nn

from cbs.diagnosis import variants
from cbs.diagnosis.variants import Variants, batch_size
from cbs.network.surgery import clone
from tests.cbs.diagnosis.test_pair import Tied
from tests.cbs.networks import convnet, image_samples, mlp, residual, samples, seeded


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.cell = nn.GRUCell(5, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        y, _ = self.lstm(x)
        h = y.new_zeros(len(y), 5)
        for t in range(y.shape[1]):
            h = self.cell(y[:, t], h)
        return self.out(h)


class Functional(nn.Module):
    """Uses a weight without running its module, and runs one module twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.twice = nn.Linear(4, 4)
        self.unused_forward = nn.Linear(4, 3)

    def forward(self, x):
        x = self.twice(torch.relu(self.first(x)))
        return nn.functional.linear(torch.tanh(self.twice(x)), self.unused_forward.weight)


def encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
    return nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(24, 3)).eval()


CASES = {
    "mlp": (mlp, (6,)),
    "convnet": (convnet, (2, 4, 6)),
    "residual": (residual, (2, 4, 4)),
    "tied": (Tied, (3,)),
    "recurrent": (Recurrent, (6, 4)),
    "functional": (Functional, (4,)),
    "encoder": (encoder, (3, 8)),
}


def disturbed(model):
    """For every module with parameters a variant in which they are halved, and one of the last two."""
    found = []
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        own = {f"{prefix}{key}": 0.5 * p.detach() for key, p in module.named_parameters(recurse=False)}
        if own:
            found.append(own)
    return [*found, found[-2] | found[-1]]


@pytest.mark.parametrize("case", CASES)
def test_every_variant_answers_as_a_network_with_its_tensors(case):
    make, shape = CASES[case]
    model = seeded(make)
    dtype = next(model.parameters()).dtype
    x = torch.randn(7, *shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    before = {key: values.clone() for key, values in model.state_dict().items()}
    changes = disturbed(model)
    bench = Variants(model, changes)
    for _ in range(2):
        answers = [y.clone() for y in bench.outputs(x)]
        assert len(answers) == 1 + len(changes)
        for answer, tensors in zip(answers, [{}, *changes], strict=True):
            twin = clone(model).eval()
            with torch.no_grad():
                for key, values in tensors.items():
                    twin.state_dict(keep_vars=True)[key].copy_(values)
                expected = twin(x.clone())
            torch.testing.assert_close(answer, expected, rtol=0, atol=1e-6)
    assert len({tuple(answer.flatten().tolist()) for answer in answers}) > len(changes) - 2
    for key, values in model.state_dict().items():
        assert torch.equal(values, before[key])
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_what_runs_before_the_first_change_is_not_run_again():
    model = seeded(mlp, sizes=(6, 5, 4, 3))
    calls = []
    for name in ("0", "2", "4"):
        module = model[int(name)]
        module.forward = lambda x, name=name, own=module.forward: calls.append(name) or own(x)
    changes = [{f"{name}.bias": torch.zeros(size)} for name, size in (("0", 5), ("2", 4), ("4", 3))]
    assert len([*Variants(model, changes).outputs(torch.randn(3, 6, dtype=torch.float64))]) == 4
    assert calls == ["0", "2", "4", "0", "2", "4", "2", "4", "4"]
    assert vars(model[0])["forward"](torch.zeros(1, 6, dtype=torch.float64)).shape == (1, 5)


def test_modules_are_ordered_as_they_run():
    model = seeded(Recurrent)
    names = ["out", "cell", "lstm"]
    bench = Variants(model, [], names)
    next(bench.outputs(torch.randn(2, 3, 4)))
    assert bench.order == ["lstm", "cell", "out"]
    assert [len(bench.base[name]) for name in bench.order] == [1, 3, 1]
    inside = Variants(seeded(encoder), [], ["2", "0.layers.1.self_attn.out_proj", "0.layers.0.linear1"])
    next(inside.outputs(torch.randn(2, 3, 8)))
    assert inside.order == ["0.layers.0.linear1", "0.layers.1.self_attn.out_proj", "2"]


def test_an_exception_leaves_the_network_as_it_was():
    model = seeded(mlp)
    weight = model[0].weight.detach().clone()
    runs = Variants(model, [{"0.weight": torch.zeros(5, 6)}, {"2.weight": torch.zeros(4, 5)}]).outputs(
        samples().inputs
    )
    next(runs), next(runs)
    assert not torch.equal(model[0].weight, weight)
    with pytest.raises(RuntimeError, match="stop"):
        runs.throw(RuntimeError("stop"))
    assert torch.equal(model[0].weight, weight)
    assert not any("forward" in vars(module) for module in model.modules())
    with pytest.raises(ValueError, match="the model refuses inputs of shape"):
        next(Variants(model, []).outputs(torch.randn(3, 7, dtype=torch.float64)))


def test_batches_are_as_small_as_the_memory_asks(monkeypatch):
    model, data = seeded(convnet), image_samples(12)
    with torch.no_grad():
        size = sum(8 * model[: i + 1](data.inputs[:1]).numel() for i in (0, 3, 6))
    monkeypatch.setattr(variants, "MEMORY", 2 * 5 * size)
    assert batch_size(model, ["0", "3", "6"], data) == 5
    assert batch_size(model, ["0", "3", "6"], data, copies=1) == 10
    monkeypatch.setattr(variants, "MEMORY", 1)
    assert batch_size(model, ["0", "3", "6"], data) == 1
    monkeypatch.setattr(variants, "MEMORY", 2**40)
    assert batch_size(model, ["0", "3", "6"], data) == data.batch
