import torch

from cbs.data import Samples, Shared
from cbs.data.samples import together
from cbs.report.identity import identity
from tests.cbs.networks import mlp, seeded

X, Y = torch.arange(24.0).reshape(12, 2), torch.arange(12)


def digest(samples):
    return identity(seeded(mlp), samples, None)["calibration data"]


def test_order_does_not_count_and_values_and_names_do():
    same = digest(Samples({"a": X, "b": Y}, Y))
    assert digest(Samples({"a": X.flip(0), "b": Y.flip(0)}, Y.flip(0))) == same
    others = [
        Samples({"a": X + 1, "b": Y}, Y), Samples({"a": X, "c": Y}, Y), Samples({"a": X, "b": Y}),
        Samples({"a": X, "b": Y}, Y + 1), Samples((X, Y), Y), Samples({"a": X, "b": Y, "t": Shared(X)}, Y),
        Samples({"a": X, "b": Y, "t": Shared(X + 1)}, Y), Samples(X, Y), Samples(X),
    ]  # fmt: skip
    assert len({same, *map(digest, others)}) == len(others) + 1


def test_samples_of_differing_length_have_a_digest():
    parts = [(X[:4], Y[:4]), (X[4:, :1], Y[4:])]
    assert digest(together(parts, 4)) == digest(together(parts, 8))
    assert digest(together(parts, 4)) != digest(together([(X[:4] + 1, Y[:4]), parts[1]], 4))
