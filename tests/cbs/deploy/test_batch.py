import dataclasses
import types

import pytest
import torch
from torch import nn

from cbs.data import Samples
from cbs.deploy.batch import arguments, as_batch, call, difference, tensors_of


class Two(nn.Module):
    def forward(self, x, y):
        return {"sum": x.add_(y), "both": (x, y)}


def test_inputs_of_all_kinds():
    x, y = torch.ones(3, 2), torch.ones(3, 2)
    for given in ((x, y), {"x": x, "y": y}, Samples((x, y), torch.zeros(3))):
        batch = as_batch(given)
        assert len(batch) == 3
        assert torch.equal(call(Two(), batch)["sum"], 2 * torch.ones(3, 2))
        assert torch.equal(x, torch.ones(3, 2))
        args, kwargs = arguments(Two(), batch[:1])
        assert [t.shape for t in (*args, *kwargs.values())] == [(1, 2), (1, 2)]
    assert as_batch(None) is None
    assert as_batch(x) is x
    for wrong in (torch.ones(0, 2), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="a batch of some samples"):
            as_batch(wrong)


def test_difference_is_relative_to_the_largest():
    wanted = {"a": torch.tensor([4.0, 1.0]), "b": [torch.tensor([2.0])]}
    assert len(tensors_of(wanted)) == 2
    assert difference(wanted, wanted) == 0
    assert difference({"a": torch.tensor([4.0, 2.0]), "b": [torch.tensor([2.0])]}, wanted) == 0.25
    assert difference(torch.ones(2), torch.ones(3)) == float("inf")
    assert difference(torch.tensor([float("nan")]), torch.ones(1)) == float("inf")


def test_answers_that_are_objects_are_compared():
    @dataclasses.dataclass
    class Out:
        logits: torch.Tensor

    a, b = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5])
    for kind in (Out, lambda x: types.SimpleNamespace(logits=x)):
        assert difference(kind(a), kind(a)) == 0.0
        assert difference(kind(b), kind(a)) == 0.25
