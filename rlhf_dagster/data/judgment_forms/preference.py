"""Chosen and rejected: texts or messages, with the prompt beside them or as what both begin with."""

from collections.abc import Iterator
from typing import Any

from rlhf_dagster.data.judgment_forms.base import JudgmentForm, RowValues
from rlhf_dagster.data.judgment_forms.columns import described, numbers_in, prompt_from, response_from
from rlhf_dagster.data.judgment_forms.outcomes import by_scores
from rlhf_dagster.data.judgment_forms.own import strength_of
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.data.line_values import is_missing, json_text, name_of
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.messages import prompt_in, shared_messages, turns_of
from rlhf_dagster.records.chats import Prompt

_NAMES = (("chosen", "rejected"), ("chosen_response", "rejected_response"), ("response_chosen", "response_rejected"))
_SCORES = ("score_{}", "{}_score", "{}-rating", "{}_rating", "rating_{}", "{}_reward")
_POLICIES = ("{}_model", "{}-model", "model_{}", "{}_policy")
_HH_TURN = "\n\nHuman:"


class PreferenceForm(JudgmentForm):
    """Chosen and rejected responses; the file does not say how they were shown."""

    name = "preference"
    shape = "`chosen` and `rejected`, texts or messages, with `prompt` or beginning with it"
    kept = ("margin", *(pattern.format(side) for pattern in _SCORES for side in ("chosen", "rejected")))

    def fits(self, row: RowValues) -> bool:
        return bool(_columns(row))

    def lines(self, row: RowValues) -> Iterator[JudgmentLine]:
        columns = _columns(row) or _NAMES[0]
        for column in columns:
            if is_missing(row.get(column)):
                raise BadLineError(f"`{column}` is missing")
        prompt, responses, used = _prompt_and_responses(row, columns)
        names = _beside(row, _POLICIES)
        used |= {*columns, *names}
        yield JudgmentLine(
            prompt=prompt,
            responses=responses,
            order_known=False,
            strength=strength_of(row),
            policies=tuple(name_of(row, name) for name in names),
            **_outcome(row),
            **described(row, used | {"strength"}),
        )


def _columns(row: RowValues) -> tuple[str, str] | None:
    return next((names for names in _NAMES if names[0] in row and names[1] in row), None)


def _outcome(row: RowValues) -> dict[str, Any]:
    """The chosen one is the better, unless scores say that both are equally good."""
    columns = _beside(row, _SCORES)
    scores = numbers_in(row, columns) if columns else None
    if scores and scores[0] < scores[1]:
        raise BadLineError("the rejected response has the higher score")
    return by_scores(scores or [1, 0])


def _beside(row: RowValues, patterns: tuple[str, ...]) -> tuple[str, ...]:
    pairs = ((pattern.format("chosen"), pattern.format("rejected")) for pattern in patterns)
    return next((pair for pair in pairs if pair[0] in row and pair[1] in row), ())


def _prompt_and_responses(row: RowValues, columns: tuple[str, str]) -> tuple[Prompt, tuple[str, str], set[str]]:
    chosen, rejected = (shared_messages(row[column]) for column in columns)
    if isinstance(chosen, list) and isinstance(rejected, list) and max(len(chosen), len(rejected)) > 1:
        # The turns before the answers are the prompt; the columns `prompt` and `messages` only repeat them.
        return *_of_turns(chosen, rejected), {"prompt", "messages"}
    if _has_prompt(row):
        prompt, used = prompt_from(row)
        return prompt, (response_from(chosen, f"`{columns[0]}`"), response_from(rejected, f"`{columns[1]}`")), used
    first, second = (json_text(value, f"`{column}`") for value, column in zip((chosen, rejected), columns, strict=True))
    if first.startswith(_HH_TURN) or second.startswith(_HH_TURN):
        return *_of_turns(turns_of(first), turns_of(second)), set()
    return *_of_texts(first, second), set()


def _has_prompt(row: RowValues) -> bool:
    try:
        prompt_from(row)
    except BadLineError as error:
        return str(error) != "`prompt` is missing"
    return True


def _of_turns(chosen: list[Any], rejected: list[Any]) -> tuple[Prompt, tuple[str, str]]:
    if chosen[:-1] != rejected[:-1]:
        raise BadLineError("`chosen` and `rejected` answer different messages")
    if not chosen or not rejected:
        raise BadLineError("`chosen` or `rejected` holds no turn")
    return prompt_in({"prompt": chosen[:-1]}), (_said(chosen[-1], "chosen"), _said(rejected[-1], "rejected"))


def _said(message: Any, column: str) -> str:
    if not isinstance(message, dict) or message.get("role") != "assistant":
        raise BadLineError(f"`{column}` does not end with a message of the assistant")
    # An answer may be empty, which a message of a prompt may not.
    return json_text(message.get("content"), f"the answer of `{column}`")


def _of_texts(chosen: str, rejected: str) -> tuple[Prompt, tuple[str, str]]:
    """The words with which both texts begin are the prompt, as in TRL's implicit prompts."""
    differs = (at for at, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other)
    shared = chosen[: next(differs, min(len(chosen), len(rejected)))]
    end = max(shared.rfind(" "), shared.rfind("\n")) + 1
    if not shared[:end].strip():
        raise BadLineError("`prompt` is missing, and `chosen` and `rejected` do not begin with the same words")
    return shared[:end].rstrip(), (chosen[end:], rejected[end:])
