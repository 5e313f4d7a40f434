import pytest
import torch

from cbs.data import Samples, Shared
from cbs.data.samples import together

X, Y = torch.arange(24.0).reshape(12, 2), torch.arange(12)


def ragged():
    parts = [(torch.full((3, 4 + i), float(i)), torch.arange(3) + 3 * i) for i in range(4)]
    return together(parts, 3)


def test_taking_keeps_the_order_asked_for():
    assert Samples(X, Y).take([5, 2, 7]).targets.tolist() == [5, 2, 7]
    mask = torch.zeros(12, dtype=torch.bool)
    mask[[1, 8]] = True
    assert Samples(X, Y).take(mask).targets.tolist() == [1, 8]
    found = ragged().take([11, 0, 1, 4])
    assert [(x.shape[1], y.tolist()) for x, y in found.batches()] == [(7, [2 + 9]), (4, [0, 1]), (5, [4])]


def test_of_differing_shapes_every_pass_sees_all():
    samples = ragged()
    assert len(samples) == 12
    assert [len(x) for x, _ in samples.batches(2)] == [2, 1] * 4
    assert len(samples.few(4)) == 4
    assert len(samples.choose(5)) == 5
    doubled = samples.cast(torch.Tensor.double)
    assert {x.dtype for x, _ in doubled.batches()} == {torch.float64}
    found = samples.answered(lambda x: x.sum(dim=1, keepdim=True))
    assert all(torch.equal(y[:, 0], x.sum(dim=1)) for x, y in found.batches())


def test_casting_leaves_whole_numbers():
    found = Samples({"x": X, "ids": Y, "table": Shared(X)}, X).cast(torch.Tensor.double)
    assert [t.dtype for t in found.inputs.tensors] == [torch.float64, torch.int64]
    assert found.targets.dtype == torch.float32
    assert found.inputs.given()["table"].dtype == torch.float64


def test_targets_may_be_a_structure():
    samples = Samples(X, {"box": X, "label": Y})
    (_, first), *_ = samples.batches(5)
    assert first.given()["label"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        ({"x": X}, Y[:4], "12, 2. is not of 4 samples like the rest"),
        ((X, X), {"y": Y[:4]}, r"targets\['y'\] \[4\] is not of 12"),
        ({"x": X / 0}, None, "inputs hold NaN"),
        (X, (Y, torch.full((12,), float("inf"))), "targets hold NaN"),
    ],
)
def test_structures_are_checked(inputs, targets, message):
    with pytest.raises(ValueError, match=message):
        Samples(inputs, targets)
