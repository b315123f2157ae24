"""A comparison as the data of a Label Studio task: what annotators see and nothing else."""

from collections.abc import Mapping
from typing import Any

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.label_studio.html import conversation_html, to_html
from rlhf_dagster.labeling.label_studio.markup import CANNOT_KEY
from rlhf_dagster.labeling.label_studio.ranker import LETTERS, items
from rlhf_dagster.records.outcome import to_display

ABSENT = '<span class="rl-absent"></span>'
"""In place of a response that this comparison does not have; the page hides its card."""


def task_data(comparison: Mapping[str, Any], settings: LabelingSettings) -> dict[str, Any]:
    """The data of a task for ``comparison`` (a row of COMPARISONS) on the page made with ``settings``.

    Every member of the server's organization can read it, so it holds no policy, no role and no known answer; the
    order of the responses is the one drawn for the comparison, without saying which.
    """
    shown = [to_html(text) for text in to_display(comparison["responses"], comparison["display_order"])]
    data: dict[str, Any] = {
        "comparison": comparison["comparison_id"],
        "prompt_html": conversation_html(comparison["prompt"]),
    }
    if comparison["kind"] == "demonstration":
        return data
    kind, k = comparison["kind"], len(shown)
    cards = max(k, 2 if kind == "pair" else settings.responses)
    padded = shown + [ABSENT] * (cards - k)
    data |= {f"{letter}_html": html for letter, html in zip(LETTERS, padded, strict=False)}
    if kind == "best_of_k":
        data["choices"] = [*(_choice(letter.upper(), str(n)) for n, letter in enumerate(LETTERS[:k], start=1)), _CANNOT]
    if kind == "ranking":
        named = zip(items(k), LETTERS, strict=False)
        data["items"] = [{"id": identity, "title": letter.upper()} for identity, letter in named]
    if kind == "rating":
        data["absent"] = [{"value": letter.upper(), "selected": True} for letter in LETTERS[k:cards]]
    return data


_CANNOT = {"value": "Cannot decide", "alias": "cannot_decide", "hotkey": CANNOT_KEY}


def _choice(letter: str, key: str) -> dict[str, str]:
    return {"value": letter, "alias": letter, "hotkey": key}
