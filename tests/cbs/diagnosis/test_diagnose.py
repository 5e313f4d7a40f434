import json

import cbs
from tests.cbs.networks import mlp, samples, seeded


def test_it_is_damage_trace_and_audit_on_the_same_samples():
    data = samples(60)
    result = cbs.prune(seeded(mlp), data, sparsity=0.6, method="magnitude", certify=False)
    found = cbs.diagnose(result, data, samples=20, seed=4)
    assert found.status == "done"
    drawn = data.choose(20, 4)
    singles = {
        "damage": cbs.damage(result, drawn),
        "trace": cbs.trace(result, drawn),
        "audit": cbs.audit(result),
    }
    for kind, expected in singles.items():
        assert getattr(found, kind) == expected
        assert json.loads(json.dumps(found.to_dict(), allow_nan=False))[kind] == json.loads(
            json.dumps(expected.to_dict())
        )
        assert repr(expected) in repr(found)
    assert (
        cbs.diagnose(result.model, data, dense=result.undo()).damage.total == cbs.damage(result, data).total
    )


def test_what_was_stopped_is_traced_on_the_samples_that_were_run():
    data = cbs.Samples(samples(60).inputs, samples(60).targets, 20)
    result = cbs.prune(seeded(mlp), data, sparsity=0.6, method="magnitude", certify=False)
    found = cbs.diagnose(result, data, callback=lambda step: step.method == "damage")
    assert found.status == "interrupted"
    assert found.damage.samples == found.trace.samples == 20
