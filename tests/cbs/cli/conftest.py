"""Fixtures of the command line's tests."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def _blank(results):
    figure = Figure(figsize=(1, 1))
    FigureCanvasAgg(figure)
    return figure


@pytest.fixture(autouse=True)
def quick_plots(monkeypatch):
    """Plots of runs are blank: they have tests of their own, and take longer to draw than much else."""
    for name in ("draw", "draw_layers"):
        monkeypatch.setattr(f"cbs.report.folder.{name}", _blank)
