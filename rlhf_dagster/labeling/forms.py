"""The forms of a result: an answer (:mod:`rlhf_dagster.records.kinds` has its form), and what goes with every answer.

A result holds the answer under the key of its kind, or ``{"cannot_decide": true}``. A pair of an A/B evaluation may
also hold ``"axes": {"helpful": 0, "honest": "tie"}``, and each result ``reason`` (text), ``strength`` (0 to 1) and
``flags`` (a list out of ``both_bad``, ``unsafe``, ``bad_prompt`` and ``stop``). Imported ones may say in which
``shown_order`` this annotator saw the responses, as a ``display_order`` of LABELS does, and hold ``metadata``, an
object. What a label store could not bring into one of these forms is ``{"unreadable": "why", "raw": what it held}``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhf_dagster.records.answers import Answer, UnreadableError, checked_axis, checked_text, is_whole, named
from rlhf_dagster.records.kinds import ALL_KINDS, PAIR, RANKED_KINDS, LabelKind

STOP = "stop"
"""Flag that asks to stop the training, because of a problem that goes beyond one comparison."""
FLAGS = ("both_bad", "unsafe", "bad_prompt", STOP)
"""Problems that an annotator can mark."""
_EXTRAS = {"reason", "strength", "flags", "shown_order", "metadata"}


def read_answer(result: Any, comparison: Mapping[str, Any], axes: Sequence[str] = ()) -> Answer:
    """What ``result`` says about ``comparison`` (a row of COMPARISONS).

    The ranks of a rating are those of the first of ``axes`` that was rated, else of ``overall``, else of the axis that
    is first in the alphabet. Raises :class:`~rlhf_dagster.records.answers.UnreadableError`.
    """
    if not isinstance(result, Mapping):
        raise UnreadableError(f"The result is {named(result)}, not an object.")
    if "unreadable" in result:
        raise UnreadableError(str(result["unreadable"]))
    kind, k = kind_named(comparison["kind"]), len(comparison["display_order"])
    _check_keys(result, kind, is_ab(comparison["kind"], comparison["purpose"]))
    on_axes = _ab_axes(result.get("axes", {}), k)
    if "cannot_decide" in result:
        if result["cannot_decide"] is not True:
            raise UnreadableError("`cannot_decide` can only be true.")
        return Answer(axes=on_axes)
    answer = kind.read(result[kind.key], k, axes)
    return replace(answer, axes=answer.axes | on_axes)


def read_extras(result: Mapping[str, Any]) -> dict[str, Any]:
    """``strength``, ``flags``, ``reason`` and ``metadata`` of a result, as in a row of LABELS.

    Raises :class:`~rlhf_dagster.records.answers.UnreadableError`.
    """
    strength, flags, reason = result.get("strength"), result.get("flags", []), result.get("reason", "")
    if strength is not None and (
        isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1
    ):
        raise UnreadableError("`strength` is not a number between 0 and 1.")
    if not isinstance(flags, list) or not all(isinstance(flag, str) and flag in FLAGS for flag in flags):
        raise UnreadableError(f"`flags` is not a list out of {', '.join(FLAGS)}.")
    if len(set(flags)) < len(flags):
        raise UnreadableError("`flags` names a problem twice.")
    return {"strength": strength, "flags": flags, "reason": checked_text(reason, "reason"), "metadata": _kept(result)}


def read_order(result: Mapping[str, Any], k: int) -> list[int] | None:
    """The ``display_order`` of a row of LABELS: None where ``result`` says nothing of it.

    Raises :class:`~rlhf_dagster.records.answers.UnreadableError`.
    """
    order = result.get("shown_order")
    if order is None or order == []:
        return order
    if not isinstance(order, list) or not all(map(is_whole, order)) or sorted(order) != list(range(k)):
        raise UnreadableError(f"`shown_order` is no order of {k} responses.")
    return order


def _kept(result: Mapping[str, Any]) -> str:
    """The metadata as JSON; empty without any."""
    metadata = result.get("metadata")
    if metadata is None:
        return ""
    if not isinstance(metadata, Mapping):
        raise UnreadableError(f"`metadata` is {named(metadata)}, not an object.")
    return json.dumps(metadata, sort_keys=True, ensure_ascii=False)


def result_of(
    ranks: Sequence[int] | None, kind: str, ratings: Mapping[str, Sequence[int]] | None = None
) -> dict[str, Any]:
    """The result that says ``ranks`` (display order; None: cannot decide), or the ``ratings`` of a rating."""
    if ranks is None:
        return {"cannot_decide": True}
    return {RANKED_KINDS[kind].key: RANKED_KINDS[kind].write(ranks, ratings)}


def kind_named(name: Any) -> LabelKind:
    """The kind of a comparison. Raises :class:`~rlhf_dagster.records.answers.UnreadableError`."""
    if name not in ALL_KINDS:
        raise UnreadableError(f"{str(name)[:40]!r} is no kind of comparison.")
    return ALL_KINDS[name]


def is_ab(kind: str, purpose: str) -> bool:
    """Whether comparisons are pairs of an A/B evaluation, which can be judged on several axes."""
    return (kind, purpose) == (PAIR.name, "evaluation")


def _check_keys(result: Mapping[str, Any], kind: LabelKind, with_axes: bool) -> None:
    answers = [kind.key, "cannot_decide"] if kind.name in RANKED_KINDS else [kind.key]
    known = _EXTRAS | set(answers) | ({"axes"} if with_axes else set())
    unknown = sorted(str(key) for key in set(result) - known)
    if unknown:
        raise UnreadableError(f"The result has keys that a {kind.name} comparison does not: {', '.join(unknown)[:80]}.")
    if sum(key in result for key in answers) != 1:
        raise UnreadableError(f"The result must have {' or '.join(f'`{key}`' for key in answers)}, and only one.")


def _ab_axes(value: Any, k: int) -> dict[str, list[int]]:
    """The ranks on each axis of an A/B evaluation."""
    if not isinstance(value, Mapping):
        raise UnreadableError(f"`axes` is {named(value)}, not choices by axis.")
    if any(choice not in (0, 1, "tie") or isinstance(choice, bool | float) for choice in value.values()):
        raise UnreadableError('`axes` holds something else than 0, 1 and "tie".')
    return {checked_axis(axis): PAIR.ranks(choice, k) for axis, choice in value.items()}
