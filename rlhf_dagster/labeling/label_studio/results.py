"""Label Studio's results to and from our forms of a result.

A result in Label Studio is a list of regions, one for each control that was answered, each with ``from_name`` (the
control), ``to_name`` (what it judges), ``type`` and ``value``. The server checks none of it, so everything is checked
here: what is not exactly what the labelling page can submit is kept aside with the reason.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.counts import RoundReading
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.forms import FLAGS, read_answer, read_extras
from rlhf_dagster.labeling.label_studio.kinds.base import Control, Page, Values, choices_in
from rlhf_dagster.labeling.label_studio.kinds.known import page_of
from rlhf_dagster.labeling.label_studio.ranker import LETTERS
from rlhf_dagster.labeling.label_studio.state import SyncState
from rlhf_dagster.labeling.store import Annotation
from rlhf_dagster.records.answers import UnreadableError, checked_text, named

_VALUE_KEYS = {"choices": "choices", "textarea": "text", "rating": "rating", "ranker": "ranker"}
_ON_EVERY_PAGE = {"flags": Control("choices"), "rationale": Control("textarea")}


def decode(regions: Any, comparison: Mapping[str, Any], settings: LabelingSettings) -> dict[str, Any]:
    """Our result form (:mod:`rlhf_dagster.labeling.forms`) of what Label Studio holds for ``comparison``.

    ``settings`` are those the project was made with. What cannot be read becomes ``{"unreadable": "why", "raw": ...}``;
    nothing is raised. :func:`~rlhf_dagster.labeling.forms.read_answer` can read whatever a page returns, so this is not
    checked here as well.
    """
    try:
        page, k = _page(comparison, settings)
        values = _values(regions, _controls(page, k))
        return page.decode(values, k) | _extras(values)
    except UnreadableError as error:
        return {"unreadable": str(error), "raw": regions}


def encode(
    result: Mapping[str, Any], comparison: Mapping[str, Any], settings: LabelingSettings
) -> list[dict[str, Any]]:
    """The regions that the labelling page would submit for ``result``: the inverse of :func:`decode`.

    A result that cannot be read becomes regions that :func:`decode` cannot read either, so that it is quarantined
    whichever label store it went to. What the page does not ask is left out.
    """
    try:
        page, k = _page(comparison, settings)
        read_answer(result, comparison)
        values = page.encode(result, k) | _extra_values(read_extras(result))
    except UnreadableError:
        text = json.dumps(result, sort_keys=True, default=str)
        return [_region("unreadable", Control("textarea"), [text])]
    known = _controls(page, k)
    return [_region(name, known[name], value) for name, value in values.items() if name in known]


def _controls(page: Page, k: int) -> dict[str, Control]:
    return page.controls(k) | _ON_EVERY_PAGE


def _region(name: str, control: Control, value: Any) -> dict[str, Any]:
    held = {_VALUE_KEYS[control.type]: value}
    return {"from_name": name, "to_name": control.to_name, "type": control.type, "value": held}


def _values(regions: Any, known: Mapping[str, Control]) -> dict[str, Any]:
    """What each control holds."""
    if not isinstance(regions, list):
        raise UnreadableError(f"The annotation is {named(regions)}, not a list of regions.")
    if not regions:
        raise UnreadableError("The annotation is empty.")
    values: dict[str, Any] = {}
    for region in regions:
        name = _control_name(region, known)
        if name in values:
            raise UnreadableError(f"The control `{name}` has more than one answer.")
        values[name] = _value(region, name, known[name])
    return values


def _control_name(region: Any, known: Mapping[str, Control]) -> str:
    if not isinstance(region, Mapping):
        raise UnreadableError(f"A region is {named(region)}, not an object.")
    name = region.get("from_name")
    if not isinstance(name, str):
        raise UnreadableError("A region does not name its control.")
    if name not in known:
        raise UnreadableError(f"The page has no control {name[:40]!r}.")
    return name


def _value(region: Mapping[str, Any], name: str, control: Control) -> Any:
    if region.get("type") != control.type:
        raise UnreadableError(f"The answer to `{name}` is not of the type {control.type}.")
    if region.get("to_name") != control.to_name:
        raise UnreadableError(f"The answer to `{name}` is not about `{control.to_name}`.")
    value, key = region.get("value"), _VALUE_KEYS[control.type]
    if not isinstance(value, Mapping) or set(value) != {key}:
        raise UnreadableError(f"The value of `{name}` is not an object that holds `{key}` alone.")
    answer = value[key]
    if control.type in ("choices", "textarea") and not _is_texts(answer):
        raise UnreadableError(f"The answer to `{name}` is not a list of texts.")
    return answer


def _extras(values: Values) -> dict[str, Any]:
    flags, reason = choices_in(values, "flags", FLAGS), checked_text("\n".join(values.get("rationale", [])), "reason")
    return ({"flags": flags} if flags else {}) | ({"reason": reason} if reason else {})


def _extra_values(extras: Mapping[str, Any]) -> dict[str, Any]:
    values = {"flags": extras["flags"], "rationale": [extras["reason"]] if extras["reason"] else []}
    return {name: value for name, value in values.items() if value}


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _page(comparison: Mapping[str, Any], settings: LabelingSettings) -> tuple[Page, int]:
    """The page of a comparison (a row of COMPARISONS), and the number of its responses."""
    k = len(comparison["display_order"])
    if k > len(LETTERS):
        raise UnreadableError(f"A page shows at most {len(LETTERS)} responses, not {k}.")
    return page_of(comparison["kind"], comparison["purpose"], settings), k


def decoded(
    annotations: Sequence[Annotation], ledger: EmbeddedLabelStore, state: SyncState, round_key: str, purpose: str
) -> list[Annotation]:
    """Annotations of a round with results in our form: Label Studio's, which are lists, are decoded."""
    raw = {annotation.comparison_id for annotation in annotations if isinstance(annotation.result, list)}
    rows = ledger.comparisons_by_id(raw)
    asked = state.settings_of(round_key, purpose, raw)
    settings = {text: LabelingSettings.model_validate_json(text) for text in set(asked.values())}
    return [
        replace(annotation, result=decode(annotation.result, rows[key], settings[asked[key]]))
        if isinstance(annotation.result, list)
        else annotation
        for annotation, key in ((annotation, annotation.comparison_id) for annotation in annotations)
    ]


def decoding(ledger: EmbeddedLabelStore, state: SyncState, round_key: str, purpose: str) -> RoundReading:
    """How a round's annotations are read, for counting: :func:`decoded`, by the settings of the round's projects."""
    return RoundReading(
        lambda annotations: decoded(annotations, ledger, state, round_key, purpose),
        depends_on=state.settings_in(round_key, purpose),
    )
