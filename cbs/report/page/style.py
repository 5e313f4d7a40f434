"""Colours, markers and the two themes (data visualisation): a solver looks the same in every figure.

The eight colours have a contrast of at least 3:1 against both backgrounds (WCAG 2.1, 1.4.11) and stay apart
for readers with protanopia and deuteranopia; markers and dashes tell apart what is drawn in one colour.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

COLOURS = (
    "#0072B2", "#D55E00", "#3292A6", "#6549F2", "#8C584D", "#8C8C4D", "#BF397C", "#8585F2",
)  # fmt: skip
MARKERS = (
    "circle",
    "square",
    "diamond",
    "cross",
    "triangle-up",
    "x",
    "triangle-down",
    "star",
    "pentagon",
    "hexagon",
    "hourglass",
)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
THEMES: dict[str, dict[str, str]] = {
    "light": {
        "background": "#ffffff", "panel": "#f5f7f9", "text": "#1b2430", "muted": "#54606e", "line": "#d3dae2",
        "grid": "#e6eaef", "accent": "#0b62a8", "warn": "#8f3b00", "warned": "#fff4ea",
    },
    "dark": {
        "background": "#14171c", "panel": "#1d2229", "text": "#e7ecf2", "muted": "#a5b1bf", "line": "#39424e",
        "grid": "#2a313a", "accent": "#74b8f2", "warn": "#ffb27a", "warned": "#33261a",
    },
}  # fmt: skip
AXIS = {"automargin": True, "showline": True, "ticks": "outside", "exponentformat": "power"}
KEPT, PRUNED = (50, 118, 178), (222, 226, 231)
"""Colours of weights that are kept and that are pruned."""


@dataclass(frozen=True)
class Look:
    """How a label is drawn: its colour, its marker, and the dash of its line."""

    colour: str
    marker: str
    dash: str

    def line(self, width: float = 2.0, **more: Any) -> dict[str, Any]:
        """A line, as Plotly has it."""
        return {"color": self.colour, "dash": self.dash, "width": width, **more}

    def points(self, size: float = 7.0, **more: Any) -> dict[str, Any]:
        """Markers, as Plotly has them."""
        return {"color": self.colour, "symbol": self.marker, "size": size, **more}

    def faint(self, alpha: float = 0.16) -> str:
        """Its colour as the fill of a band."""
        red, green, blue = (int(self.colour[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red},{green},{blue},{alpha})"


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look for every label, by its place among all of them in the order of their names."""
    names = sorted(set(labels))
    return {
        name: Look(
            COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], DASHES[(i // len(COLOURS)) % len(DASHES)]
        )
        for i, name in enumerate(names)
    }


def themed(layout: dict[str, Any], theme: str = "light") -> dict[str, Any]:
    """A layout with background, text and grid of a theme; the page does the same in the browser."""
    tone = THEMES[theme]
    made = {
        "paper_bgcolor": tone["background"],
        "plot_bgcolor": tone["background"],
        "font": {"family": FONT, "size": 13, "color": tone["text"]},
        "hoverlabel": {
            "bgcolor": tone["panel"],
            "bordercolor": tone["line"],
            "font": {"color": tone["text"]},
        },
        **layout,
    }
    axis = {
        "gridcolor": tone["grid"], "linecolor": tone["line"], "zerolinecolor": tone["line"],
        "tickcolor": tone["line"],
    }  # fmt: skip
    for name, given in layout.items():
        if name.startswith(("xaxis", "yaxis")):
            made[name] = {**axis, **given}
    return made


def layout(x: dict[str, Any], y: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Axes that make room for their labels, and a legend below."""
    return {
        "xaxis": {**AXIS, **x},
        "yaxis": {**AXIS, **y},
        "legend": {"orientation": "h", "yanchor": "top", "y": -0.22, "xanchor": "left", "x": 0.0},
        "margin": {"l": 60, "r": 20, "t": 16, "b": 50},
        "hovermode": "closest",
        **more,
    }


def text(word: object) -> str:
    """Words as Plotly shows them: it would read `<` as a tag."""
    return str(word).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
