import pytest
import torch
from torch.nn import functional as F

from cbs.network.losses import named_loss
from cbs.network.tokens import next_token_cross_entropy, places_and_classes, token_cross_entropy

LOGITS = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randint(0, 3, (4, 5), generator=torch.Generator().manual_seed(1))
Y[0, 2:], Y[3] = -100, -100


def test_a_sequence_counts_its_labelled_places():
    found = token_cross_entropy(LOGITS, Y)
    expected = [F.cross_entropy(o, y) for o, y in zip(LOGITS[:3], Y[:3], strict=True)]
    torch.testing.assert_close(found[:3], torch.stack(expected))
    assert found[3] == 0


def test_the_next_token_is_what_is_told():
    found = next_token_cross_entropy(LOGITS, Y)
    expected = [F.cross_entropy(o[:-1], y[1:]) for o, y in zip(LOGITS[:3], Y[:3], strict=True)]
    torch.testing.assert_close(found[:3], torch.stack(expected))
    outputs, labels = places_and_classes(next_token_cross_entropy, LOGITS, Y)
    assert outputs.shape == (4, 3, 4)
    assert torch.equal(labels, Y[:, 1:])


def test_they_are_known_by_name():
    assert named_loss("token_cross_entropy") is token_cross_entropy
    assert named_loss("next_token_cross_entropy") is next_token_cross_entropy


@pytest.mark.parametrize("outputs", [LOGITS[:, 0], LOGITS[:, :3]])
def test_other_shapes_are_refused(outputs):
    with pytest.raises(ValueError, match=r"token losses take outputs \[N, T, classes\] and targets \[N, T\]"):
        token_cross_entropy(outputs, Y)
