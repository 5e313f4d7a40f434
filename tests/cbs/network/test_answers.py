import copy
import types
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from cbs.data import Nested, Samples
from cbs.network.answers import (
    OutputChosen,
    answer,
    choose_output,
    forward,
    functional,
    tell_choice,
    tensors_in,
)

X = torch.arange(24.0).reshape(6, 4)


class Net(nn.Module):
    """Answers in a form with twice its input; and what it was given, for the test to see."""

    def __init__(self, form=lambda y: y):
        super().__init__()
        self.scale, self.form, self.seen = nn.Parameter(torch.tensor(2.0)), form, None

    def forward(self, x, other=None, *, shift=0.0):
        self.seen = x, other, shift
        return self.form(self.scale * x)


@dataclass
class Answered:
    hidden: torch.Tensor
    logits: torch.Tensor


Named = namedtuple("Named", "score mean")
FORMS = {
    "tensor": lambda y: y,
    "tuple": lambda y: (y, -y),
    "list": lambda y: [y, -y],
    "counts first": lambda y: (y.long(), y, -y),
    "scalar first": lambda y: (y.mean(), y),
    "named": lambda y: Named(y, -y),
    "dict": lambda y: {"a": y, "b": -y},
    "logits": lambda y: {"a": -y, "logits": y},
    "object": lambda y: Answered(-y, y),
    "inside": lambda y: ({"a": y}, None),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_output_is_looked_at_by_a_rule(form):
    model = Net(FORMS[form])
    assert torch.equal(forward(model, X), 2 * X)
    assert torch.equal(answer(model, X), 2 * X)
    assert torch.equal(functional(model, {"scale": torch.tensor(3.0)}, X), 3 * X)


@pytest.mark.parametrize(
    ("form", "output"),
    [
        ("tuple", 1), ("tuple", -1), ("tuple", "1"), ("dict", "b"), ("object", "hidden"), ("named", "mean"),
        ("tuple", lambda outputs: outputs[1]), ("inside", lambda outputs: -outputs[0]["a"]),
    ],
)  # fmt: skip
def test_another_output_can_be_named_and_copies_know_it(form, output):
    model = Net(FORMS[form])
    choose_output(model, output)
    for each in (model, copy.deepcopy(model)):
        assert torch.equal(forward(each, X), -2 * X)
    choose_output(model, None)
    assert torch.equal(forward(model, X), 2 * X)


@pytest.mark.parametrize(
    ("form", "output", "message"),
    [
        (lambda y: {"a": 3}, None, "6 samples first, but gives dict of a: int; say which with output="),
        (lambda y: None, None, "but gives NoneType; say which"),
        (lambda y: (y[:3],), None, r"but gives tuple of 0: \[3, 4\]"),
        (lambda y: y.long(), None, "model answers with torch.int64; it must give real numbers"),
        (
            lambda y: (y, y),
            2,
            r"output 2 is none of the model's, which are tuple of 0: \[6, 4\], 1",
        ),
        (lambda y: {"a": y}, "b", "output 'b' is none of the model's"),
        (lambda y: {"a": y}, lambda outputs: 3, "of the model is int; it must be one tensor"),
    ],
)
def test_outputs_that_are_none_are_refused_in_one_line(form, output, message):
    model = Net(form)
    choose_output(model, output)
    with pytest.raises(ValueError, match=message) as error:
        forward(model, X)
    assert "\n" not in str(error.value)


def test_what_names_no_output_is_refused():
    with pytest.raises(ValueError, match=r"output must be a place or name, or a function .* got 1.5"):
        choose_output(Net(), 1.5)


def test_a_choice_that_nobody_made_is_told():
    with pytest.warns(OutputChosen, match=r"tuple of 0: \[6, 4\], 1: \[6, 4\]: of these 0 is looked at"):
        tell_choice((X, X), 6)
    for outputs in (X, (X,), {"logits": X, "hidden": X}, (X, X.mean())):
        tell_choice(outputs, 6)


@pytest.mark.parametrize(
    ("inputs", "seen"),
    [
        ((X, -X), (X, -X, 0.0)),
        ([X], (X, None, 0.0)),
        ({"x": X, "shift": 3.0}, (X, None, 3.0)),
        ({"x": X, "other": X.double()}, (X, X.double(), 0.0)),
    ],
)
def test_structures_are_arguments(inputs, seen):
    model = Net()
    assert torch.equal(forward(model, Samples(inputs).first(6)), 2 * X)
    for found, expected in zip(model.seen, seen, strict=True):
        assert found == expected if not isinstance(expected, torch.Tensor) else torch.equal(found, expected)


class One(nn.Module):
    """Takes a mapping, or a list, as its one argument."""

    def forward(self, batch):
        if isinstance(batch, dict):
            batch = [batch["a"], batch["b"]]
        return batch[0] - batch[1]


class Any(nn.Module):
    """Takes anything, but wants one mapping."""

    def forward(self, *args, **kwargs):
        return args[0]["a"] - args[0]["b"]


@pytest.mark.parametrize("model", [One(), Any()])
def test_a_mapping_is_the_one_argument_where_keywords_are_refused(model):
    inputs = Samples({"a": X, "b": X / 2}).first(6)
    for _ in range(2):
        assert torch.equal(forward(model, inputs), X / 2)
    assert torch.equal(functional(model, {}, inputs), X / 2)


def test_a_list_is_the_one_argument_where_as_many_are_refused():
    assert torch.equal(forward(One(), Samples([X, X / 2]).first(6)), X / 2)


def test_inputs_that_fit_in_no_way_are_refused_in_one_line():
    with pytest.raises(
        ValueError, match=r"refuses inputs {y: \[6, 4\] float32} \(.*; its forward takes x, other, shift"
    ) as error:
        forward(Net(), Samples({"y": X}).first(6))
    assert "\n" not in str(error.value)


def test_structures_go_through_vmap():
    """What samples share is not mapped over; the gradient of one of several inputs is right."""
    table = torch.tensor([1.0, 2.0, 3.0, 4.0])
    inputs = Nested.of({"x": X, "other": None})

    def value(scale, sample):
        return (functional(model, {"scale": scale}, sample[None]) * table).sum()

    model = Net()
    found = torch.func.vmap(torch.func.grad(value), in_dims=(None, 0))(torch.tensor(2.0), inputs)
    torch.testing.assert_close(found, (X * table).sum(dim=1))


def test_tensors_are_found_in_answers_of_every_kind():
    @dataclass
    class Out:
        loss: object
        hidden: object
        logits: torch.Tensor

    a, b, c = torch.zeros(1), torch.ones(2), torch.ones(3)
    for outputs in ([a, (b, {"c": c})], Out(None, {"a": a, "b": [b]}, c), {"x": Out(a, b, c), "n": 3}):
        assert [id(tensor) for tensor in tensors_in(outputs)] == [id(a), id(b), id(c)]
    assert len(tensors_in([pair := (a, b), pair])) == 4
    plain = types.SimpleNamespace(a=a, more=types.SimpleNamespace(b=b, back=None))
    plain.more.back = plain
    assert [id(tensor) for tensor in tensors_in(plain)] == [id(a), id(b)]
    assert [id(tensor) for tensor in tensors_in({"logits": c, "cache": plain})] == [id(c)]
    assert tensors_in(None) == tensors_in("text") == tensors_in(nn.Linear(1, 1)) == []
