"""All figures about what the responses of one policy say, with what is known about their prompts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from rlhf_dagster.common.intervals import Rate
from rlhf_dagster.evaluation.texts.copying import copying_figures
from rlhf_dagster.evaluation.texts.rouge import rouge
from rlhf_dagster.evaluation.texts.truth import truth_figures
from rlhf_dagster.tasks.base import Truthfulness


@dataclass(frozen=True)
class KnownAbout:
    """What is known about the prompts of an evaluation; by default nothing."""

    references: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Good responses, by the id of the prompt."""
    source: Callable[[str], str] = str
    """The text that responses to a prompt are about; by default the whole prompt."""
    truthfulness: Callable[[str, str], Truthfulness] | None = None
    """Counts the facts in a response to a prompt, where somebody knows them."""


NOTHING_KNOWN = KnownAbout()


def text_figures(rows: pd.DataFrame, known: KnownAbout = NOTHING_KNOWN) -> dict[str, Any]:
    """``copying``, ``rouge`` and ``truthfulness`` of responses, each a dict of rates in JSON's form.

    ``rows`` has the columns ``prompt_id``, ``prompt`` and ``text``. Where no prompt has a reference, or nobody knows
    the facts, the figure is None.
    """
    prompts, texts = rows["prompt"].tolist(), rows["text"].tolist()
    overlap = rouge([known.references.get(one, ()) for one in rows["prompt_id"]], texts)
    facts = list(map(known.truthfulness, prompts, texts)) if known.truthfulness else []
    return {
        "copying": _as_dicts(copying_figures(list(map(known.source, prompts)), texts)),
        "rouge": _as_dicts(overlap) or None,
        "truthfulness": _as_dicts(truth_figures(facts)) if facts else None,
    }


def _as_dicts(rates: Mapping[str, Rate]) -> dict[str, dict[str, Any]]:
    return {name: rate.as_dict() for name, rate in rates.items()}
