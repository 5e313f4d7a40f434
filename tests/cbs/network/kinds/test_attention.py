import itertools

import pytest
import torch
from torch import nn

import cbs
from cbs.network.kinds import open_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"kdim": 3, "vdim": 5}, {"add_bias_kv": True}, {"add_zero_attn": True}],
    ids=str,
)
def test_attention_gives_what_theirs_does(batch_first, options):
    torch.manual_seed(0)
    model = nn.MultiheadAttention(8, 2, batch_first=batch_first, **options).double().eval()
    opened = open_model(model).model
    assert type(opened) is not nn.MultiheadAttention

    def made(length, width):
        shape = (4, length, width) if batch_first else (length, 4, width)
        return torch.randn(shape).double()

    q, k, v = made(5, 8), made(6, options.get("kdim", 8)), made(6, options.get("vdim", 8))
    padding = torch.zeros(4, 6, dtype=torch.bool)
    padding[1, 4:] = True
    ahead = torch.ones(5, 6, dtype=torch.bool).triu(2)
    masks = (
        {},
        {"key_padding_mask": padding, "attn_mask": ahead},
        {"attn_mask": torch.randn(8, 5, 6).double()},
    )
    for mask, (need, average) in itertools.product(masks, [(True, True), (True, False), (False, True)]):
        given = {**mask, "need_weights": need, "average_attn_weights": average}
        for a, b in zip(model(q, k, v, **given), opened(q, k, v, **given), strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.allclose(a, b, rtol=0, atol=1e-12)
    if not options.get("kdim"):
        x, causal = made(5, 8), nn.Transformer.generate_square_subsequent_mask(5).double()
        given = {"attn_mask": causal, "is_causal": True, "need_weights": False}
        assert torch.allclose(model(x, x, x, **given)[0], opened(x, x, x, **given)[0], rtol=0, atol=1e-12)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 2)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        gone = x[..., 0] > 1.0
        gone[:, 0] = False
        found = self.encoder(x, src_key_padding_mask=gone)
        return self.fc(found.masked_fill(gone[..., None], 0.0).mean(1))


def test_an_encoder_is_pruned_trained_and_put_back():
    torch.manual_seed(0)
    model = Encoder().eval()
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(60, 5, 8, generator=g), torch.randint(0, 3, (60,), generator=g)
    result = cbs.prune(model, (x, y), sparsity=0.5, method="obd", certify=False)
    names = [
        f"encoder.layers.{i}.self_attn.{part}" for i in (0, 1) for part in ("in_proj_weight", "out_proj")
    ]
    assert {*names, "fc", "encoder.layers.0.linear1"} <= set(result.masks)
    assert not result.left_out
    pruned = result.permanent().eval()
    assert list(pruned.state_dict()) == list(model.state_dict())
    with torch.no_grad():
        before, after = result.model.eval()(x), pruned(x)  # the latter by the fused path
    assert torch.allclose(before, after, atol=1e-5)
    loss = float(nn.functional.cross_entropy(after, y))
    assert loss == pytest.approx(result.after.loss, rel=1e-4)
    total = sum(mask.numel() for mask in result.masks.values())
    assert sum(int(mask.sum()) for mask in result.masks.values()) == round(total / 2)
    count = sum(p.numel() for p in model.parameters())
    assert result.network_sparsity == pytest.approx(round(total / 2) / count, rel=1e-12)
    optimizer = torch.optim.SGD(result.model.train().parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(result.model(x), y).backward()
        optimizer.step()
    trained = result.state
    for name, mask in result.masks.items():
        key = name if name in trained else f"{name}.weight"
        assert not trained[key][mask].any()
        assert not torch.equal(trained[key], pruned.state_dict()[key]), name


def test_two_of_four_along_the_inputs_of_projections():
    torch.manual_seed(0)
    model = Encoder().eval()
    g = torch.Generator().manual_seed(1)
    data = torch.randn(40, 5, 8, generator=g), torch.randint(0, 3, (40,), generator=g)
    result = cbs.prune(model, data, budget="2:4", method="joint", pipeline="sequential", certify=False)
    for mask in result.masks.values():
        assert bool((mask.reshape(-1, 4).sum(dim=1) == 2).all())
    assert sum(row.measured for row in result.layers) == pytest.approx(result.value, rel=1e-5)
