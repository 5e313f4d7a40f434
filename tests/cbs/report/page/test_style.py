import itertools

import numpy as np
import pytest

from cbs.report.page.style import COLOURS, THEMES, looks, text, themed

DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
)
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
"""Machado, Oliveira and Fernandes 2009, on linear RGB."""
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour):
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    low, high = sorted(linear(c) @ [0.2126, 0.7152, 0.0722] for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb):
    xyz = TO_XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", THEMES)
def test_contrast(theme):
    tone = THEMES[theme]
    assert all(contrast(colour, tone["background"]) >= 3 for colour in COLOURS)
    for ground in ("background", "panel"):
        assert contrast(tone["text"], tone[ground]) >= 7
        assert contrast(tone["muted"], tone[ground]) >= 4.5
        assert contrast(tone["accent"], tone[ground]) >= 4.5
    assert contrast(tone["warn"], tone["warned"]) >= 4.5


@pytest.mark.parametrize(
    "seen", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["all", "deuteranopia", "protanopia"]
)
def test_colours_are_told_apart(seen):
    found = [lab(seen @ linear(colour)) for colour in COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(found, 2)) > 15


def test_looks_are_distinct_and_the_same_again():
    names = [f"s{i:02}" for i in range(40)]
    found = looks(reversed(names))
    assert found == looks(names)
    assert len({(look.colour, look.marker) for look in found.values()}) == 40
    assert found["s00"].faint(0.5) == "rgba(0,114,178,0.5)"


def test_themes_dress_axes_and_leave_what_is_set():
    made = themed({"xaxis": {"type": "log", "gridcolor": "red"}, "yaxis2": {}}, "dark")
    assert made["xaxis"] == themed({"xaxis": {"type": "log"}}, "dark")["xaxis"] | {"gridcolor": "red"}
    assert made["yaxis2"]["gridcolor"] == THEMES["dark"]["grid"]
    assert made["font"]["color"] == THEMES["dark"]["text"]


def test_names_hold_no_tags():
    assert text("<b>a & b</b>") == "&lt;b&gt;a &amp; b&lt;/b&gt;"
