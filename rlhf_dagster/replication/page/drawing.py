"""Plots of claims as SVG that stands inside a page of HTML, beside others."""

import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS_PER_INCH = 96
_PROLOGUE = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_ABOUT = re.compile(r"\s*<(metadata|style)\b.*?</\1>", re.DOTALL)
"""What matplotlib says of itself, and its style sheet, which would hold for the whole page."""
_SIZE = re.compile(r'\s(?:width|height)="[^"]*"')
_IDENTITIES = re.compile(r'(\bid="|\bhref="#|url\(#)')
_NARROWEST = 0.75
"""Of the width it was drawn in: narrower, nobody could read it, and it is scrolled."""
_STYLE = "max-width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt"


def inline_svg(figure: "Figure", name: str) -> str:
    """The figure as one ``<svg>`` element, as wide as it was drawn, or somewhat narrower where the page is.

    Letters are outlines, so that it looks the same wherever it is read. Ids begin with ``name``, which no other plot of
    the page has: in one document they are everybody's. The same figure gives the same text.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    output = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(output, metadata={"Date": None})
    drawn = _ABOUT.sub("", _PROLOGUE.sub("", output.getvalue()))
    return _IDENTITIES.sub(rf"\g<1>{name}-", _fluid(drawn, figure.get_figwidth() * PIXELS_PER_INCH)).strip()


def _fluid(drawn: str, pixels: float) -> str:
    """Its width is the page's affair; the ``viewBox`` keeps the ratio."""
    opening, rest = drawn.split(">", 1)
    style = f"min-width: {_NARROWEST * pixels:.0f}px; {_STYLE}"
    return f'{_SIZE.sub("", opening)} width="{pixels:.0f}" style="{style}" aria-hidden="true">{rest}'
