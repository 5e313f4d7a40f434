import dataclasses

import numpy as np
import pytest
import torch

import cbs
from cbs.report import draw_layers
from cbs.report.layers import modules
from cbs.report.layers_plot import MOST
from tests.cbs.networks import mlp, samples, seeded


@pytest.fixture(scope="module")
def results():
    return cbs.compare(seeded(mlp), samples(), sparsities=[0.25, 0.5], methods=["magnitude"], scope="row")


def test_the_figure_has_every_layers_sparsity_and_gap(results, tmp_path):
    figure = draw_layers(results)
    sparsity, gap = figure.axes
    assert [label.get_text() for label in sparsity.get_yticklabels()] == [m.name for m in modules(results[0])]
    for result, dots, gaps in zip(results, sparsity.lines, gap.lines, strict=True):
        shares = [float(mask.double().mean()) for mask in result.masks.values()]
        np.testing.assert_allclose(dots.get_xdata(), shares)
        np.testing.assert_allclose(gaps.get_xdata(), [layer.gap for layer in result.layers])
        assert dots.get_label() == f"magnitude, {result.share}"
    figure.savefig(tmp_path / "layers.png")
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")


def test_layers_without_bounds_and_very_many_of_them(results):
    layer = dataclasses.replace(results[0].layers[0], bound=None)
    many = [
        dataclasses.replace(layer, name=f"layer{i}", shape=(1, 100 + i), kept=50) for i in range(MOST + 10)
    ]
    sparsity, gap = draw_layers([dataclasses.replace(results[0], layers=many)]).axes
    names = [label.get_text() for label in sparsity.get_yticklabels()]
    assert names == [f"layer{i}" for i in range(10, MOST + 10)]
    assert len(gap.lines[0].get_xdata()) == 0
    assert torch.is_tensor(results[0].masks["0"])
