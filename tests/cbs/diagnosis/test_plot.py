import pytest

import cbs
from tests.cbs.networks import convnet, image_samples, seeded

MADE = {}


def made(kind):
    if not MADE:
        model, data = seeded(convnet), image_samples(20)
        result = cbs.prune(model, data, sparsity=0.6, method="magnitude", certify=False)
        MADE["damage"] = cbs.damage(result, data)
        MADE["trace"] = cbs.trace(result, data)
        MADE["sensitivity"] = cbs.sensitivity(model, data, sparsities=[0.3, 0.6])
        MADE["stability"] = cbs.stability(model, data, sparsity=0.5, resamples=2, sizes=[5, 10])
    return MADE[kind]


def lines(figure):
    return [[*map(float, line.get_ydata())] for axes in figure.axes for line in axes.lines]


def test_damage_is_drawn_layer_by_layer():
    found = made("damage")
    figure = found.draw()
    assert [layer.upto.loss_increase for layer in found.layers] in lines(figure)
    assert [bar.get_height() for bar in figure.axes[0].patches] == [
        layer.alone.loss_increase for layer in found.layers
    ]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "3", "6"]


def test_a_trace_is_drawn_in_running_order():
    found = made("trace")
    figure = found.draw()
    assert [module.error for module in found.modules] in lines(figure)
    assert len(figure.axes[0].get_xticks()) == len(found.modules)


def test_sensitivity_is_a_line_a_layer():
    found = made("sensitivity")
    assert lines(found.draw()) == [
        [effect.loss_increase for effect in layer.effects] for layer in found.layers
    ]


def test_stability_is_drawn_by_layer_and_size():
    found = made("stability")
    figure = found.draw()
    assert [bar.get_height() for bar in figure.axes[0].patches] == pytest.approx(
        [100 * layer.changed for layer in found.layers]
    )
    assert [100 * point.changed for point in found.sizes] in lines(figure)


@pytest.mark.parametrize("kind", ["damage", "trace", "sensitivity", "stability"])
def test_every_figure_can_be_written(kind, tmp_path):
    made(kind).draw().savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000
