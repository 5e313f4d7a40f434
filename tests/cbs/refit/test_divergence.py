"""What is matched: gradients and curvatures by the outputs are those of automatic differentiation."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import grad, jacrev
from torch.nn import functional as F

from cbs.network.distance import OutputDistance
from cbs.network.tokens import token_cross_entropy
from cbs.refit.divergence import Bernoullis, Classes, Labels, Places, Probabilities, Squares, choose

N, C = 6, 4


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(*shape, seed=0):
    return torch.randint(C, shape, generator=torch.Generator().manual_seed(seed))


CASES = {
    "classes": (Probabilities(), (N, C), drawn(N, C, seed=1)),
    "classes at places": (Probabilities(), (N, C, 3), drawn(N, C, 3, seed=1)),
    "tokens": (Places(Probabilities()), (N, 3, C), drawn(N, 3, C, seed=1)),
    "labels of their own": (Bernoullis(), (N, C), drawn(N, C, seed=1)),
    "numbers": (Squares(), (N, C), drawn(N, C, seed=1)),
    "cross entropy": (Classes(F.cross_entropy), (N, C), labels(N)),
    "cross entropy at places": (Classes(F.cross_entropy), (N, C, 3), labels(N, 3)),
    "cross entropy of probabilities": (Classes(F.cross_entropy), (N, C), drawn(N, C, seed=2).softmax(dim=1)),
    "smooth labels": (Labels(partial(F.cross_entropy, label_smoothing=0.1)), (N, C), labels(N)),
    "huber": (Labels(F.huber_loss), (N, C), drawn(N, C, seed=3)),
    "poisson": (Labels(F.poisson_nll_loss), (N, C), drawn(N, C, seed=3).exp()),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gradient_and_curvature_are_those_of_the_values(name):
    divergence, shape, known = CASES[name]
    o, v, z = drawn(*shape, seed=4), drawn(*shape, seed=5), drawn(*shape, seed=6)
    if name == "cross entropy at places":
        known[0] = labels(3, seed=1)
        known[0, 1] = -100  # a sample of which a place does not count
    values, slopes = divergence.values(o, known), divergence.gradient(o, known)
    products, columns = divergence.product(o, known, v), divergence.columns(o, known)
    rooted = divergence.rooted(o, known, z)
    assert values.shape == (N,)
    assert columns.shape == (o[0].numel(), *shape)
    for s in range(N):

        def alone(one, s=s):
            return divergence.values(one[None], known[s : s + 1])[0]

        assert float(values[s]) == pytest.approx(float(alone(o[s])), rel=1e-12)
        torch.testing.assert_close(slopes[s], grad(alone)(o[s]), rtol=1e-9, atol=1e-12)
        B = jacrev(jacrev(alone))(o[s]).reshape(o[s].numel(), -1)
        torch.testing.assert_close(products[s].reshape(-1), B @ v[s].reshape(-1), rtol=1e-9, atol=1e-12)
        R = columns[:, s].reshape(o[s].numel(), -1).T
        torch.testing.assert_close(R @ R.T, B, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(R @ z[s].reshape(-1), rooted[s].reshape(-1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["classes", "classes at places", "tokens", "labels of their own", "numbers"])
def test_nothing_diverges_from_itself(name):
    divergence, _, known = CASES[name]
    assert divergence.values(known, known) == pytest.approx(torch.zeros(N), abs=1e-15)
    assert bool((divergence.values(known + drawn(*known.shape, seed=9), known) > 0).all())


def test_probabilities_that_are_zero_do_not_count():
    dense = torch.tensor([[0.0, -float("inf"), 1.0]], dtype=torch.float64)
    o = torch.tensor([[0.0, 3.0, 1.0]], dtype=torch.float64)
    p, q = dense.softmax(dim=1), o.softmax(dim=1)
    expected = sum(float(p[0, c] * (p[0, c] / q[0, c]).log()) for c in (0, 2))
    assert float(Probabilities().values(o, dense)) == pytest.approx(expected, rel=1e-12)


def test_negative_curvature_is_left_out():
    bent = Labels(lambda o, y: (o.square() * torch.tensor([1.0, -1.0])).sum() / len(o))
    o, v = drawn(3, 2), drawn(3, 2, seed=1)
    expected = 2 * v * torch.tensor([1.0, 0.0])
    torch.testing.assert_close(bent.product(o, torch.zeros(3, 2), v), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        (F.cross_entropy, Probabilities), (nn.CrossEntropyLoss(label_smoothing=0.1), Probabilities),
        (partial(F.cross_entropy, reduction="sum"), Probabilities), (F.mse_loss, Squares),
        (nn.L1Loss(), Squares), (F.smooth_l1_loss, Squares), (F.huber_loss, Squares),
        (F.binary_cross_entropy_with_logits, Bernoullis), (nn.BCEWithLogitsLoss(), Bernoullis),
        (token_cross_entropy, Places), (OutputDistance(1.0), Squares),
    ],
)  # fmt: skip
def test_the_loss_says_what_is_matched(loss, kind):
    assert type(choose(loss, None, False, drawn(N, C), drawn(N, C))) is kind


def test_match_says_it_otherwise():
    assert type(choose(F.cross_entropy, "outputs", False, drawn(N, C), labels(N))) is Squares
    assert type(choose(F.poisson_nll_loss, "outputs", False, drawn(N, 1), drawn(N, 1))) is Squares
    assert type(choose(F.mse_loss, "probabilities", False, drawn(N, C), drawn(N, C))) is Probabilities
    assert type(choose(F.nll_loss, None, False, drawn(N, C).log_softmax(1), labels(N))) is Probabilities


def test_labels_ask_for_the_loss_itself():
    assert type(choose(F.cross_entropy, None, True, drawn(N, C), labels(N))) is Classes
    assert type(choose(nn.NLLLoss(), None, True, drawn(N, C).log_softmax(1), labels(N))) is Classes
    weighted = nn.CrossEntropyLoss(torch.rand(C).double(), reduction="sum")
    assert type(choose(weighted, None, True, drawn(N, C), labels(N))) is Labels
    assert type(choose(F.mse_loss, None, True, drawn(N, C), drawn(N, C))) is Labels


@pytest.mark.parametrize(
    ("loss", "options", "outputs", "words"),
    [
        (F.poisson_nll_loss, {}, (N, C), r"^match must be given for loss poisson_nll_loss"),
        (lambda o, y: o.sum(), {}, (N, C), r"^match must be given for loss <lambda>"),
        (F.cross_entropy, {}, (N, 1), r"^match 'probabilities' takes .* are \[6, 1\]; give match='outputs'"),
        (F.mse_loss, {"match": "probabilities"}, (N,), r"^match 'probabilities' takes outputs"),
        (F.nll_loss, {}, (N, C), r"^loss nll_loss takes log-probabilities, .* give loss 'cross_entropy'"),
        (F.l1_loss, {"labels": True}, (N, C), r"^labels: loss l1_loss has no curvature"),
        (F.mse_loss, {"labels": True}, (N, 200), r"^labels: loss mse_loss of 200 outputs a sample"),
    ],
)
def test_what_can_not_be_matched_is_refused(loss, options, outputs, words):
    o = drawn(*outputs)
    with pytest.raises(ValueError, match=words) as error:
        choose(loss, options.get("match"), options.get("labels", False), o, drawn(*outputs, seed=1))
    assert "\n" not in str(error.value)
