import pytest
import torch
from torch import nn

import cbs
from cbs.deploy.semi_structured import conforms, why_not


def half(m=32, n=64):
    """A layer with two zeros among every four neighbours."""
    layer = nn.Linear(n, m)
    keep = torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(n // 4)
    layer.weight.data.mul_(keep)
    return layer.half()


def test_conformity_is_counted_in_fours():
    weight = torch.tensor([[1.0, 0, 2, 0, 0, 0, 3, 4]])
    assert conforms(weight)
    assert conforms(torch.zeros(3, 8))
    assert not conforms(torch.tensor([[1.0, 2, 3, 0, 0, 0, 0, 0]]))
    assert not conforms(torch.tensor([[0.0, 0, 1, 2, 3, 0, 0, 4]])[:, :6])
    assert conforms(torch.tensor([[0.0, 0, 1, 2, 3, 0, 0, 4]]))


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (half(), None),
        (half().float(), "its type is torch.float32"),
        (half(33, 64), "no multiple of"),
        (half(32, 60), "no multiple of"),
        (nn.Linear(64, 32).half(), "more than two"),
        (nn.Conv2d(1, 1, 1), "no Linear"),
    ],
)
def test_every_reason_is_told(layer, why):
    assert (why_not(layer) is None) if why is None else (why in why_not(layer))


def test_refusals_in_one_line():
    with pytest.raises(ValueError, match=r"no linear layer has 2:4 zeros.*more than two"):
        cbs.sparse(nn.Sequential(nn.Linear(64, 32)).half(), device="cuda")
    with pytest.raises(ValueError, match="'cpu' or 'cuda'"):
        cbs.sparse(nn.Sequential(half()), device="meta")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="needs CUDA, which is not available"):
            cbs.sparse(nn.Sequential(half()), device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_computes_the_same():
    model = nn.Sequential(half(128, 128), nn.ReLU(), half(64, 128))
    x = torch.randn(32, 128).half().cuda()
    dense = model.cuda()(x)
    torch.testing.assert_close(cbs.sparse(model, device="cuda")(x), dense, rtol=1e-2, atol=1e-2)
