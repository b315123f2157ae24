"""OpenAI's forms: comparisons of summaries with their posts, and preferred outputs for fine-tuning."""

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf_dagster.data.judgment_forms.base import JudgmentForm, RowValues
from rlhf_dagster.data.judgment_forms.choices import position_of
from rlhf_dagster.data.judgment_forms.columns import described, prompt_from, response_from
from rlhf_dagster.data.judgment_forms.outcomes import by_choice, by_order, checked_count
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.data.line_values import json_text, name_of
from rlhf_dagster.data.lines import BadLineError

_SUMMARIES, _PREFERRED = "summaries", ("preferred_output", "non_preferred_output")


class OpenAIForm(JudgmentForm):
    """`info`, `summaries` and `choice` (Stiennon et al. 2020), or `input` with two outputs."""

    name = "openai"
    shape = "`info`, `summaries` and `choice`; or `input`, `preferred_output` and `non_preferred_output`"

    def fits(self, row: RowValues) -> bool:
        return (_SUMMARIES in row and "info" in row) or all(column in row for column in _PREFERRED)

    def lines(self, row: RowValues) -> Iterator[JudgmentLine]:
        yield _of_summaries(row) if _SUMMARIES in row else _of_outputs(row)


def _of_summaries(row: RowValues) -> JudgmentLine:
    info, given = row.get("info"), row[_SUMMARIES]
    if not isinstance(info, Mapping) or not isinstance(given, list):
        raise BadLineError("`info` is not an object, or `summaries` not a list")
    checked_count(len(given))
    marks = tuple(str(index) for index in range(len(given)))
    choice = position_of(row.get("choice"), marks)
    return JudgmentLine(
        prompt=_prompt_of(info),
        responses=tuple(json_text(_object(one).get("text"), "a summary") for one in given),
        policies=tuple(name_of(_object(one), "policy") for one in given),
        order_known=False,
        **by_choice(choice, len(given)),
        **described(row, {_SUMMARIES, "choice"}),
    )


def _prompt_of(info: Mapping[str, Any]) -> str:
    """The post with its title and forum, or the article, and the words that ask for a summary, as in the paper."""
    parts = [
        f"{name}: {json_text(info[key], f'`{key}`')}"
        for name, key in (("SUBREDDIT", "subreddit"), ("TITLE", "title"), ("POST", "post"))
        if info.get(key)
    ]
    if info.get("article"):
        parts = [json_text(info["article"], "`article`")]
    if not parts:
        raise BadLineError("`info` has neither `post` nor `article`")
    return "\n\n".join([*parts, "TL;DR:"])


def _of_outputs(row: RowValues) -> JudgmentLine:
    given = row.get("input")
    if not isinstance(given, Mapping):
        raise BadLineError("`input` is not an object with `messages`")
    prompt, _ = prompt_from({"messages": given.get("messages")})
    texts = tuple(response_from(row.get(column), f"`{column}`") for column in _PREFERRED)
    fields = described(row, {"input", *_PREFERRED})
    fields["metadata"] |= {key: value for key, value in given.items() if key != "messages" and value}
    return JudgmentLine(prompt=prompt, responses=texts, order_known=False, **by_order([1, 2]), **fields)


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadLineError("a summary is not an object with `text`")
    return value
