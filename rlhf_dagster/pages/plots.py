"""Curves as small PNG pictures, for the report page and for Markdown metadata."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "reward": "Reward-model score",
    "kl": "KL to SFT (nats per response)",
    "kl_coef": "KL coefficient",
    "entropy": "Entropy (nats)",
    "loss": "Training loss (nats)",
    "validation_loss": "Validation loss (nats)",
    "accuracy": "Accuracy",
    "reward_margin": "Reward margin (β times nats)",
    "learning_rate": "Learning rate",
    "clip_fraction": "Clipped share of tokens",
    "approx_kl": "KL of an update (nats per token)",
    "value_loss": "Value loss",
    "policy_loss": "Policy loss",
    "explained_variance": "Explained variance of returns",
    "ratio_first": "Ratio at an update's first minibatch",
    "log_ratio_first": "Log-ratio at an update's first minibatch",
    "response_length": "Response length (tokens)",
    "kl_loss": "KL loss (nats per token)",
    "reward_spread": "Deviation across the ensemble",
    "validation_reward": "Held-out score, by validation",
    "validation_kl": "Held-out KL to SFT, by validation",
    "validation_length": "Held-out length, by validation",
    "validation_spread": "Held-out deviation, by validation",
}
REPORT_CURVES = ("reward", "kl", "kl_coef", "entropy", "loss", "reward_margin", "accuracy")
"""What the report page shows of a policy's training: the first four of PPO and its variants, the last of the others."""

PANEL = (3.6, 2.3)
FEW, SHARP, COARSE = 4, 150, 80
"""Dots per inch: SHARP up to FEW panels, COARSE beyond, so that a picture stays below 40 kB."""
COLOURS = 12
SMOOTHED = 24
"""Series with fewer points than this get no running mean."""
INK, GRID, LINE, RAW = "#3b4048", "#e4e7eb", "#1f5f99", "#a9c4de"


def training_curves(
    curves: Mapping[str, Sequence[float]], titles: Mapping[str, str] | None = None, *, columns: int = 2
) -> bytes:
    """A PNG with one panel for each curve, its values over the updates (numbered from 1).

    ``titles`` overrides :data:`TITLES`, which name each curve and its unit. Long series are drawn with their running
    mean. Points that are not finite numbers leave a gap. Curves without points are left out; raises ValueError if none
    is left.
    """
    from matplotlib.figure import Figure

    shown = {name: list(values) for name, values in curves.items() if len(values)}
    if not shown:
        raise ValueError("no curve has a point to draw")
    named = TITLES | dict(titles or {})
    columns = min(columns, len(shown))
    rows = math.ceil(len(shown) / columns)
    dpi = SHARP if len(shown) <= FEW else COARSE
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), dpi=dpi, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for panel, (name, values) in zip(panels, shown.items(), strict=False):
        _draw(panel, values, named.get(name, name.replace("_", " ").capitalize()))
    for panel in list(panels)[len(shown) :]:
        panel.set_axis_off()
    return _png(figure)


def data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def markdown_image(png: bytes, alt: str) -> str:
    """The picture inside a line of Markdown; ``alt`` says what it shows."""
    return f"![{alt}]({data_uri(png)})"


def running_mean(values: Sequence[float], reach: int) -> list[float]:
    """Mean of each value and up to ``reach`` values on either side; values that are not finite are passed over."""
    windows = (values[max(0, centre - reach) : centre + reach + 1] for centre in range(len(values)))
    finite = ([value for value in window if math.isfinite(value)] for window in windows)
    return [sum(window) / len(window) if window else math.nan for window in finite]


def _draw(panel: "Axes", values: Sequence[float], title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    updates = range(1, len(values) + 1)
    smooth = len(values) >= SMOOTHED
    marker = "o" if len(values) == 1 else None
    panel.plot(updates, values, color=RAW if smooth else LINE, linewidth=1 if smooth else 1.6, marker=marker)
    if smooth:
        panel.plot(updates, running_mean(values, max(2, len(values) // 20)), color=LINE, linewidth=1.8)
    panel.set_title(title, fontsize=9.5, color=INK, loc="left")
    panel.set_xlabel("update", fontsize=8, color=INK)
    panel.grid(color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8, colors=INK, length=0)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    panel.yaxis.set_major_locator(MaxNLocator(nbins=5))
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(GRID)


def _png(figure: "Figure") -> bytes:
    """Few colours and no metadata: small files, and the same curves give the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.frombuffer("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")
    output = io.BytesIO()
    picture.quantize(COLOURS).save(output, format="PNG", optimize=True)
    return output.getvalue()


@dataclass(frozen=True)
class RoundCurve:
    """A figure over the rounds: ``points`` are (number of the round, rate with ``value``, ``low`` and ``high``)."""

    title: str
    points: Sequence[tuple[int, Mapping[str, float | None]]]
    share: bool = True
    """The values are shares, shown in percent."""
    reference: float | None = None
    """Height of a dashed line, such as 0.5 for no difference."""


ROUND_PANEL = (2.9, 2.1)
"""Inches; a picture of four panels is as wide as the page."""


def round_curves(curves: Sequence[RoundCurve]) -> bytes:
    """A PNG with the panels side by side, each estimate with its interval, where that is known.

    Points without a value are left out, then curves without points; raises ValueError if none is left.
    """
    from matplotlib.figure import Figure

    shown = [(curve, points) for curve in curves if (points := _known(curve))]
    if not shown:
        raise ValueError("no curve has a point to draw")
    figure = Figure(figsize=(ROUND_PANEL[0] * len(shown), ROUND_PANEL[1]), dpi=SHARP, layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False).flat
    for panel, (curve, points) in zip(panels, shown, strict=True):
        _draw_rounds(panel, curve, points)
    return _png(figure)


def _known(curve: RoundCurve) -> list[tuple[int, float, float, float]]:
    """(round, value, low, high); an end that is missing is the value."""
    known = [(number, rate, value) for number, rate in curve.points if (value := rate.get("value")) is not None]
    return [(number, value, _end(rate, "low", value), _end(rate, "high", value)) for number, rate, value in known]


def _end(rate: Mapping[str, float | None], name: str, value: float) -> float:
    end = rate.get(name)
    return value if end is None else end


def _draw_rounds(panel: "Axes", curve: RoundCurve, points: Sequence[tuple[int, float, float, float]]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    rounds, values, lows, highs = (list(column) for column in zip(*points, strict=True))
    # Rounding can put an end on the wrong side of the value by the last digit, which errorbar() refuses.
    reach = [[max(0.0, v - low) for v, low in zip(values, lows, strict=True)]]
    reach.append([max(0.0, high - v) for v, high in zip(values, highs, strict=True)])
    size = 4 if len(points) <= SMOOTHED else 2
    if curve.reference is not None:
        panel.axhline(curve.reference, color=INK, linewidth=0.8, linestyle=(0, (3, 3)))
    panel.errorbar(rounds, values, yerr=reach, color=LINE, ecolor=RAW, elinewidth=1.6, marker="o", markersize=size)
    if curve.share:
        panel.yaxis.set_major_formatter(PercentFormatter(1))
    panel.margins(x=0.08, y=0.12)
    panel.set_title(curve.title, fontsize=9.5, color=INK, loc="left")
    panel.set_xlabel("round", fontsize=8, color=INK)
    panel.grid(color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(labelsize=8, colors=INK, length=0)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    panel.yaxis.set_major_locator(MaxNLocator(nbins=5))
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(GRID)
