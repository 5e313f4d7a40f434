"""Sparsities of the stages, against their definitions."""

import json

import pytest

import cbs
from cbs.request import Request
from cbs.schedule.growth import as_schedule


def test_every_stage_prunes_the_same_fraction_of_what_is_left():
    found = cbs.Schedule(4).sparsities(0.0, 0.9375)
    assert found == pytest.approx([0.5, 0.75, 0.875, 0.9375])
    assert found[-1] == 0.9375
    assert cbs.Schedule(2).sparsities(0.2, 0.8) == pytest.approx([0.6, 0.8])  # 0.8 -> 0.4 -> 0.2 are left


def test_or_the_same_number():
    assert cbs.Schedule(4, growth="linear").sparsities(0.0, 0.8) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert cbs.Schedule(2, growth="linear").sparsities(0.5, 0.9) == pytest.approx([0.7, 0.9])


def test_or_most_at_first():
    found = cbs.Schedule(4, growth="cubic").sparsities(0.0, 0.9)
    assert found == pytest.approx([1 - (0.1 + 0.9 * (1 - s / 4) ** 3) for s in (1, 2, 3, 4)])
    assert cbs.Schedule(2, growth="cubic").sparsities(0.5, 0.9) == pytest.approx([0.85, 0.9])


def test_or_half_the_way_at_once():
    found = cbs.Schedule(3, growth="late").sparsities(0.0, 0.99)  # 1 -> 0.1 -> ... -> 0.01 are left
    assert found == pytest.approx([0.9, 1 - 0.1 * 0.1**0.5, 0.99])
    assert cbs.Schedule(2, growth="late").sparsities(0.2, 0.8) == pytest.approx([0.6, 0.8])


def test_or_sparsities_as_given():
    schedule = cbs.Schedule(given=[0.5, 0.8, 0.9])
    assert schedule.count == 3
    assert schedule.sparsities(0.0, 0.9) == [0.5, 0.8, 0.9]
    assert schedule.sparsities(0.6, 0.9) == [0.6, 0.8, 0.9]  # no less than what is pruned already
    assert cbs.Schedule(given=(0.5,)).sparsities(0.0, 0.5) == [0.5]
    with pytest.raises(ValueError, match=r"end with sparsity 0.9, but sparsity is 0.95"):
        schedule.sparsities(0.0, 0.95)
    with pytest.raises(ValueError, match=r"end with sparsity 0.9, but sparsity is 0.95"):
        Request(0.95, stages=schedule)


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("5", cbs.Schedule(5)), ("1", cbs.Schedule()), ("5:cubic", cbs.Schedule(5, growth="cubic")),
        ("4:return:linear", cbs.Schedule(4, growth="linear", deleted="return")),
        ("0.5,0.8, 0.9", cbs.Schedule(given=(0.5, 0.8, 0.9))), ("0.5", cbs.Schedule(given=(0.5,))),
        ("0.5,0.9:return", cbs.Schedule(given=(0.5, 0.9), deleted="return")),
    ],
)  # fmt: skip
def test_schedules_are_typed_in_a_shell(text, schedule):
    assert as_schedule(text) == schedule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("many", "stages must be a number, or sparsities such as 0.5,0.8,0.9, got 'many'"),
        ("5:quadratic", "of exponential, linear, cubic, late, stay, .*; not 'quadratic'"),
        ("5:cubic:linear", "comes one growth and what .*; not 'linear'"),
        ("5,6", r"given must be the sparsities of all stages, numbers in \[0, 1\)"),
        ("-1", r"given must be the sparsities of all stages, numbers in \[0, 1\)"),
        ("0.5,0.9:cubic", "growth 'cubic' is for sparsities that are not given"),
    ],
)
def test_and_refused_there(text, message):
    with pytest.raises(ValueError, match=message):
        as_schedule(text)


@pytest.mark.parametrize("growth", ["exponential", "linear", "cubic", "late"])
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
        ({"stages": 2, "growth": "expo"}, "unknown growth 'expo'; known: exponential, linear, cubic, late"),
        ({"stages": 2, "deleted": "adapts"}, "unknown deleted 'adapts'; did you mean 'adapt'"),
        ({"stages": 2, "shrink": 1.0}, r"shrink must lie in \[0, 1\), got 1.0"),
        ({"given": []}, "given must be the sparsities of all stages"),
        ({"given": "0.5"}, "given must be the sparsities of all stages"),
        ({"given": [0.5, 0.5]}, "given sparsities must rise, got 0.5 after 0.5"),
        ({"stages": 3, "given": [0.5, 0.8]}, "stages must be 2, as many as sparsities are given, got 3"),
        ({"stages": 1, "deleted": "return"}, "deleted 'return' is about what happens between stages"),
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
        ({"finetune": "3"}, "finetune must be a number of epochs, options of"),
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
    given = Request(0.9, stages=cbs.Schedule(given=(0.5, 0.9), deleted="return"))
    record = json.loads(json.dumps(given.to_dict()))
    assert record["stages"]["given"] == [0.5, 0.9]
    assert Request(**record).schedule == given.schedule
