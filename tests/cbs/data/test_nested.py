import pytest
import torch
from torch.utils import _pytree as pytree

from cbs.data import Nested, Shared
from cbs.data.nested import joined, repeated, same

X, IDS = torch.arange(12.0).reshape(6, 2), torch.arange(6)
TABLE = torch.eye(3)


def nested():
    return Nested.of({"x": X, "more": (IDS, [X.double(), None, 3]), "table": Shared(TABLE), "one": X[:1]})


def test_samples_are_taken_and_the_rest_is_shared():
    part = nested()[torch.tensor([4, 1])].given()
    assert torch.equal(part["x"], X[[4, 1]])
    assert part["more"][0].tolist() == [4, 1]
    assert part["more"][1][0].dtype == torch.float64
    assert part["more"][1][1:] == [None, 3]
    assert torch.equal(part["table"], TABLE)
    assert torch.equal(part["one"], X[:1])
    part["table"].fill_(0)
    assert torch.equal(nested().given()["table"], torch.eye(3))
    assert len(nested()) == 6


def test_splitting_and_joining_give_the_same():
    parts = [*nested().split(4)]
    assert [len(part) for part in parts] == [4, 2]
    whole = nested()
    assert same(joined([part.map(lambda t: t) for part in whole.split(4)]), whole)
    assert same(repeated(whole, 2)[6:], whole)


def test_types_and_devices_change_the_shared_too():
    halves = nested().map_all(lambda t: t.half() if t.is_floating_point() else t).given()
    assert halves["table"].dtype == halves["x"].dtype == torch.float16
    assert halves["more"][0].dtype == torch.int64


def test_it_is_a_pytree_of_its_samples():
    leaves, spec = pytree.tree_flatten(nested())
    assert len(leaves) == 3
    assert same(pytree.tree_unflatten(leaves, spec), nested())


@pytest.mark.parametrize(
    ("values", "count", "message"),
    [
        ({"x": X, "y": X[:4]}, None, r"inputs\['y'\] \[4, 2\] is not of 6 samples like the rest"),
        ({"a": {"b": X}}, 5, r"inputs\['a'\]\['b'\] \[6, 2\] is not of 5 samples"),
        ({"a": X, "b": {1, 2}}, None, r"inputs\['b'\] are set; give tensors"),
        ({"a": Shared(TABLE)}, None, "without a tensor of samples"),
    ],
)
def test_what_is_of_no_samples_is_refused(values, count, message):
    with pytest.raises(ValueError, match=message) as error:
        Nested.of(values, count)
    assert "\n" not in str(error.value)
