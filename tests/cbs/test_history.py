"""What a stage's record says when it was over."""

from cbs.history import EVALUATIONS, Stage
from cbs.network.evaluate import Evaluation


def test_the_end_is_the_last_thing_that_happened():
    evaluations = {name: Evaluation(float(i), None, 1) for i, name in enumerate(EVALUATIONS)}
    stage = Stage({}, 0.5, 7.0, 0.0, {}, refit_seconds=2.0, tuning_seconds=1.5, **evaluations)
    assert (stage.end, stage.test_end) == (stage.tuned, stage.test_tuned)
    assert stage.pruning_seconds == 3.5
    without = {name: value for name, value in evaluations.items() if "tuned" not in name}
    stage = Stage({}, 0.5, 7.0, 0.0, {}, **without)
    assert (stage.end, stage.test_end) == (stage.refitted, stage.test_refitted)
    stage = Stage({}, 0.5, 7.0, 0.0, {}, pruned=evaluations["pruned"])
    assert (stage.end, stage.test_end) == (stage.pruned, None)
