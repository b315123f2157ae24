"""Labelling configs: what a Label Studio page shows for a kind of comparison, what it asks, and what it explains."""

from xml.sax.saxutils import escape

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.label_studio.html import to_html
from rlhf_dagster.labeling.label_studio.kinds.known import page_of
from rlhf_dagster.labeling.label_studio.style import STYLE
from rlhf_dagster.records.ids import content_hash

KEYBOARD = """
The keys in brackets choose, `Ctrl+Enter` submits, `Ctrl+Space` skips. In a text field, press `Shift+Enter` first.
"""
_PROMPT = '<View className="rl-prompt"><HyperText name="prompt" value="$prompt_html" inline="true"/></View>'


def labelling_config(kind: str, purpose: str, settings: LabelingSettings) -> str:
    """The XML of the page on which a kind of comparison is judged (or a demonstration written)."""
    parts = [f"<Style>{escape(STYLE)}</Style>", _PROMPT, *page_of(kind, purpose, settings).markup()]
    return "<View>\n" + "\n".join(parts) + "\n</View>\n"


def instructions_html(kind: str, purpose: str, settings: LabelingSettings) -> str:
    """What annotators are told before they begin: the settings' own words, or general ones for the kind."""
    if settings.instructions.strip():
        return _as_text(settings.instructions)
    page = page_of(kind, purpose, settings)
    return _as_text(page.instructions() + "\n" + page.advice + KEYBOARD)


def _as_text(markdown: str) -> str:
    """Markdown as HTML, styled like the texts of a labelling page: the instructions are shown in front of one."""
    return f'<div class="rl-text">{to_html(markdown)}</div>'


def config_hash(xml: str) -> str:
    """A hash that tells one labelling page from another."""
    return content_hash("labelling config", xml)
