import numpy as np
import pytest
import torch
from torch import nn

import cbs
from cbs.network.kinds import open_model
from cbs.network.kinds.registry import kind_of

SETTINGS = [(1, 0, 0, 1, 1, True), (2, 1, 1, 1, 1, True), (3, 2, 1, 2, 2, False), (2, 3, 1, 1, 4, True)]


@pytest.mark.parametrize(
    ("kind", "places"), [(nn.ConvTranspose1d, 1), (nn.ConvTranspose2d, 2), (nn.ConvTranspose3d, 3)]
)
@pytest.mark.parametrize("settings", SETTINGS)
def test_transposed_convolutions_give_what_theirs_do(kind, places, settings):
    torch.manual_seed(0)
    stride, padding, more, dilation, groups, bias = settings
    model = kind(4, 8, 3, stride, padding, more, groups, bias, dilation).double()
    opened = open_model(model).model
    x = torch.randn(2, 4, *[5] * places).double()
    assert torch.allclose(model(x), opened(x), rtol=0, atol=1e-12)
    assert torch.allclose(model(x[0]), opened(x[0]), rtol=0, atol=1e-12)


def test_an_output_size_is_kept_to():
    model = nn.ConvTranspose2d(4, 2, 3, stride=2).double()
    opened, x = open_model(model).model, torch.randn(2, 4, 5, 5).double()
    assert torch.allclose(model(x, [12, 11]), opened(x, [12, 11]), rtol=0, atol=1e-12)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 6, 2, stride=2)
        self.up, self.out = nn.ConvTranspose2d(6, 4, 2, stride=2), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        a = self.down(x).relu()
        return self.out(torch.cat([a, self.up(self.deep(a).relu())], dim=1)).mean((2, 3))


def test_a_transposed_convolution_in_a_network():
    torch.manual_seed(0)
    model = UNet().double()
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(30, 2, 6, 6, generator=g).double(), torch.randint(0, 3, (30,), generator=g)
    result = cbs.prune(model, (x, y), sparsity=0.5, method="joint", scope="row", layers=["up"], certify=False)
    seen = []
    handle = model.up.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    model(x)
    handle.remove()
    (z, output), (layer,) = seen[0], result.layers
    moved = result.permanent().up(z) - output
    squares = float(moved.detach().square().sum()) / len(x)
    W = result.permanent().up.weight - model.up.weight
    penalty = layer.damping * float(W.detach().square().sum())
    assert result.value == pytest.approx(0.5 * (squares + penalty), rel=1e-9)
    assert result.masks["up"].shape == model.up.weight.shape
    assert int(result.masks["up"].sum()) == 12 * 4  # rows of the matrix are output channels: 24 inputs each
    assert np.isclose(result.sparsity, 0.5)


def test_gpt2_is_pruned():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, num_labels=3, pad_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = transformers.GPT2ForSequenceClassification(config).eval()
    block = model.transformer.h[0]
    assert kind_of(block.attn.c_attn) is not None
    g = torch.Generator().manual_seed(1)
    data = torch.randint(1, 20, (40, 6), generator=g), torch.randint(0, 3, (40,), generator=g)
    with pytest.warns(UserWarning, match="not pruned"):
        result = cbs.prune(model, data, sparsity=0.5, method="joint", scope="row", certify=False)
    mask = result.masks["transformer.h.0.attn.c_attn"]
    assert mask.shape == block.attn.c_attn.weight.shape == (8, 24)
    assert mask.sum(dim=0).tolist() == [4] * 24
    pruned = result.permanent()
    assert type(pruned.transformer.h[0].attn.c_attn) is type(block.attn.c_attn)
    assert not pruned.transformer.h[0].attn.c_attn.weight[mask].any()
    assert result.value == pytest.approx(sum(layer.measured for layer in result.layers), rel=1e-4)


def test_the_recursion_refuses_what_it_has_no_rule_for():
    g = torch.Generator().manual_seed(1)
    data = torch.randn(30, 2, 6, 6, generator=g).double(), torch.randint(0, 3, (30,), generator=g)
    with pytest.raises(ValueError, match="has no rule of the recursion for 'up', which is no single matrix"):
        cbs.prune(UNet().double(), data, sparsity=0.5, method="obd-recursion")
