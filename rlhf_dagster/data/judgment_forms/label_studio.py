"""Label Studio's exports: JSON with annotations, and JSON_MIN or CSV, flat, with a row an annotation."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rlhf_dagster.data.judgment_forms.base import JudgmentForm, LeftOut, RowContent, RowValues
from rlhf_dagster.data.judgment_forms.columns import prompt_from, response_from, wide_responses
from rlhf_dagster.data.judgment_forms.controls import PageAnswers, answered_outcome, ranks_in_order, rating_in, rest_of
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.data.line_values import is_missing, name_of, number_of, plain, time_of
from rlhf_dagster.data.lines import BadLineError

_FLAT = ("annotation_id", "annotator")
_ABOUT = {"annotator", "annotation_id", "created_at", "updated_at", "lead_time", "id", "inner_id", "project"}
_UNRANKED = "_"
"""Ranker's bucket of what has no rank yet."""


class LabelStudioForm(JudgmentForm):
    """Tasks with annotations. Skipped tasks, drafts and predictions are no judgments, and counted."""

    name = "label_studio"
    shape = "`data` and `annotations`; or, of JSON_MIN and CSV, the task's columns with `annotator` and `annotation_id`"

    kept = ("answers",)

    def fits(self, row: RowValues) -> bool:
        return _is_task(row) or all(column in row for column in _FLAT)

    def lines(self, row: RowValues) -> Iterator[RowContent]:
        if _is_task(row):
            yield from _of_task(row)
        else:
            yield _of_flat(row)


def _is_task(row: RowValues) -> bool:
    return isinstance(row.get("data"), Mapping) and ("annotations" in row or "completions" in row)


def _of_task(row: RowValues) -> Iterator[RowContent]:
    given = row.get("annotations") or row.get("completions") or []
    if not isinstance(given, list):
        yield BadLineError("`annotations` is not a list")
        return
    for kind in ("drafts", "predictions"):
        others = row.get(kind)
        yield from (LeftOut(f"{kind} of tasks") for _ in (others if isinstance(others, list) else []))
    if not given:
        yield LeftOut("tasks without an annotation")
    for annotation in given:
        if not isinstance(annotation, Mapping) or annotation.get("was_cancelled"):
            yield LeftOut("skipped tasks")
        else:
            yield _judged(row, annotation)


def _judged(row: RowValues, annotation: Mapping[str, Any]) -> RowContent:
    try:
        answers, side_by_side = _answers(annotation.get("result"))
        return _line(row["data"], annotation, answers, side_by_side)
    except BadLineError as error:
        return error


def _line(data: RowValues, about: Mapping[str, Any], answers: PageAnswers, side_by_side: bool) -> JudgmentLine:
    columns = _responses(data)
    prompt, used = prompt_from(data)
    outcome = answered_outcome(answers, tuple(columns), tuple(columns))
    rest = {key: value for key, value in data.items() if key not in {*used, "items", "responses"}}
    left = {key: value for key, value in rest.items() if value not in columns.values()}
    return JudgmentLine(
        comparison=name_of(data, "comparison"),
        prompt=prompt,
        responses=tuple(columns.values()),
        annotator=_who(about.get("completed_by", about.get("annotator"))),
        order_known=side_by_side,
        submitted_at=time_of(about, "created_at"),
        seconds=number_of(about, "lead_time"),
        metadata=plain({**left, **rest_of(answers)}),
        **outcome,
    )


def _responses(data: RowValues) -> dict[str, str]:
    """The texts compared, by what names them in answers: a mark, or the id of an item of a list."""
    wide = wide_responses(data)
    listed = next((data[name] for name in ("items", "responses") if isinstance(data.get(name), list)), None)
    if wide or listed is None:
        if len(wide) < 2:
            raise BadLineError("`data` has no columns such as `response_a` and `response_b`, and no list of `items`")
        return {mark: response_from(data[column], f"`{column}`") for mark, column in wide.items()}
    if not all(isinstance(item, Mapping) and "id" in item for item in listed):
        return {str(index): response_from(text, "a response") for index, text in enumerate(listed, start=1)}
    return {str(item["id"]).lower(): _item_text(item) for item in listed}


def _item_text(item: Mapping[str, Any]) -> str:
    text = next((item[name] for name in ("body", "text", "html", "title") if isinstance(item.get(name), str)), None)
    return response_from(text, "the text of an item")


def _who(value: Any) -> str:
    """The annotator's address where the export has it, else the number."""
    if isinstance(value, Mapping):
        return name_of(value, "email") or name_of(value, "id")
    return name_of({"annotator": value}, "annotator")


def _answers(results: Any) -> tuple[PageAnswers, bool]:
    """The answers of an annotation, and whether the page had the responses on a left and a right side."""
    if not isinstance(results, list):
        raise BadLineError("`result` is not a list")
    answers, side_by_side = PageAnswers(), False
    for result in results:
        if isinstance(result, Mapping) and isinstance(result.get("value"), Mapping):
            _add(answers, str(result.get("from_name")), str(result.get("to_name")), result["value"])
            side_by_side |= result.get("type") == "pairwise"
    return answers, side_by_side


def _add(answers: PageAnswers, name: str, about: str, value: Mapping[str, Any]) -> None:
    if "selected" in value:
        answers.choices[name] = value["selected"]
    elif "choices" in value:
        chosen = value["choices"]
        answers.choices[name] = chosen[0] if isinstance(chosen, list) and len(chosen) == 1 else chosen
    elif "rating" in value and (rating := rating_in(value["rating"])) is not None:
        answers.ratings[name] = rating
    elif "ranker" in value:
        answers.orders[name] = _order(value["ranker"])
    elif "text" in value:
        text = value["text"]
        answers.texts[name] = "\n".join(map(str, text)) if isinstance(text, list) else str(text)


def _order(ranker: Any) -> dict[str, int]:
    """Of one bucket its order, of several the buckets' order: what is in one bucket ties."""
    if not isinstance(ranker, Mapping):
        raise BadLineError("a ranker's value is not an object of buckets")
    buckets = [items for name, items in ranker.items() if name != _UNRANKED]
    if len(buckets) == 1:
        return ranks_in_order(buckets[0])
    return ranks_in_order([items for items in buckets if items])


def _of_flat(row: RowValues) -> JudgmentLine:
    data = {key: value for key, value in row.items() if key not in _ABOUT}
    wide = wide_responses(data)
    _, used = prompt_from(data)
    answers, side_by_side = PageAnswers(), False
    for name, cell in data.items():
        if name in used or name in wide.values() or is_missing(cell) or cell == "":
            continue
        value = _of_cell(cell)
        if isinstance(value, Mapping):
            side_by_side |= "selected" in value
            _add(answers, name, "", value)
        elif rating_in(value) is not None:
            answers.ratings[name] = rating_in(value) or 0.0
        else:
            answers.choices[name] = value
    return _line(data, row, answers, side_by_side)


def _of_cell(value: Any) -> Any:
    """A value of JSON_MIN, or of a cell with JSON: an object, or the only one of a list of them."""
    if isinstance(value, str) and value.startswith(("[", "{")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        value = value[0]
    if isinstance(value, Mapping) and isinstance(value.get("value"), Mapping):
        value = value["value"]
    return value
