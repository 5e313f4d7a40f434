import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cbs
from cbs.network.layers import find_layers
from cbs.network.probe import misbehaving
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded

QUICK = {"sparsity": 0.5, "certify": False}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("make", "data"), [(mlp, samples()), (convnet, image_samples())])
def test_stock_layers_behave_in_every_precision(make, data, dtype):
    model = seeded(make).to(dtype)
    seen = []
    model[0].register_forward_hook(lambda module, args, output: seen.append(output))
    assert misbehaving(model, find_layers(model), data.inputs.to(dtype)) == {}
    assert seen


def scaling(model):
    model[2].register_forward_hook(lambda module, args, output: output * 1.01)


def clipping(model):
    def clip(module, args, output):
        module.weight.data.clamp_(-0.01, 0.01)

    model[2].register_forward_hook(clip)


@pytest.mark.parametrize(
    ("change", "why"), [(scaling, "its output is not W x . b"), (clipping, "its weight changes when it runs")]
)
def test_hooks_that_change_something_are_seen(change, why):
    model = seeded(mlp)
    change(model)
    with pytest.warns(UserWarning, match=f"not pruned: '2' .{why}"):
        result = cbs.prune(model, samples(), method="magnitude", **QUICK)
    assert list(result.masks) == ["0", "4"]
    with pytest.raises(ValueError, match="layers: '2' can't be pruned"):
        cbs.prune(model, samples(), method="magnitude", layers=["2"], **QUICK)


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.out = nn.Linear(6, 4).double(), nn.Linear(6, 3).double()

    def forward(self, x):
        return self.out(F.linear(torch.tanh(self.encode(input=x)), self.encode.weight.T))


class Attention(nn.Module):
    """Whose attention is not run as a module: it is a subclass with a forward of its own."""

    class Own(nn.MultiheadAttention):
        def forward(self, x):
            return super().forward(x, x, x)[0]

    def __init__(self):
        super().__init__()
        self.att, self.fc = self.Own(6, 2, batch_first=True).double(), nn.Linear(6, 3).double()

    def forward(self, x):
        return self.fc(self.att(x[:, None].expand(-1, 5, -1)).mean(1))


@pytest.mark.parametrize(("make", "left"), [(Autoencoder, "encode"), (Attention, "att.out_proj")])
def test_weights_used_by_functions_are_left_out(make, left):
    with pytest.warns(UserWarning, match="not pruned") as told:
        result = cbs.prune(make(), samples(), method="joint", **QUICK)
    assert f"'{left}' (its weight is also used without running it)" in str(told[0].message)
    assert left in result.left_out
    assert len(result.layers) == 1


def test_transformer_layers_run_their_linear_modules():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Unflatten(1, (2, 4)),
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    data = samples(30, (8,), dtype=torch.float32)
    result = cbs.prune(model, data, method="joint", scope="row", **QUICK)
    attention = ["1.self_attn.out_proj", "1.self_attn.in_proj_weight"]
    assert sorted(result.masks) == sorted(["1.linear1", "1.linear2", "3", *attention])
    assert not result.left_out


class Keywords(nn.Module):
    def __init__(self, batched):
        super().__init__()
        self.conv, self.fc, self.batched = nn.Conv2d(2, 3, 2).double(), nn.Linear(6, 3).double(), batched

    def forward(self, x):
        if self.batched:
            return self.fc(input=self.conv(input=x).flatten(1))
        return torch.stack([self.fc(self.conv(image).flatten()) for image in x])


@pytest.mark.parametrize("method", ["joint", "magnitude", "cbs"])
def test_keywords_and_single_samples_are_the_same_layers(method):
    found = []
    for batched in (True, False):
        torch.manual_seed(0)
        result = cbs.prune(
            Keywords(batched), samples(20, (2, 3, 2)), sparsity=0.5, method=method, scope="row"
        )
        found.append([layer.value for layer in result.layers])
        assert [layer.measured for layer in result.layers] == pytest.approx(found[-1], rel=1e-9)
        assert min(found[-1]) > 0
    assert found[0] == pytest.approx(found[1], rel=1e-9)
