"""All forms of judgments, and which of them some rows have."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_dagster.data.judgment_forms.argilla import ArgillaForm
from rlhf_dagster.data.judgment_forms.base import JudgmentForm
from rlhf_dagster.data.judgment_forms.completions import CompletionsForm
from rlhf_dagster.data.judgment_forms.label_studio import LabelStudioForm
from rlhf_dagster.data.judgment_forms.openai import OpenAIForm
from rlhf_dagster.data.judgment_forms.own import OwnForm
from rlhf_dagster.data.judgment_forms.pair import PairForm
from rlhf_dagster.data.judgment_forms.preference import PreferenceForm
from rlhf_dagster.data.judgment_forms.ranking import RankingForm
from rlhf_dagster.data.judgment_forms.tree import TreeForm
from rlhf_dagster.errors import UserError

_FORMS: tuple[JudgmentForm, ...] = (
    LabelStudioForm(),
    ArgillaForm(),
    OwnForm(),
    OpenAIForm(),
    TreeForm(),
    PreferenceForm(),
    RankingForm(),
    CompletionsForm(),
    PairForm(),
)
"""In the order in which they are tried: a form stands before those whose columns its rows may have as well."""
FORMS: dict[str, JudgmentForm] = {form.name: form for form in _FORMS}


def recognised(rows: Sequence[Mapping[str, Any]]) -> JudgmentForm | None:
    """The form that most of ``rows`` have; None if fewer than half have one."""
    counts = {form.name: sum(form.fits(row) for row in rows) for form in _FORMS}
    name = max(counts, key=lambda name: counts[name])
    return FORMS[name] if rows and 2 * counts[name] >= len(rows) else None


def form_named(name: str) -> JudgmentForm:
    """Raises UserError for a name that is none."""
    if name not in FORMS:
        raise UserError(f"{name[:40]!r} is no form of judgments; choose one of {', '.join(FORMS)}.")
    return FORMS[name]
