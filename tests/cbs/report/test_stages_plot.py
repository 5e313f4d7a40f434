"""The plot over stages shows the history's own numbers."""

import numpy as np
import pytest

import cbs
from cbs.report import draw_stages
from tests.cbs.networks import mlp, samples, seeded

OPTIONS = {"method": "magnitude", "certify": False, "scope": "layer", "sparsity": 0.75}


def test_lines_are_the_history(tmp_path):
    data = samples(120)
    refitted = cbs.prune(seeded(mlp), data, stages=3, refit="network", test=data, **OPTIONS)
    plain = cbs.prune(seeded(mlp), data, stages=2, test=data, **OPTIONS)
    once = cbs.prune(seeded(mlp), data, test=data, **OPTIONS)
    figure = draw_stages([refitted, once, plain])
    accuracy, divergence, sparsity, seconds = figure.axes
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 2, 2]
    history = refitted.history
    np.testing.assert_allclose(
        accuracy.lines[0].get_ydata(),
        [refitted.test_before.accuracy, *(stage.test_refitted.accuracy for stage in history)],
    )
    np.testing.assert_allclose(sparsity.lines[0].get_ydata()[1:], [stage.sparsity for stage in history])
    np.testing.assert_allclose(
        divergence.lines[0].get_ydata()[1:], [stage.refitted_divergence for stage in history]
    )
    assert np.isnan(divergence.lines[1].get_ydata()).all()
    assert seconds.lines[0].get_ydata()[-1] == pytest.approx(refitted.seconds)
    figure.savefig(tmp_path / "stages.png")
    assert (tmp_path / "stages.png").stat().st_size > 10_000


def test_without_a_refit_there_is_no_divergence_to_show():
    figure = draw_stages([cbs.prune(seeded(mlp), samples(40), stages=2, **OPTIONS)])
    assert [text.get_text() for text in figure.axes[1].texts] == ["no network refit"]


def test_no_two_ticks_read_the_same_however_near_the_accuracies_are():
    model, data = seeded(mlp), samples(2000)
    figure = draw_stages([cbs.prune(model, data, stages=2, test=data, **(OPTIONS | {"sparsity": 0.02}))])
    figure.draw_without_rendering()
    for axes in (figure.axes[0], figure.axes[2]):
        told = [label.get_text() for label in axes.get_yticklabels()]
        assert len(set(told)) == len(told) > 1
