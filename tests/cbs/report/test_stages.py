"""The table of stages says what the history has."""

from io import StringIO

import pytest
from rich.console import Console

import cbs
from cbs import report
from cbs.report.stages import COLUMNS, stage_cells
from tests.cbs.networks import mlp, samples, seeded

OPTIONS = {"method": "magnitude", "certify": False, "scope": "layer"}


@pytest.fixture(scope="module")
def tuned():
    data = samples(120)
    return cbs.prune(
        seeded(mlp), data, sparsity=0.75, stages=2, refit="network", finetune=1, test=data, **OPTIONS
    )


def test_a_line_has_what_the_history_has(tuned):
    lines = [dict(zip(COLUMNS, line, strict=True)) for line in stage_cells(tuned)]
    for number, (line, stage) in enumerate(zip(lines, tuned.history, strict=True), 1):
        assert (line["stage"], line["sparsity"]) == (str(number), f"{100 * stage.sparsity:.1f}%")
        assert line["loss"] == f"{stage.tuned.loss:.4f}"
        assert line["accuracy"] == f"{100 * stage.test_tuned.accuracy:.2f}%"
        assert float(line["divergence"]) == pytest.approx(stage.refitted_divergence, abs=1e-5)
        assert float(line["objective"]) == pytest.approx(stage.value, rel=1e-3)
        pruning, refit, tuning = (float(line[name]) for name in COLUMNS[-3:])
        assert pruning + refit + tuning == pytest.approx(stage.seconds, abs=0.02)
        assert min(stage.refit_seconds, stage.tuning_seconds) > 0


def test_without_refit_or_test_data_nothing_is_said_of_them():
    data = samples(40)
    result = cbs.prune(seeded(mlp), data, sparsity=0.75, stages=2, **OPTIONS)
    text = report.stages_markdown([result])
    assert "| calib. accuracy |" in text
    assert text.count("\n") == 4
    assert all(line[COLUMNS.index("divergence")] == "-" for line in stage_cells(result))
    assert "divergence" not in text
    assert "refit s" not in text
    assert "objective" in text


def test_only_results_of_several_stages_have_a_story(tuned):
    once = cbs.prune(seeded(mlp), samples(40), sparsity=0.5, **OPTIONS)
    assert report.staged([once, tuned]) == [tuned]
    page = StringIO()
    Console(file=page, width=160).print(report.stages_terminal([tuned, tuned]))
    assert page.getvalue().count("magnitude 75%") == 4
