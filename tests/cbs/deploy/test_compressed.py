import numpy as np
import pytest
import torch

from cbs.deploy.compressed import compress, gaps_of, places_of, restore


def drawn(shape, share, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < share, 0.0, values).to(dtype)


def size_of(pieces):
    return sum(piece.numel() * piece.element_size() for piece in pieces.values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("share", "form"), [(0.0, "dense"), (0.5, "bitmap"), (0.97, "gaps")])
def test_a_tensor_comes_back(dtype, share, form):
    tensor = drawn((30, 40), share, dtype)
    about, pieces = compress(tensor)
    assert about["form"] == form
    back = restore(about, pieces)
    assert back.dtype == dtype
    assert torch.equal(back, tensor)
    kept = int((tensor != 0).sum())
    places = {"dense": 0, "bitmap": 1200 / 8, "gaps": 1.05 * (kept + 1)}[form]
    assert size_of(pieces) <= kept * tensor.element_size() + places


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(0),
        torch.zeros(3, 0),
        torch.tensor(2.5),
        torch.zeros(1000),
        torch.arange(12).reshape(3, 4) % 2,
        torch.eye(70, dtype=torch.bool),
        torch.tensor([0.0, float("inf"), -1.0]),
    ],
)
def test_unusual_tensors_come_back(tensor):
    back = restore(*compress(tensor))
    assert back.dtype == tensor.dtype
    assert torch.equal(back, tensor)
    assert back.shape == tensor.shape


@pytest.mark.parametrize("places", [[], [0], [254], [255], [256], [0, 1, 600, 1599], [510, 1020, 1599]])
def test_gaps_around_their_step(places):
    kept = np.zeros(1600, dtype=bool)
    kept[places] = True
    gaps = gaps_of(kept)
    assert places_of(gaps, 1600).tolist() == places
    for wrong in (1599, 1601):
        with pytest.raises(ValueError, match="do not lead to the end"):
            places_of(gaps, wrong)


def test_damaged_pieces_are_refused():
    about, pieces = compress(drawn((30, 40), 0.97))
    for change in (
        {"shape": [30, 41]},
        {"form": "dense"},
        {"form": "x"},
        {"shape": [-30, -40]},
        {"dtype": "float16"},
    ):
        with pytest.raises((ValueError, RuntimeError)):
            restore(about | change, pieces)
    with pytest.raises(ValueError, match="values for"):
        restore(about, pieces | {"values": pieces["values"][1:]})
    with pytest.raises(ValueError, match="places that are no bytes"):
        restore(about, pieces | {"gaps": pieces["gaps"].float()})


def test_what_is_not_plain_is_refused():
    with pytest.raises(ValueError, match="sparse"):
        compress(torch.eye(3).to_sparse())
