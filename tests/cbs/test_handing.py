"""What results are handed out with: buffers that no training moved are those of the user's network."""

import pytest
import torch
from torch import nn

import cbs
from tests.cbs.networks import samples, seeded


class Counting(nn.Module):
    """Counts its calls, and keeps the last outputs, in evaluation mode too; with a part that is rewritten."""

    def __init__(self):
        super().__init__()
        self.first, self.cell, self.last = nn.Linear(6, 5), nn.GRUCell(5, 4), nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(5)
        self.register_buffer("calls", torch.zeros(2, dtype=torch.long))
        self.register_buffer("kept", torch.zeros(1, 3), persistent=False)

    def forward(self, x):
        self.calls += 1
        self.kept = self.last(self.cell(torch.tanh(self.norm(self.first(x)))))
        return self.kept


@pytest.mark.parametrize(
    ("layers", "options"),
    [
        (None, {}),
        (["first", "last"], {"norms": True}),
        (["first", "last"], {"refit": "network"}),
        (None, {"finetune": 1}),
    ],
)
def test_calls_of_the_work_leave_no_trace(layers, options):
    model, data = seeded(Counting), samples(100, dtype=torch.float32)
    result = cbs.prune(model, data, sparsity=0.5, method="wanda", layers=layers, certify=False, **options)
    assert model.calls.tolist() == [0, 0]
    assert torch.equal(result.undo().calls, model.calls)
    if "finetune" in options:
        return
    assert torch.equal(result.model.calls, model.calls)
    assert torch.equal(result.model.kept, model.kept)
    assert torch.equal(result.permanent().state_dict()["calls"], model.calls)
    moved = not torch.equal(result.model.norm.running_mean, model.norm.running_mean)
    assert moved == ("norms" in options or bool(result.history[-1].norms))


class Attending(nn.Module):
    """Attention, of which one parameter holds several layers."""

    def __init__(self):
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.attention(x, x, x)[0].mean(dim=1))


@pytest.mark.parametrize("exclude", [["attention.v"], ["attention.q", "attention.out_proj"], ["attention"]])
def test_parts_that_are_left_out_are_trained_too(exclude):
    model, data = seeded(Attending), samples(30, (3, 4), dtype=torch.float32)
    result = cbs.prune(
        model, data, sparsity=0.6, method="wanda", stages=2, finetune=1, exclude=exclude, certify=False
    )
    plain = result.permanent()
    weight, dense = plain.attention.in_proj_weight, model.attention.in_proj_weight
    for i, name in enumerate("qkv"):
        part = slice(4 * i, 4 * i + 4)
        left_out = {f"attention.{name}", "attention"} & {*exclude}
        assert bool((weight[part] == 0).any()) != bool(left_out)
        assert not torch.equal(weight[part], dense[part])  # trained
    x = data.inputs
    torch.testing.assert_close(result.model.eval()(x), plain.eval()(x))
    loss = torch.nn.functional.cross_entropy(plain(x), data.targets).detach()
    assert result.after.loss == pytest.approx(float(loss), rel=1e-5)
