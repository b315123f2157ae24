"""Columns by the names that people give them: prompts, responses, who judged, when and why."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_dagster.data.judgment_forms.own import metadata_of, times_of
from rlhf_dagster.data.line_values import is_missing, json_text, name_of, number_of, plain
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.messages import prompt_in, response_in, shared_messages
from rlhf_dagster.records.chats import Prompt

_PROMPTS = ("prompt", "instruction", "question", "query", "user_input", "history", "context")
_CHATS = ("messages", "conversations", "conversation")
_ANNOTATORS = (
    *("annotator", "annotator_id", "worker", "worker_id", "judge", "judge_id", "judgeId", "labeler", "labeller"),
    *("rater", "rater_id"),
)
_COMPARISONS = ("comparison", "comparison_id")
_REASONS = ("reason", "rationale", "explanation", "justification")
_TIMES = {
    "started_at": ("started_at",),
    "submitted_at": ("submitted_at", "tstamp"),
    "seconds": ("seconds", "lead_time"),
}
_RESPONSES = (
    *("response", "answer", "output", "completion", "conversation", "text", "summary", "reply", "generation"),
    *("candidate", "human_ref", "option", "system", "model_response", "model_output", "sentence", "translation"),
)
_WIDE = re.compile(
    rf"^({'|'.join(_RESPONSES)})s?[-_ .]?([a-z]|\d{{1,2}})(?:[-_ ]?(?:text|output|response))?$", re.IGNORECASE
)


def prompt_from(row: Mapping[str, Any]) -> tuple[Prompt, set[str]]:
    """The prompt of a row and the columns that it stands in; raises BadLineError where there is none."""
    column = next((name for name in (*_PROMPTS, *_CHATS) if not is_missing(row.get(name))), "")
    if not column:
        raise BadLineError("`prompt` is missing")
    value, used = row[column], {column}
    if column == "instruction" and row.get("input"):
        value, used = f"{value}\n\n{json_text(row['input'], '`input`')}", used | {"input"}
    if isinstance(value, Mapping) and ("full_text" in value or "text" in value):
        value = value.get("full_text", value.get("text"))
    value, around = _with_turns_around(row, value, column)
    return prompt_in({"prompt": shared_messages(value)}), used | around


def wide_responses(row: Mapping[str, Any]) -> dict[str, str]:
    """Columns that hold one response each, by what tells them apart: `a` and `b`, or `1`, `2`, `3`."""
    by_stem: dict[str, dict[str, str]] = {}
    for column, value in row.items():
        found = _WIDE.match(column)
        if found and not isinstance(value, int | float | bool):
            by_stem.setdefault(found[1].lower(), {})[found[2].lower()] = column
    whole = [_in_sequence(found) for stem, found in by_stem.items()]
    return max(whole, key=len, default={})


def names_beside(row: Mapping[str, Any], marks: Sequence[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """Columns named by one of ``patterns``, such as `model_{}`, one for each mark; empty unless all are there."""
    lower = {column.lower(): column for column in row}
    for pattern in patterns:
        found = [lower.get(pattern.format(mark)) for mark in marks]
        if all(found):
            return tuple(map(str, found))
    return ()


def response_from(value: Any, what: str) -> str:
    """A response: a text, an assistant's message, or a list of one; raises BadLineError for others."""
    if isinstance(value, Mapping):
        value = [value]
    return response_in(shared_messages(value), what)


def described(row: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    """Fields of a JudgmentLine that any form may have, and the rest of the row as metadata."""
    names = {
        "comparison": _first(row, _COMPARISONS, used),
        "annotator": _first(row, _ANNOTATORS, used),
        "reason": _first(row, _REASONS, used),
    }
    known = used | {column for column in names.values() if column}
    times = {ours: _first(row, theirs, used) for ours, theirs in _TIMES.items()}
    known |= {column for column in times.values() if column}
    texts = {ours: name_of(row, column) if column else "" for ours, column in names.items()}
    given = {ours: row[column] for ours, column in times.items() if column}
    return {**texts, **times_of(given), "metadata": plain(metadata_of(row, known))}


def numbers_in(row: Mapping[str, Any], columns: Sequence[str]) -> list[float] | None:
    """The numbers of these columns; None where one is missing."""
    found = [number_of(row, column) for column in columns]
    return None if None in found else [number for number in found if number is not None]


def _with_turns_around(row: Mapping[str, Any], value: Any, column: str) -> tuple[Any, set[str]]:
    """A text with the system's message and the turns before it, which some forms have beside it."""
    system = next((name for name in ("system", "system_prompt") if isinstance(row.get(name), str) and row[name]), "")
    turns = row.get("history")
    before = turns if column != "history" and isinstance(turns, list) and turns else []
    if not isinstance(value, str) or not (system or before):
        return value, set()
    messages = [{"role": "system", "content": row[system]}] if system else []
    for turn in before:
        if not isinstance(turn, list) or len(turn) != 2:
            raise BadLineError("`history` is not a list of turns, a question and its answer each")
        messages += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    used = ({system} if system else set()) | ({"history"} if before else set())
    return [*messages, {"role": "user", "content": value}], used


def _in_sequence(found: Mapping[str, str]) -> dict[str, str]:
    """The columns a, b, c or 0, 1, 2 or 1, 2, 3, as far as none is missing; empty if there are fewer than two."""
    for begin in ("a", "0", "1"):
        marks = [chr(ord("a") + n) if begin == "a" else str(int(begin) + n) for n in range(len(found))]
        if begin in found and all(mark in found for mark in marks[:2]):
            return {mark: found[mark] for mark in marks if mark in found}
    return {}


def _first(row: Mapping[str, Any], names: Sequence[str], used: set[str]) -> str:
    return next((name for name in names if name not in used and not is_missing(row.get(name))), "")
