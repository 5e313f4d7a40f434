import copy

import numpy as np
import pytest
import torch
from torch import nn

import cbs
from cbs.curvature.counts import paired_tokens
from cbs.curvature.gram import layer_grams
from cbs.curvature.output import output_scales
from cbs.data import Samples
from cbs.network.evaluate import output_changes
from cbs.network.layers import find_layers
from cbs.network.network import Network
from tests.cbs.networks import Text, text_batches, texts


def squared_change(before, after, tokens):
    """Mean over samples of the squared change of the vectors at every place, summed by token: by a loop."""
    found = torch.zeros(before.num_embeddings, dtype=torch.float64)
    moved = after.weight.detach().double() - before.weight.detach().double()
    for row in tokens:
        for token in row[row >= 0].tolist():
            found[token] += moved[token].square().sum()
    return found / len(tokens)


def test_the_gram_of_a_table_is_how_often_tokens_stand_in_a_sample():
    model, (x, y) = Text(), texts()
    (layer,) = find_layers(model, ["words"])
    counts = layer_grams(model, [layer], Samples(x, y, 7))["words"]
    onehot = torch.nn.functional.one_hot(x.flatten(), 12).double()
    dense = onehot.T @ onehot / len(x)
    torch.testing.assert_close(torch.diag(counts), dense, rtol=1e-14, atol=0)


@pytest.mark.parametrize("scope", ["row", "layer"])
def test_objective_measurement_and_the_change_of_its_vectors_agree(scope):
    model, data = Text(), texts()
    result = cbs.prune(model, data, sparsity=0.5, layers=["words"], scope=scope)
    (layer,) = result.layers
    moved = result.model.words.weight.detach().double() - model.words.weight.detach().double()
    expected = 0.5 * squared_change(model.words, result.model.words, data[0]).sum()
    expected += 0.5 * layer.damping * moved.square().sum()
    assert layer.value == pytest.approx(float(expected), rel=1e-6)
    assert layer.measured == pytest.approx(layer.value, rel=1e-9)
    assert sum(row.value for row in layer.rows) == pytest.approx(layer.value, rel=1e-12)


def test_places_that_are_padding_do_not_count():
    model, (x, _) = Text(), texts()
    batches, real = text_batches()
    result = cbs.prune(model, batches, sparsity=0.5, layers=["words"], scope="row", damping=0.0)
    (layer,) = result.layers
    expected = 0.5 * squared_change(model.words, result.model.words, torch.where(real, x, -1))
    np.testing.assert_allclose([row.value for row in layer.rows], expected.numpy(), rtol=1e-6, atol=1e-12)
    everywhere = 0.5 * squared_change(model.words, result.model.words, x)
    assert float((everywhere - expected).abs().max()) > 1e-3


def test_scales_are_the_slope_at_the_places_of_a_token():
    model, (x, y) = Text().double(), texts()
    (layer,) = find_layers(model, ["words"])
    found = output_scales(model, [layer], Samples(x, y, 7), nn.functional.cross_entropy)["words"]
    vectors = model.words(x).detach().requires_grad_()
    loss = nn.functional.cross_entropy(model.answer(vectors), y, reduction="sum")
    (slope,) = torch.autograd.grad(loss, vectors)
    for token in range(12):
        there = slope[x == token]
        expected = float(there.square().mean()) if len(there) else 0.0
        assert float(found[token]) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_the_change_of_a_run_that_repeats_a_table_counts_every_run():
    class Twice(Text):
        def forward(self, tokens):
            return self.answer(self.words(tokens) + self.words(tokens.flip(1)))

    model, (x, y) = Twice(), texts()
    other = copy.deepcopy(model)
    other.words.weight.data[3] = 0
    ((before,), (after,)) = (find_layers(each, ["words"]) for each in (model, other))
    change = output_changes(model, [before], [after], Samples(x, y, 7))["words"]
    expected = 2 * 0.5 * squared_change(model.words, other.words, x)
    np.testing.assert_allclose(change.rows, expected.numpy(), rtol=1e-6, atol=1e-12)


class Maker(nn.Module):
    """A network that makes its tokens itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.words, self.out = nn.Linear(6, 9), nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.words(self.first(x).argmax(dim=1)) + x[:, :4])


def test_tokens_that_hang_on_pruned_layers_are_refused():
    model = Maker()
    data = torch.randn(80, 6), torch.randint(3, (80,))
    network = Network(model, data, layers=["first", "words"])
    other = copy.deepcopy(model)
    same = paired_tokens(network, 1, other, 0.01)
    np.testing.assert_array_equal(same.H.values, network(cbs.Gram(damping=0.01))[1].H.values)
    other.first.weight.data[:4] = 0
    with pytest.raises(ValueError, match="layer 'words': its tokens hang on layers that were pruned before"):
        paired_tokens(network, 1, other, 0.01)
