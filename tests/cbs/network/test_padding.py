import pytest
import torch
from torch import nn

from cbs.curvature.gram import layer_grams
from cbs.curvature.output import output_scales
from cbs.data import Nested, Samples
from cbs.network.evaluate import evaluate, output_changes
from cbs.network.layers import find_layers
from cbs.network.padding import masks_of, padded, real, require_named, silent
from cbs.network.tokens import token_cross_entropy
from tests.cbs.networks import seeded

N, T = 12, 5
LENGTHS = torch.arange(N) % T + 1
MASK = torch.arange(T) < LENGTHS[:, None]


class Tokens(nn.Module):
    """A label for every token, by itself."""

    def __init__(self):
        super().__init__()
        self.table, self.a, self.b = nn.Embedding(9, 4), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, ids, attention_mask=None, pad=None):
        return self.b(torch.tanh(self.a(self.table(ids))))


def model():
    return seeded(Tokens).double().eval()


def batch(name="attention_mask", mask=MASK):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, 9, (N, T), generator=generator) * MASK
    labels = torch.randint(0, 3, (N, T), generator=generator).masked_fill(~MASK, -100)
    return Samples({"ids": ids, name: mask}, labels)


def alone(samples):
    """The same sequences, each without its padding."""
    ids, labels = samples.inputs.given()["ids"], samples.targets
    return [(ids[i : i + 1, :n], labels[i : i + 1, :n]) for i, n in enumerate(LENGTHS.tolist())]


@pytest.mark.parametrize(
    ("name", "mask", "padding"),
    [
        ("attention_mask", MASK, None),
        ("attention_mask", MASK.long(), None),
        ("attention_mask", MASK.float(), None),
        ("pad", ~MASK, "~pad"),
        ("pad", MASK.long(), "pad"),
    ],
)
def test_padding_has_no_part_in_grams(name, mask, padding):
    net, samples = model(), batch(name, mask).with_padding(padding)
    layers = find_layers(net, ["a", "b"])
    found = layer_grams(net, layers, samples)
    X = torch.cat([net.table(ids)[0] for ids, _ in alone(samples)])
    for layer, inputs in zip(layers, (X, torch.tanh(net.a(X))), strict=True):
        Z = torch.nn.functional.pad(inputs, (0, 1), value=1.0)
        torch.testing.assert_close(found[layer.name], Z.T @ Z / N)


def test_padding_has_no_part_in_changes_of_outputs_and_scales():
    net, samples = model(), batch()
    layers = find_layers(net, ["a", "b"])
    after = model()
    with torch.no_grad():
        after.a.weight[:, 1] = 0
        after.a.bias += 0.5
    changed = output_changes(net, layers, [layer.of(after) for layer in layers], samples)
    X = torch.cat([net.table(ids)[0] for ids, _ in alone(samples)])
    torch.testing.assert_close(
        torch.from_numpy(changed["a"].rows), 0.5 * (after.a(X) - net.a(X)).square().sum(dim=0) / N
    )

    def loss(outputs, targets):
        return outputs.square().sum(dim=(1, 2))  # of padding too

    scales = output_scales(net, layers, samples, loss)
    torch.testing.assert_close(scales["b"], (2 * net.b(torch.tanh(net.a(X)))).square().mean(dim=0))


def test_a_mask_that_leaves_nothing_out_changes_nothing():
    assert masks_of(batch(mask=torch.ones_like(MASK)).inputs) == ()
    assert masks_of(Samples(torch.ones(3, 2)).inputs) == ()
    assert masks_of(batch(mask=torch.where(MASK, 0.0, -9.0)).inputs) == ()  # is added to scores


def test_places_are_told_by_shape():
    with padded(batch().inputs):
        assert torch.equal(real(torch.ones(N, T, 3)), MASK)
        assert torch.equal(real(torch.ones(T, N, 3)), MASK.T)
        assert torch.equal(real(torch.ones(N * T, 3)), MASK.flatten())
        assert real(torch.ones(N, 3)) is None
    assert real(torch.ones(N, T, 3)) is None
    both = Nested.of({"attention_mask": MASK, "src_key_padding_mask": MASK.flip(1)})
    with padded(both):
        assert torch.equal(real(torch.ones(N, T, 3)), MASK | ~MASK.flip(1))


def test_a_sequence_without_padding_keeps_its_places_beside_a_padded_one_of_its_length():
    """Whether its own mask says so, or it is a decoder's and has none."""
    own = Nested.of({"attention_mask": MASK, "decoder_attention_mask": torch.ones_like(MASK)})
    none = Nested.of({"attention_mask": MASK, "decoder_input_ids": torch.ones(N, T).long()})
    tgt = Nested.of({"src_key_padding_mask": ~MASK, "tgt": torch.ones(N, T, 3)})
    for inputs in (own, none, tgt):
        with padded(inputs):
            places = real(torch.ones(N, T, 3))
            assert places is None or bool(places.all())
        assert silent(torch.ones(N, T, 3), inputs).all()
    longer = Nested.of({"attention_mask": MASK, "decoder_input_ids": torch.ones(N, T + 1).long()})
    with padded(longer):
        assert torch.equal(real(torch.ones(N, T, 3)), MASK)
        assert real(torch.ones(N, T + 1, 3)) is None


def test_outputs_of_padding_are_silent():
    found = silent(torch.ones(N, T, 3), batch().inputs)
    assert torch.equal(found[..., 0] == 1, MASK)
    assert silent(torch.ones(N, 3), batch().inputs).all()


@pytest.mark.parametrize("name", ["mask", "~ids2"])
def test_a_name_of_no_entry_is_refused(name):
    with pytest.raises(ValueError, match=r"padding .* must name an entry \[N, T\] of a batch, which is {ids"):
        require_named(batch(), name)


def test_labels_that_are_ignored_do_not_count():
    """Loss and accuracy of tokens, padded or not, are those of each sequence alone."""
    net, samples = model(), batch()
    found = evaluate(net, samples, token_cross_entropy)
    parts = [(net(ids)[0].detach(), labels[0]) for ids, labels in alone(samples)]
    expected = torch.stack([nn.functional.cross_entropy(o, y) for o, y in parts]).mean()
    right = torch.cat([o.argmax(dim=1) == y for o, y in parts]).double().mean()
    assert found.loss == pytest.approx(float(expected))
    assert found.accuracy == pytest.approx(float(right))
