import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import cbs
from cbs.diagnosis.stability import Difference, SizePoint, difference
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


def test_masks_that_do_not_look_at_data_are_stable():
    found = cbs.stability(
        seeded(mlp),
        samples(60),
        sparsity=0.5,
        method="magnitude",
        resamples=3,
        sizes=[5, 60],
        blocks=3,
        seeds=2,
    )
    assert (found.changed, found.jaccard, found.core) == (0.0, 1.0, 1.0)
    assert found.seeds == Difference(0.0, 1.0)
    assert {point.changed for point in found.sizes} == {block.changed for block in found.blocks} == {0.0}
    assert found.rate is None
    assert found.chance == pytest.approx(0.5, abs=0.01)


def test_samples_that_are_all_the_same_make_no_difference():
    one = samples(1)
    data = cbs.Samples(one.inputs.repeat(20, 1), one.targets.repeat(20))
    for method in ("wanda", "obc"):
        found = cbs.stability(seeded(mlp), data, sparsity=0.5, method=method, resamples=3, blocks=2)
        assert (found.changed, found.core) == (0.0, 1.0)
        assert all(layer.changed == 0 for layer in found.layers)


@pytest.mark.parametrize("method", ["wanda", "joint"])
def test_shares_are_those_of_prunings_on_the_resamples(method):
    model, data = seeded(mlp), samples(30)
    found = cbs.stability(model, data, sparsity=0.5, method=method, resamples=4, seed=5)
    rng = np.random.default_rng(5)
    states = [int(rng.integers(2**32)) for _ in range(4)]
    options = {"sparsity": 0.5, "method": method, "certify": False, "solver": "greedy"}
    whole = cbs.prune(model, data, **options).masks
    drawn = []
    for state in states:
        index = np.sort(np.random.default_rng(state).choice(30, size=30))
        drawn.append(cbs.prune(model, data.take(index), **options).masks)
    for layer in found.layers:
        mine = torch.stack([masks[layer.name] for masks in drawn])
        reference = whole[layer.name]
        assert np.allclose(found.frequency[layer.name], mine.double().mean(dim=0).numpy())
        assert layer.changed == pytest.approx(float((mine != reference).double().mean()))
        jaccard = [float((m & reference).sum() / (m | reference).sum()) for m in mine]
        assert layer.jaccard == pytest.approx(np.mean(jaccard))
        assert layer.core == pytest.approx(float((mine.all(dim=0) & reference).sum() / reference.sum()))
    changed = [sum(int((m[n] != whole[n]).sum()) for n in whole) / 62 for m in drawn]
    assert found.changed == pytest.approx(np.mean(changed))
    assert found.changed > 0
    assert found.sparsity == pytest.approx(0.5)
    assert found.resamples == 4


def test_blocks_are_left_out_one_after_another():
    model, data = seeded(mlp), samples(30)
    inputs = data.inputs.clone()
    inputs[10:20] *= 50  # these decide what counts
    data = cbs.Samples(inputs, data.targets)
    found = cbs.stability(model, data, sparsity=0.5, scope="row", resamples=1, blocks=3)
    assert [(block.first, block.last) for block in found.blocks] == [(0, 9), (10, 19), (20, 29)]
    assert max(found.blocks, key=lambda block: block.changed).first == 10
    whole = cbs.prune(model, data, sparsity=0.5, scope="row", method="wanda", certify=False).masks
    rest = cbs.prune(
        model,
        data.take([*range(10), *range(20, 30)]),
        sparsity=0.5,
        scope="row",
        method="wanda",
        certify=False,
    ).masks
    changed = sum(int((rest[name] != whole[name]).sum()) for name in whole) / 62
    assert found.blocks[1].changed == pytest.approx(changed)
    assert "samples 10 to 19 matter most" in found.verdict


def test_more_samples_differ_less():
    found = cbs.stability(
        seeded(mlp, sizes=(6, 20, 3)), samples(2000), sparsity=0.5, resamples=4, sizes=[10, 100, 2000]
    )
    assert [point.samples for point in found.sizes] == [10, 100, 2000]
    changed = [point.changed for point in found.sizes]
    assert changed[0] > changed[1] > changed[2]
    assert 0.2 < found.rate < 0.9
    exact = [SizePoint(10, 0.1, 1.0), SizePoint(40, 0.05, 1.0), SizePoint(90, 0.1 / 3, 1.0)]
    assert replace(found, sizes=exact).rate == pytest.approx(0.5)


def test_seeds_of_methods_that_draw():
    found = cbs.stability(seeded(mlp), samples(30), sparsity=0.5, method="random", resamples=2, seeds=3)
    assert found.changed == 0
    assert found.seeds.changed > 0.2
    assert "another seed changes" in found.verdict


def test_neurons_and_other_budgets():
    for options in (
        {"sparsity": 0.5, "granularity": "neurons"},
        {"budget": "1:2", "layers": ["6"]},
        {"sparsity": 0.5, "budget": "columns"},
    ):
        found = cbs.stability(seeded(convnet), image_samples(12), resamples=2, **options)
        assert 0 <= found.changed < 0.5
        assert 0 < found.sparsity < 1


def test_it_stops_with_the_masks_that_are_there():
    steps = []
    found = cbs.stability(
        seeded(mlp), samples(30), sparsity=0.5, resamples=5, sizes=[5], blocks=2, seeds=1,
        callback=lambda step: steps.append(step) or step.index == 3,
    )  # fmt: skip
    assert (found.status, found.resamples, found.sizes, found.blocks, found.seeds) == (
        "interrupted",
        3,
        [],
        [],
        None,
    )
    assert {step.count for step in steps} == {13}
    assert found == cbs.stability(seeded(mlp), samples(30), sparsity=0.5, resamples=3).__class__(
        **{**vars(found), "status": "interrupted"}
    )
    with pytest.raises(KeyboardInterrupt):
        cbs.stability(seeded(mlp), samples(30), sparsity=0.5, callback=lambda step: True)
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["layers"][0]["changed"] == found.layers[0].changed
    assert "frequency" not in record
    assert all(len(line) <= 80 for line in repr(found).splitlines()[:-1])


def test_differences_by_hand():
    a = [np.array([[True, True, False, False]])]
    b = [np.array([[True, False, True, False]])]
    assert difference(a, b) == Difference(0.5, 1 / 3)
    nothing = [np.zeros((1, 4), dtype=bool)]
    assert difference(nothing, nothing) == Difference(0.0, 1.0)


def test_bad_input_is_refused_in_one_line():
    for options, message in (
        ({"resamples": 0}, "resamples must be a whole number >= 1, got 0"),
        ({"blocks": -1}, "blocks must be a whole number >= 0, got -1"),
        ({"blocks": 1}, "blocks must be 0, or 2 to 30"),
        ({"sizes": [31]}, "sizes must lie in 2 to 30"),
        ({"sizes": 5}, "sizes must be a list of whole numbers"),
        ({"sparsity": None}, "sparsity must be given"),
        ({"sparsity": None, "max_loss_increase": 0.1}, "stability takes a sparsity"),
        ({"refit": "network"}, "this is about one pruning"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            cbs.stability(seeded(mlp), samples(30), **({"sparsity": 0.5} | options))
        assert "\n" not in str(caught.value)
    with pytest.raises(TypeError, match="stability: unknown option 'sample'; did you mean 'samples'"):
        cbs.stability(seeded(mlp), samples(30), sparsity=0.5, sample=3)
