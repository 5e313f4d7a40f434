import copy
import io
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import cbs
from cbs.deploy import sparse as module
from cbs.deploy.sparse import Compiled, choices, compiled
from tests.cbs.deploy.test_lowering import thinned
from tests.cbs.networks import masked, seeded


def chain(sizes=(200, 120, 40, 10)):
    layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def taken(monkeypatch, *, compiled_is_faster):
    """Have measurements say so."""

    class Times:
        def __init__(self, median):
            self.median = median

    order = [1.0, 0.5, 0.7] if compiled_is_faster else [0.5, 1.0, 0.7]
    monkeypatch.setattr(module, "interleaved", lambda ways, **kw: [*map(Times, order[: len(ways)])])


def test_a_sparse_network_has_the_same_outputs():
    model = thinned(seeded(chain), 0.95)
    for count in (1, 64):
        x = torch.randn(count, 200)
        with torch.no_grad():
            torch.testing.assert_close(cbs.sparse(model, x)(x), model(x), rtol=1e-4, atol=1e-6)


def test_masks_are_made_permanent_and_the_model_stays(monkeypatch):
    taken(monkeypatch, compiled_is_faster=True)
    model = masked(seeded(chain), 0.9)
    names = [*model.state_dict()]
    found = cbs.sparse(model)
    assert isinstance(found, Compiled)
    assert [*model.state_dict()] == names
    x = torch.randn(3, 200)
    with torch.no_grad():
        torch.testing.assert_close(found(x), model(x), rtol=1e-4, atol=1e-6)


class Mixed(nn.Module):
    """An attention that no program has, between layers that one has."""

    def __init__(self):
        super().__init__()
        self.up = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.up(x)
        return self.head(self.attention(x, x, x)[0])


def test_parts_are_compiled_where_the_whole_is_not(monkeypatch):
    model, x = thinned(seeded(Mixed), 0.5), torch.randn(2, 5, 6)
    taken(monkeypatch, compiled_is_faster=True)
    found = cbs.sparse(model, x)
    assert isinstance(found.up, Compiled)
    assert isinstance(found.head, Compiled)
    assert isinstance(found.attention, nn.MultiheadAttention)
    assert {c.name: c.used for c in choices(found)} == {
        "up": "compiled",
        "attention": "torch",
        "head": "compiled",
    }
    with torch.no_grad():
        torch.testing.assert_close(found(x), model(x), rtol=1e-4, atol=1e-6)
    assert isinstance(model.head, nn.Linear)


def test_what_is_not_faster_stays(monkeypatch):
    taken(monkeypatch, compiled_is_faster=False)
    found = cbs.sparse(thinned(seeded(chain)), torch.randn(1, 200))
    assert not any(isinstance(part, Compiled) for part in found.modules())
    assert {choice.reason for choice in choices(found)} == {"it is faster"}


def test_inputs_are_held_to_what_was_compiled():
    program = compiled(thinned(seeded(chain)), torch.randn(2, 200))
    for x, why in (
        (torch.randn(2, 199), r"samples of shape \[200\]"),
        (torch.randn(2, 200).double(), "float32 on the CPU"),
        (torch.randn(2, 200, requires_grad=True), "with gradients"),
    ):
        with pytest.raises(ValueError, match=why):
            program(x)
    assert program(torch.randn(0, 200)).shape == (0, 10)
    assert program(torch.randn(200)).shape == (10,)
    assert program(torch.randn(3, 4, 200)).shape == (3, 4, 10)
    x = torch.randn(200, 5)
    torch.testing.assert_close(program(x.T), program(x.T.contiguous()))


def test_copies_pickles_and_threads():
    model, x = thinned(seeded(chain)), torch.randn(9, 200)
    program = compiled(model, x)
    wanted = program(x)
    for other in (copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        assert torch.equal(other(x), wanted)
    buffer = io.BytesIO()
    torch.save(program, buffer)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: program(x), range(200)):
            assert torch.equal(found, wanted)


def test_inputs_that_can_not_be_guessed_are_asked_for():
    with pytest.raises(ValueError, match="inputs are missing"):
        cbs.sparse(nn.Conv2d(1, 1, 3))
    with pytest.raises(ValueError, match="model must be"):
        cbs.sparse(3)
    with pytest.raises(ValueError, match=r"not made by cbs.sparse"):
        choices(nn.Linear(2, 2))
