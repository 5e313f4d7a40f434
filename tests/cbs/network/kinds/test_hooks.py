import pytest
import torch
from torch import nn

from cbs.network.kinds.hooks import Refresh, settle
from cbs.network.surgery import make_permanent, put_mask


def test_an_attention_that_trains_keeps_the_masks_of_what_comes_out():
    torch.manual_seed(0)
    model = nn.MultiheadAttention(4, 2, batch_first=True)
    mask = torch.eye(4, dtype=torch.bool)
    put_mask(model.out_proj, "weight", mask)
    settle(settle(model))
    assert sum(isinstance(hook, Refresh) for hook in model._forward_pre_hooks.values()) == 1
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    x = torch.randn(3, 5, 4)
    before = model.out_proj.weight_orig.detach().clone()
    for _ in range(2):
        optimizer.zero_grad()
        model(x, x, x)[0].square().sum().backward()
        optimizer.step()
    moved = model.out_proj.weight_orig - before
    assert not moved[mask].any()
    assert bool(moved[~mask].abs().gt(0).all())
    make_permanent(model)
    settle(model)
    assert not model._forward_pre_hooks


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_encoder_with_masks_runs_its_layers_and_goes_back():
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1).eval()
    assert model.use_nested_tensor
    put_mask(model.layers[0].linear1, "weight", torch.ones(8, 4, dtype=torch.bool).triu(1))
    settle(model)
    x, gone = torch.randn(3, 5, 4), torch.zeros(3, 5, dtype=torch.bool)
    gone[0, 3:] = True
    with torch.no_grad():
        with_masks = model(x, src_key_padding_mask=gone)
        settle(make_permanent(model))
        without = model(x, src_key_padding_mask=gone)
    assert model.use_nested_tensor
    assert torch.allclose(with_masks[~gone], without[~gone], atol=1e-5)
