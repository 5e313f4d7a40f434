import pytest
import torch
from torch import nn

import cbs
from cbs.network.kinds.registry import _types


class LowRank(nn.Module):
    """`U V x + b`."""

    def __init__(self, inputs, rank, outputs):
        super().__init__()
        self.U = nn.Parameter(torch.randn(outputs, rank) / rank**0.5)
        self.V = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.b = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return x @ self.V.T @ self.U.T + self.b


def open_low_rank(module):
    (outputs, rank), inputs = module.U.shape, module.V.shape[1]
    rewritten = nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))
    return rewritten, [cbs.Slot("0.weight", "V"), cbs.Slot("1.weight", "U"), cbs.Slot("1.bias", "b")]


@pytest.fixture
def registered():
    yield cbs.register_layer
    for kind in [key for key in _types if key in (LowRank, Doubled)]:
        del _types[kind]


class Doubled(nn.Linear):
    """Computes what a Linear does, in its own words."""

    def forward(self, x):
        return super().forward(x)


def data(count=50):
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, 6, generator=g).double(), torch.randint(0, 3, (count,), generator=g)


def test_a_layer_type_of_ones_own(registered):
    torch.manual_seed(0)
    model = nn.Sequential(LowRank(6, 4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with pytest.warns(UserWarning, match="LowRank is neither Linear nor a convolution"):
        assert list(cbs.prune(model, data(), sparsity=0.5, method="magnitude", certify=False).masks) == ["2"]
    registered(LowRank, open_low_rank)
    result = cbs.prune(model, data(), sparsity=0.5, method="joint", scope="row")
    assert [layer.name for layer in result.layers] == ["0.0", "0.1", "2"]
    assert set(result.masks) == {"0.U", "0.V", "2"}
    pruned = result.permanent()
    assert type(pruned[0]) is LowRank
    assert result.masks["0.V"].sum(dim=1).tolist() == [3] * 4
    assert not pruned[0].V[result.masks["0.V"]].any()
    assert sum(layer.measured for layer in result.layers) == pytest.approx(result.value, rel=1e-9)
    assert result.gap < 1e-3


def test_a_subclass_of_linear_that_computes_the_same(registered):
    torch.manual_seed(0)
    model = nn.Sequential(Doubled(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with pytest.warns(UserWarning, match="does not compute what torch.nn.Linear does"):
        cbs.prune(model, data(), sparsity=0.5, method="magnitude", certify=False)
    slots = [cbs.Slot("weight", "weight"), cbs.Slot("bias", "bias")]
    registered(Doubled, lambda m: (nn.Linear(m.in_features, m.out_features), slots))
    result = cbs.prune(model, data(), sparsity=0.5, method="magnitude", certify=False)
    assert list(result.masks) == ["0", "2"]
    assert type(result.model[0]) is Doubled


@pytest.mark.parametrize(
    ("slots", "why"),
    [
        ([cbs.Slot("0.weight", "V"), cbs.Slot("1.weight", "U")], "differ in 'b'"),
        (
            [cbs.Slot("0.weight", "U"), cbs.Slot("1.weight", "V"), cbs.Slot("1.bias", "b")],
            "'U' gives .5, 4., and '0.weight' takes .4, 6.",
        ),
        (
            [cbs.Slot("0.weight", "V", lambda v: v[:1].expand_as(v)), cbs.Slot("1.weight", "U"),
             cbs.Slot("1.bias", "b")],
            "must take every entry of 'V' once",
        ),
    ],
)  # fmt: skip
def test_slots_that_do_not_fit_leave_the_module_out(registered, slots, why):
    registered(LowRank, lambda module: (open_low_rank(module)[0], slots))
    model = nn.Sequential(LowRank(6, 4, 5), nn.Linear(5, 3)).double()
    with pytest.warns(UserWarning, match=why):
        result = cbs.prune(model, data(), sparsity=0.5, method="magnitude", certify=False)
    assert list(result.masks) == ["1"]


def test_what_is_registered_is_checked():
    with pytest.raises(ValueError, match=r"kind must be a class of nn\.Module"):
        cbs.register_layer(int, open_low_rank)
    with pytest.raises(ValueError, match="open must be a function of a module, got 3"):
        cbs.register_layer(LowRank, 3)
