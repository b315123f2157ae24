"""A comparison as the data of a Label Studio task: what annotators see and nothing else."""

from collections.abc import Mapping
from typing import Any

from rlhf_dagster.labeling.label_studio.html import conversation_html, to_html
from rlhf_dagster.labeling.label_studio.ranker import LETTERS, items
from rlhf_dagster.labeling.outcome import to_display
from rlhf_dagster.labeling.settings import LabelingSettings

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
    if comparison["kind"] == "ranking":
        named = zip(items(len(shown)), LETTERS, shown, strict=False)
        return data | {
            "items": [{"id": identity, "title": letter.upper(), "html": html} for identity, letter, html in named]
        }
    cards = max(len(shown), 2 if comparison["kind"] == "pair" else settings.responses)
    padded = shown + [ABSENT] * (cards - len(shown))
    data |= {f"{letter}_html": html for letter, html in zip(LETTERS, padded, strict=False)}
    if comparison["kind"] == "best_of_k":
        options = [*LETTERS[: len(shown)].upper(), "cannot_decide"]
        data["choices"] = [
            {"value": "Cannot decide" if option == "cannot_decide" else option, "alias": option, "hotkey": str(number)}
            for number, option in enumerate(options, start=1)
        ]
    return data
