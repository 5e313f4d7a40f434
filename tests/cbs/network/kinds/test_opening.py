import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import prune as torch_prune

import cbs
from cbs.network.kinds import is_open, open_model
from cbs.network.kinds.opening import parts_of

QUICK = {"sparsity": 0.5, "method": "magnitude", "certify": False}


class Last(nn.Module):
    def __init__(self, rnn=None):
        super().__init__()
        self.rnn = nn.GRU(3, 4, batch_first=True) if rnn is None else rnn
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.rnn(x)[0][:, -1])


def data(count=40):
    g = torch.Generator().manual_seed(1)
    return torch.randn(count, 5, 3, generator=g), torch.randint(0, 3, (count,), generator=g)


class Own(nn.GRU):
    def forward(self, x):
        out, h = super().forward(x)
        return 2 * out, h


class Plain(nn.GRU):
    """Computes what a GRU does."""


def hooked():
    rnn = nn.GRU(3, 4, batch_first=True)
    rnn.register_forward_hook(lambda module, args, output: (2 * output[0], output[1]))
    return rnn


def patched():
    rnn = nn.GRU(3, 4, batch_first=True)
    rnn.forward = rnn.forward
    return rnn


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Own(3, 4, batch_first=True), "does not compute what GRU does"),
        (hooked, "a forward hook may change what it computes"),
        (patched, "its forward was replaced"),
        (
            lambda: parametrizations.weight_norm(nn.GRU(3, 4, batch_first=True), "weight_ih_l0"),
            "a weight of it is computed",
        ),
    ],
)
def test_what_is_not_understood_is_left_out_with_its_reason(make, why):
    with pytest.warns(UserWarning, match=f"not pruned: 'rnn' .*{why}"):
        result = cbs.prune(Last(make()), data(), **QUICK)
    assert why in result.left_out["rnn"]
    assert list(result.masks) == ["fc"]


def test_a_weight_that_others_share_is_left_out():
    model = Last()
    model.twin = nn.GRU(3, 4)
    model.twin.weight_ih_l0 = model.rnn.weight_ih_l0
    found = open_model(model)
    assert not is_open(found.model)
    assert found.left_out["rnn"] == "it shares a weight with 'twin.weight_ih_l0'"


def test_a_plain_subclass_and_a_module_used_twice_are_rewritten():
    class Twice(Last):
        def __init__(self):
            super().__init__(Plain(3, 3, batch_first=True))
            self.again, self.fc = self.rnn, nn.Linear(3, 3)

        def forward(self, x):
            return self.fc(self.again(self.rnn(x)[0])[0][:, -1])

    torch.manual_seed(0)
    result = cbs.prune(Twice(), data(), **QUICK)
    assert {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "fc"} == set(result.masks)
    assert result.model.again is result.model.rnn
    assert not result.left_out


def test_a_network_that_looks_into_its_module_keeps_it():
    class Peeks(Last):
        def forward(self, x):
            return super().forward(x) * self.rnn.weight_ih_l0.mean()

    with pytest.warns(UserWarning, match="does not do the same when it is rewritten"):
        result = cbs.prune(Peeks(), data(), **QUICK)
    assert list(result.masks) == ["fc"]


def test_a_rewriting_that_computes_something_else_is_refused():
    from cbs.network.kinds.recurrent import open_recurrent
    from cbs.network.kinds.registry import _types

    class Odd(nn.GRU):
        pass

    def wrong(module):
        opened, slots = open_recurrent(module)
        opened.l0.forward = lambda x, state: (state[0] + 1.0,)
        return opened, slots

    cbs.register_layer(Odd, wrong)
    try:
        with pytest.warns(UserWarning, match="rewritten as matrices it gives other outputs"):
            result = cbs.prune(Last(Odd(3, 4, batch_first=True)), data(), **QUICK)
    finally:
        del _types[Odd]
    assert list(result.masks) == ["fc"]


def test_masks_from_before_stay():
    torch.manual_seed(0)
    model = Last()
    before = torch.zeros(12, 3, dtype=torch.bool)
    before[::2, 0] = True
    torch_prune.custom_from_mask(model.rnn, "weight_ih_l0", ~before)
    torch_prune.custom_from_mask(model.rnn, "bias_hh_l0", torch.arange(12) > 2)
    result = cbs.prune(model, data(), sparsity=0.5, method="joint", scope="row", certify=False)
    assert bool(result.masks["rnn.weight_ih_l0"][before].all())
    assert torch.equal(result.model.rnn.bias_hh_l0_mask, model.rnn.bias_hh_l0_mask)
    assert torch.equal(result.model.rnn.bias_hh_l0, model.rnn.bias_hh_l0)
    again = cbs.prune(result.model, data(), sparsity=0.75, method="magnitude", certify=False)
    for name, mask in result.masks.items():
        assert bool(again.masks[name][mask].all())
    assert again.sparsity == pytest.approx(0.75, abs=0.01)


def test_layers_are_named_by_their_module_or_by_patterns():
    torch.manual_seed(0)
    model = Last()
    assert [layer.name for layer in cbs.prune(model, data(), layers=["rnn"], **QUICK).layers] == [
        "rnn.l0.gates", "rnn.l0.new_x", "rnn.l0.new_h",
    ]  # fmt: skip
    result = cbs.prune(model, data(), exclude=["*.new_*"], **QUICK)
    assert [layer.name for layer in result.layers] == ["rnn.l0.gates", "fc"]
    assert result.left_out == dict.fromkeys(["rnn.l0.new_x", "rnn.l0.new_h"], "excluded by '*.new_*'")
    with pytest.raises(ValueError, match=r"layers: 'rnn.l0.gate' names no prunable layer; did you mean"):
        cbs.prune(model, data(), layers=["rnn.l0.gate"], **QUICK)


def test_parts_are_told_from_the_rest():
    opened = open_model(Last()).model
    assert parts_of(opened)["rnn.l0.gates"] == "rnn"
    assert "fc" not in parts_of(opened)
