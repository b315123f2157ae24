"""Charts of claims: estimates with their intervals as lines and bars, all in one style."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from rlhf_dagster.common.intervals import Rate
from rlhf_dagster.pages.plots import GRID, INK, LINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_COLOURS = (LINE, "#c2571a", "#3d8a4e", "#7d4f9e", "#8a8f98")
"""Of the series of a chart, in their order; told apart also by who cannot see red or green."""
MARKERS = "os^Dv"
PANEL_SIZE = (3.7, 2.9)
"""Inches."""
REACH = 1.6
"""Width of the lines, in points."""


def new_chart(panels: int = 1) -> tuple["Figure", list["Axes"]]:
    """A figure with so many panels side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PANEL_SIZE[0] * panels, PANEL_SIZE[1]), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False).flat)
    for panel in axes:
        _plain(panel)
    return figure, axes


def label_axes(panel: "Axes", title: str, x: str = "", y: str = "", *, percent: bool = False) -> None:
    """Title, names of the axes, and whether the upright one shows shares as percentages."""
    from matplotlib.ticker import PercentFormatter

    panel.set_title(title, fontsize=9.5, color=INK, loc="left")
    panel.set_xlabel(x, fontsize=8.5, color=INK)
    panel.set_ylabel(y, fontsize=8.5, color=INK)
    if percent:
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def draw_line(
    panel: "Axes",
    places: Sequence[float],
    rates: Sequence[Rate],
    name: str = "",
    *,
    series: int = 0,
    style: Literal["line", "points"] = "line",
) -> None:
    """Estimates at ``places``, joined unless they are ``points``; ``series`` chooses colour and marker."""
    colour, joined = LINE_COLOURS[series % len(LINE_COLOURS)], "-" if style == "line" else "none"
    panel.errorbar(
        places,
        [rate.value for rate in rates],
        yerr=_reach(rates),
        color=colour,
        linestyle=joined,
        linewidth=REACH,
        elinewidth=1,
        marker=MARKERS[series % len(MARKERS)],
        markersize=4,
        capsize=2,
        label=name or None,
    )


def draw_bars(panel: "Axes", names: Sequence[str], rates: Sequence[Rate]) -> None:
    """An estimate with its interval for each name."""
    panel.bar(range(len(names)), [rate.value for rate in rates], yerr=_reach(rates), color=LINE, ecolor=INK, capsize=3)
    panel.set_xticks(range(len(names)), names, fontsize=8)


def draw_bound(panel: "Axes", height: float) -> None:
    """A dashed line, such as at no difference."""
    panel.axhline(height, color=INK, linewidth=0.8, linestyle=(0, (3, 3)))


def place_legend(panel: "Axes") -> None:
    panel.legend(fontsize=8, frameon=False, labelcolor=INK)


def count_axis(panel: "Axes", counts: Sequence[int]) -> None:
    """A logarithmic axis of budgets, with a tick at each."""
    from matplotlib.ticker import NullLocator

    panel.set_xscale("log")
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticks(counts, [f"{count:,}" for count in counts])


def _reach(rates: Sequence[Rate]) -> list[list[float]]:
    """How far the intervals reach down and up; not at all where an end is not known."""
    down = [_length(rate.value - rate.low) for rate in rates]
    return [down, [_length(rate.high - rate.value) for rate in rates]]


def _length(distance: float) -> float:
    return distance if 0 < distance < float("inf") else 0.0


def _plain(panel: "Axes") -> None:
    panel.grid(color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8, colors=INK, length=0)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(GRID)
