"""Sparsities of the stages, against their definitions."""

import pytest

import cbs
from cbs.request import Request


def test_every_stage_prunes_the_same_fraction_of_what_is_left():
    found = cbs.Schedule(4).sparsities(0.0, 0.9375)
    assert found == pytest.approx([0.5, 0.75, 0.875, 0.9375])
    assert found[-1] == 0.9375
    assert cbs.Schedule(2).sparsities(0.2, 0.8) == pytest.approx([0.6, 0.8])  # 0.8 -> 0.4 -> 0.2 are left


def test_or_the_same_number():
    assert cbs.Schedule(4, growth="linear").sparsities(0.0, 0.8) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert cbs.Schedule(2, growth="linear").sparsities(0.5, 0.9) == pytest.approx([0.7, 0.9])


@pytest.mark.parametrize("growth", ["exponential", "linear"])
def test_one_stage_is_one_shot_and_no_stage_is_below_what_was_pruned(growth):
    assert cbs.Schedule(growth=growth).sparsities(0.3, 0.7) == [0.7]
    assert cbs.Schedule(3, growth=growth).sparsities(0.7, 0.7) == pytest.approx([0.7, 0.7, 0.7])
    assert cbs.Schedule(3, growth=growth).sparsities(0.0, 0.0) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": 0}, "stages must be a whole number >= 1, got 0"),
        ({"stages": 2.0}, "stages must be a whole number >= 1, got 2.0"),
        ({"stages": True}, "stages must be a whole number >= 1, got True"),
        ({"stages": 2, "growth": "expo"}, "unknown growth 'expo'; known: exponential, linear"),
        ({"stages": 2, "deleted": "adapts"}, "unknown deleted 'adapts'; did you mean 'adapt'"),
        ({"stages": 2, "shrink": 1.0}, r"shrink must lie in \[0, 1\), got 1.0"),
        ({"stages": 1, "deleted": "adapt"}, "deleted 'adapt' is about what happens between stages"),
    ],
)
def test_bad_schedules_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cbs.Schedule(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": 0}, "stages must be a whole number >= 1, got 0"),
        ({"stages": "3"}, "stages must be a whole number >= 1, got '3'"),
        ({"finetune": 0}, "finetune must be at least 1 epoch or None, got 0"),
        ({"finetune": "3"}, "finetune must be a number of epochs, a function of"),
        ({"sparsity": None, "budget": "2:4", "stages": 2}, "stages must be 1 for budget '2:4'"),
    ],
)
def test_requests_refuse_them_too(options, message):
    with pytest.raises(ValueError, match=message):
        Request(**{"sparsity": 0.5, **options})


def test_a_report_has_a_schedule_and_gives_it_back():
    asked = Request(0.5, stages=cbs.Schedule(3, deleted="shrink", shrink=0.25), finetune=print)
    record = asked.to_dict()
    assert record["stages"] == {"stages": 3, "growth": "exponential", "deleted": "shrink", "shrink": 0.25}
    assert record["finetune"] == "builtins:print"
    assert Request(**record).schedule == asked.schedule
    assert Request(**record).to_dict() == record
    assert Request(0.5, stages=cbs.Schedule(3)).to_dict()["stages"] == 3
