import pytest
import torch
from torch import nn

import cbs
from cbs.deploy.bench import Bench, Timing, Variant
from tests.cbs.networks import masked, seeded


def made(*seconds):
    """A bench with a batch size for which dense and another take so many seconds."""
    variants = [
        Variant(name, name, 1, 1, 1, 1, {1: Timing(t, t, t)})
        for name, t in zip(("dense", "sparse"), seconds, strict=True)
    ]
    return Bench(variants, 1, "here", [])


@pytest.mark.parametrize(
    ("seconds", "told", "verdict"),
    [
        ((2.0, 1.0), "2.0 x faster", "sparse is 2.0 x faster than dense"),
        ((2.0, 1.95), "no gain", "nothing is faster than dense"),
        ((2.0, 3.0), "1.5 x slower", "nothing is faster than dense"),
    ],
)
def test_gains_and_losses_in_words(seconds, told, verdict):
    found = made(*seconds)
    assert found.told(found.variants[1], 1) == told
    assert found.told(found.variants[0], 1) == ""
    assert found.verdicts == [f"Batch 1: {verdict}."]


def chain():
    return nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))


def test_every_variant_is_measured():
    model = masked(seeded(chain), 0.5)
    with torch.no_grad():
        model[2].weight_orig[:, :7] = 0
    found = cbs.bench(model, inputs=torch.randn(5, 64), batches=[1, 7], threads=1, seconds=0.02)
    by_name = {variant.name: variant for variant in found.variants}
    assert {"dense", "smaller", "onnx"} <= by_name.keys()
    dense, smaller = by_name["dense"], by_name["smaller"]
    assert (dense.parameters, dense.multiplications) == (64 * 40 + 40 + 410, 64 * 40 + 400)
    assert dense.memory == dense.disk == 4 * dense.parameters
    assert (smaller.parameters, smaller.multiplications) == (64 * 33 + 33 + 340, 64 * 33 + 330)
    assert smaller.disk < smaller.memory
    if "sparse" in by_name:
        kept = int((model[0].weight[7:] != 0).sum() + (model[2].weight[:, 7:] != 0).sum())
        assert by_name["sparse"].multiplications == kept
    for variant in found.variants:
        assert variant.times.keys() == {1, 7}
        assert all(0 < t.low <= t.median <= t.high for t in variant.times.values())
    facts = found.to_dict()
    assert facts["variants"][0]["faster"] == {1: 1.0, 7: 1.0}
    assert facts["threads"] == 1


def test_what_can_not_be_made_is_remarked(monkeypatch):
    monkeypatch.setattr("cbs.deploy.bench.find_spec", lambda name: None)
    found = cbs.bench(nn.Sequential(nn.Softmax(1)), inputs=torch.randn(3, 4), seconds=0.01)
    assert [variant.name for variant in found.variants] == ["dense"]
    assert [remark.partition(":")[0] for remark in found.remarks] == ["smaller", "sparse", "onnx"]


def test_threads_are_put_back():
    before = torch.get_num_threads()
    cbs.bench(chain(), inputs=torch.randn(3, 64), batches=[1], threads=2, seconds=0, onnx=False)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"batches": []}, "batches must be"), ({"batches": [0]}, "batches must be"),
        ({"threads": 0}, "threads must be"), ({"inputs": None}, "inputs are missing"),
        ({"inputs": torch.randn(3, 63)}, "refuses the inputs"),
    ],
)  # fmt: skip
def test_refusals_in_one_line(asked, why):
    with pytest.raises(ValueError, match=why) as told:
        cbs.bench(chain(), **{"inputs": torch.randn(3, 64), "onnx": False, **asked})
    assert "\n" not in str(told.value)
