import pytest

import cbs
from tests.cbs.networks import convnet, image_samples, mlp, samples, seeded


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cbs.RecursionDiagonal(second=1), "second must be True or False, got 1"),
        (lambda: cbs.Hutchinson(probes=1), "probes must be a whole number of at least 2, got 1"),
        (lambda: cbs.Hutchinson(probes=2.5), "probes must be .*, got 2.5"),
        (lambda: cbs.Hutchinson(seed=-1), "seed must be a whole number of at least 0, got -1"),
    ],
)
def test_bad_settings_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_the_readings_say_whose_they_are():
    for name in ("obd-sd-fisher", "obd-sd-spread"):
        assert cbs.methods()[name]["paper"] == "this project's reading of Harang & Sanders 2023"


@pytest.mark.parametrize(("make", "data"), [(mlp, samples(20)), (convnet, image_samples(9))])
def test_hutchinson_makes_a_method_that_tells_its_error(make, data):
    method = cbs.Method(cbs.Hutchinson(40), cbs.Scores("obd"), cbs.Nothing(), name="hutchinson")
    result = cbs.prune(seeded(make), data, sparsity=0.5, method=method, certify=False)
    stats = result.history[0].stats
    assert stats["probes"] == 40
    assert 0 < stats["standard_error"] < 2
    assert result.measured.prediction_model == (
        "1/2 sum_P h w^2, h the Hessian diagonal by Hutchinson, 40 probes, seed 0"
    )


def test_a_spread_predicts_nothing():
    result = cbs.prune(seeded(mlp), samples(20), sparsity=0.5, method="obd-sd-spread", certify=False)
    assert result.measured.prediction is None
