import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from cbs.data import Samples, gather

X = torch.arange(24.0).reshape(12, 2)
Y = torch.arange(12)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


FORMS = {
    "samples": lambda: Samples(X, Y),
    "tensors": lambda: (X, Y),
    "arrays": lambda: (X.numpy(), Y.numpy()),
    "data set": lambda: TensorDataset(X, Y),
    "loader": lambda: DataLoader(TensorDataset(X, Y), batch_size=5),
    "stream": lambda: Stream(),
    "list of batches": lambda: [(X[:7], Y[:7]), (X[7:], Y[7:])],
    "generator": lambda: ((X[i : i + 3], Y[i : i + 3]) for i in range(0, 12, 3)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_samples(form):
    found = gather(FORMS[form]())
    assert torch.equal(found.inputs, X)
    assert torch.equal(found.targets, Y)
    few = gather(FORMS[form](), 4, seed=1)
    assert len(few) == 4
    assert torch.equal(few.inputs, X[few.targets])
    expected = [0, 1, 2, 3] if form in ("loader", "stream", "list of batches", "generator") else None
    assert few.targets.tolist() == (expected or gather((X, Y), 4, seed=1).targets.tolist())


def test_draws_differ_by_seed_and_have_no_repeats():
    draws = [gather((X, Y), 6, seed=s).targets.tolist() for s in range(5)]
    assert len({tuple(draw) for draw in draws}) > 1
    assert all(len(set(draw)) == 6 for draw in draws)


def test_batches_are_in_order_and_no_larger_than_the_data_came_in():
    sizes = [len(x) for x, _ in Samples(X, Y).batches(5)]
    assert sizes == [5, 5, 2]
    loader = DataLoader(TensorDataset(X, Y), batch_sampler=[[0], [3, 2, 1], [5, 4]])
    found = gather(loader)
    assert found.batch == found.choose(4).batch == found.to("cpu").batch == 3
    assert [len(x) for x, _ in found.batches(5)] == [3, 3]
    assert len(found.first(5)) == 3
    assert gather((X, Y)).batch == gather(TensorDataset(X, Y)).batch == gather(Stream()).batch == 500


@pytest.mark.parametrize("form", FORMS)
def test_batches_are_copies(form):
    found = gather(FORMS[form]())
    for x, y in found.batches(5):
        x.fill_(-1)
        y.fill_(-1)
    found.first(3).fill_(-1)
    assert torch.equal(found.inputs, torch.arange(24.0).reshape(12, 2))
    assert torch.equal(found.targets, torch.arange(12))


def test_a_loader_may_fill_one_buffer_again():
    buffer = torch.zeros(3, 2)

    def stream():
        for i in range(4):
            buffer.copy_(X[3 * i : 3 * i + 3])
            yield buffer, Y[3 * i : 3 * i + 3]

    assert torch.equal(gather(stream()).inputs, X)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y[:3]), r"inputs \[12, 2\] and targets \[3\]"),
        ((X[:0], Y[:0]), "holds no samples"),
        ([], "holds no samples"),
        ((torch.full((2, 2), float("nan")), Y[:2]), "inputs hold NaN"),
        ((X, torch.full((12,), float("inf"))), "targets hold NaN or infinite"),
        ([(X, Y, Y)], r"a batch is tuple of 3; give \(inputs, targets\)"),
        ([((X, X[:5]), Y)], r"inputs\[1\] \[5, 2\] is not of 12 samples like the rest; .* cbs.Shared"),
        ((X, 3), "targets are int, but must be"),
        ({"x": 3}, "inputs are dict with keys 'x' without a tensor"),
        ({"x": X, "labels": Y, "label": Y}, "targets under 'labels' and 'label'"),
        ({"x": [object()]}, r"inputs\['x'\]\[0\] are object; give tensors"),
        ({"labels": Y}, "inputs are dict with keys  without a tensor"),
        ([(X, Y), (X, Y), X], "some batches have targets and others have none"),
        ([(X, Y), ({"x": X}, Y)], r"inputs of batches differ: \[12, 2\] torch.float32 and {x"),
        ((torch.nn.utils.rnn.pack_sequence([X, X[:2]]), Y[:2]), "is a PackedSequence"),
        (DataLoader(TensorDataset(X, Y), batch_size=None), "a DataLoader needs a batch_size"),
        ((X.to(torch.complex64), Y), "inputs are Tensor .* of torch.complex64; give a dense"),
        ((X.to_sparse(), Y), "inputs are Tensor .* of torch.sparse_coo .*; give a dense"),
        ((np.array([[1, 2], [3, None]]), Y[:2]), "inputs are ndarray .* of object .*; give numbers"),
        ((1 / 0 for _ in range(3)), "can't be read .ZeroDivisionError"),
        ([(X, Y), (X[:, :1].flatten(), Y)], "inputs of batches differ"),
        (3, "not int"),
        ("mnist", "not str"),
    ],
)
def test_bad_data_is_refused_in_one_line(data, message):
    with pytest.raises(ValueError, match=message) as error:
        gather(data)
    assert "\n" not in str(error.value)


UNLABELLED = {
    "tensor": lambda: X,
    "array": lambda: X.numpy(),
    "one of one": lambda: (X,),
    "with None": lambda: (X, None),
    "list of tensors": lambda: [X[:4], X[4:8], X[8:]],
    "list of ones": lambda: [(X[:4],), (X[4:],)],
    "data set": lambda: TensorDataset(X),
    "loader": lambda: DataLoader(TensorDataset(X), batch_size=5),
}


@pytest.mark.parametrize("form", UNLABELLED)
def test_data_may_have_no_targets(form):
    found = gather(UNLABELLED[form]())
    assert torch.equal(found.inputs, X)
    assert found.targets is None
    assert not found.labelled
    assert [y for _, y in found.batches(5)] == [None] * 3
    assert gather(UNLABELLED[form](), 4).targets is None


@dataclass
class Tokens(Mapping):
    """A batch as tokenizers give it: a mapping that is no dict."""

    data: dict

    def __getitem__(self, key):
        return self.data[key]

    def __iter__(self):
        return iter(self.data)

    def __len__(self):
        return len(self.data)


IDS, MASK = torch.arange(60).reshape(12, 5), torch.arange(5) < torch.arange(12)[:, None] % 5 + 1
NAMED = {
    "dict": lambda: {"input_ids": IDS, "attention_mask": MASK, "labels": Y},
    "mapping": lambda: Tokens({"input_ids": IDS, "attention_mask": MASK, "labels": Y}),
    "list of mappings": lambda: [
        Tokens({"input_ids": IDS[i : i + 6], "attention_mask": MASK[i : i + 6], "labels": Y[i : i + 6]})
        for i in (0, 6)
    ],
    "pair": lambda: ({"input_ids": IDS, "attention_mask": MASK}, Y),
    "data set": lambda: Items(),
    "loader": lambda: DataLoader(Items(), batch_size=5),
}


class Items(Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        return {"input_ids": IDS[i], "attention_mask": MASK[i], "labels": int(Y[i])}


@pytest.mark.parametrize("form", NAMED)
def test_a_mapping_holds_its_targets_by_name(form):
    found = gather(NAMED[form]())
    assert torch.equal(found.targets, Y)
    given = found.inputs.given()
    assert list(given) == ["input_ids", "attention_mask"]
    assert torch.equal(given["input_ids"], IDS)
    assert torch.equal(given["attention_mask"], MASK)


class Needs(torch.nn.Module):
    def forward(self, x, target):
        return x


def test_what_a_model_demands_by_name_is_no_target():
    batch = {"x": X, "target": Y}
    assert torch.equal(gather(batch).targets, Y)
    assert gather(batch, model=Needs()).targets is None


def test_two_ends_of_an_answer_are_targets_together():
    found = gather({"input_ids": IDS, "start_positions": Y, "end_positions": Y + 1})
    assert torch.equal(found.targets.given()["end_positions"], Y + 1)


def test_batches_of_differing_length_stay_as_they_came():
    lengths = (3, 5, 5, 4)
    batches = [
        {"input_ids": IDS[3 * i : 3 * i + 3, :n], "labels": Y[3 * i : 3 * i + 3]}
        for i, n in enumerate(lengths)
    ]
    found = gather(batches)
    assert len(found) == 12
    assert found.batch == 3
    assert found.ragged
    shapes = [tuple(x.given()["input_ids"].shape) for x, _ in found.batches()]
    assert shapes == [(3, 3), (3, 5), (3, 5), (3, 4)]
    assert torch.equal(torch.cat([y for _, y in found.batches()]), Y)
    few = found.choose(5, seed=1)
    rows = [row.tolist() for x, _ in few.batches() for row in x.given()["input_ids"][:, :3]]
    assert rows == [IDS[int(y), :3].tolist() for _, ys in few.batches() for y in ys]


def test_a_loader_that_shuffles_gives_the_same_by_the_seed_and_leaves_generators_alone():
    loader = DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True)
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    first, again, other = (gather(loader, 7, seed).targets.tolist() for seed in (0, 0, 1))
    assert first == again != other
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), str(np.random.get_state()))  # noqa: NPY002


def test_workers_and_endless_data_are_read():
    loader = DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True, num_workers=1)
    assert gather(loader, seed=3).targets.tolist() == gather(loader, seed=3).targets.tolist()

    class Endless(IterableDataset):
        def __iter__(self):
            return itertools.cycle(zip(X, Y, strict=True))

    assert torch.equal(gather(Endless(), 30).targets, torch.cat([Y, Y, Y])[:30])
