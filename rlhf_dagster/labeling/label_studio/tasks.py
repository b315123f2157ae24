"""A comparison as the data of a Label Studio task: what annotators see and nothing else."""

from collections.abc import Mapping
from typing import Any

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.label_studio.html import conversation_html, to_html
from rlhf_dagster.labeling.label_studio.kinds.known import page_of
from rlhf_dagster.labeling.label_studio.ranker import LETTERS
from rlhf_dagster.records.chats import prompt_of_row
from rlhf_dagster.records.outcome import to_display

ABSENT = '<span class="rl-absent"></span>'
"""In place of a response that this comparison does not have; the page hides its card."""


def task_data(comparison: Mapping[str, Any], settings: LabelingSettings) -> dict[str, Any]:
    """The data of a task for ``comparison`` (a row of COMPARISONS) on the page made with ``settings``.

    Every member of the server's organization can read it, so it holds no policy, no role and no known answer; the
    order of the responses is the one drawn for the comparison, without saying which.
    """
    page = page_of(comparison["kind"], comparison["purpose"], settings)
    shown = [to_html(text) for text in to_display(comparison["responses"], comparison["display_order"])]
    padded = shown + [ABSENT] * (page.room - len(shown))
    return {
        "comparison": comparison["comparison_id"],
        "prompt_html": conversation_html(prompt_of_row(comparison)),
        **{f"{letter}_html": html for letter, html in zip(LETTERS, padded, strict=False)},
        **page.task_data(len(shown)),
    }
