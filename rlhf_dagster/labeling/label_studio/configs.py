"""Labelling configs: what a Label Studio page shows for each kind of comparison, and what it asks.

Aliases, not the words on the screen, are what is stored. Names of controls are those that
:mod:`rlhf_dagster.labeling.label_studio.kinds` reads.
"""

from collections.abc import Callable, Iterable
from xml.sax.saxutils import escape

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.label_studio.html import to_html
from rlhf_dagster.labeling.label_studio.kinds.best_of_k import _best
from rlhf_dagster.labeling.label_studio.kinds.demonstration import _demonstration
from rlhf_dagster.labeling.label_studio.kinds.evaluation import _ab
from rlhf_dagster.labeling.label_studio.kinds.pair import _pair
from rlhf_dagster.labeling.label_studio.kinds.ranking import _ranking
from rlhf_dagster.labeling.label_studio.kinds.rating import _rating
from rlhf_dagster.labeling.label_studio.style import STYLE
from rlhf_dagster.records.ids import content_hash

INSTRUCTIONS = {
    "pair": "Read the prompt and both responses, then say which response is better{strength}.",
    "best_of_k": "Read the prompt and all responses, then mark the best one. Mark several if they are equally good.",
    "ranking": "Read the prompt and all responses, then drag every letter into a rank, **1** being the best. Responses "
    "of the same rank are equally good. When all have a rank, mark the order as final. On the keyboard: Tab to a "
    "letter, Space to lift it, arrow keys to move it, Space to drop it.",
    "rating": "Rate every response from 1 star (very poor) to 7 stars (excellent) on every scale. Each press of a "
    "scale's key adds a star.",
    "demonstration": "Write the response that an ideal assistant would give to this prompt. Markdown is allowed. "
    "`Shift+Enter` keeps what you have written so far; the pencil beside it changes it again.",
    "evaluation": "Read the prompt and both responses, then say which is better.",
}
JUDGING = """
Judge what is written, not how long it is. The order of the responses means nothing.

- *Cannot decide*: you have read everything and could go either way, or you lack the knowledge.
- **Skip**: you do not want to judge this task at all.
- Mark what applies: *All are bad*, *Unsafe content*, *Broken prompt*. A sentence on why is welcome.
- *Stop the training* if something is badly wrong with the tasks as a whole, and say what.
"""
KEYBOARD = """
The keys in brackets choose, `Ctrl+Enter` submits, `Ctrl+Space` skips. In a text field, press `Shift+Enter` first.
"""


def labelling_config(kind: str, purpose: str, settings: LabelingSettings) -> str:
    """The XML of the page on which a kind of comparison is judged (or a demonstration written)."""
    page = _AB_PAGE if (kind, purpose) == ("pair", "evaluation") else _PAGES[kind]
    parts = [f"<Style>{escape(STYLE)}</Style>", _PROMPT, *page(settings)]
    return "<View>\n" + "\n".join(parts) + "\n</View>\n"


def instructions_html(kind: str, purpose: str, settings: LabelingSettings) -> str:
    """What annotators are told before they begin: the settings' own words, or general ones for the kind."""
    if settings.instructions.strip():
        return _as_text(settings.instructions)
    words = INSTRUCTIONS["evaluation" if purpose == "evaluation" else kind]
    strength = ", and how much better" if settings.strength else ""
    judging = "" if kind == "demonstration" else JUDGING
    return _as_text(words.format(strength=strength) + "\n" + judging + KEYBOARD)


def _as_text(markdown: str) -> str:
    """With the styles that texts have on the page: it is shown in front of one."""
    return f'<div class="rl-text">{to_html(markdown)}</div>'


def config_hash(xml: str) -> str:
    """Tells one labelling page from another."""
    return content_hash("labelling config", xml)


_PROMPT = '<View className="rl-prompt"><HyperText name="prompt" value="$prompt_html" inline="true"/></View>'
_PAGES: dict[str, Callable[[LabelingSettings], Iterable[str]]] = {
    "pair": _pair,
    "best_of_k": _best,
    "ranking": _ranking,
    "rating": _rating,
    "demonstration": _demonstration,
}
_AB_PAGE = _ab
