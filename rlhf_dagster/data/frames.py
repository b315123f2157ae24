"""Tables that trainings read, from texts and data frames of one's own.

They are data frames as well: ``preferences_table(frame).to_parquet("preferences.parquet")`` writes what a spec names.

Each row is in the split ``train`` or ``validation``, by a hash of its prompt or document: with the same share, a prompt
that is held out in one table is held out in all. To choose the split yourself, put two tables together:
``pd.concat([preferences_table(mine, validation=0), preferences_table(held_out, validation=1)])``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from rlhf_dagster.data.line_values import text_of
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.messages import prompt_in
from rlhf_dagster.data.rows import demonstration_row, document_row, prompt_row
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import messages_of
from rlhf_dagster.records.ids import comparison_id, content_hash, label_id, prompt_id, pseudonym, split_of
from rlhf_dagster.records.outcome import ranks_from_best, target
from rlhf_dagster.records.round_keys import IMPORT_ROUND, IMPORTED_POLICY
from rlhf_dagster.records.schemas import DEMONSTRATIONS, PREFERENCES, PRETRAINING_TEXT, PROMPTS, table
from rlhf_dagster.records.tables import Row, records

SOURCE = "python"
"""What the column ``source`` says of these rows."""


def prompts_table(texts: Iterable[Any], validation: float = 0.1) -> pd.DataFrame:
    """Prompts to sample from, each once.

    Args:
        texts: the prompts, such as a column of a data frame: texts, or lists of messages with `role` and `content`.
        validation: the share held out, from 0 to 1, in expectation.

    Returns:
        Columns of PROMPTS, in the order given.

    Raises:
        UserError: there is no prompt, or one that is empty or neither a string nor messages.
    """

    def row(values: Mapping[str, Any], position: int) -> Row:
        prompt = prompt_in(_plain(values, "text"), "text")
        return prompt_row(prompt, SOURCE, "", _split(str(prompt), validation))

    return _finished(_listed(texts, "text"), row, PROMPTS, validation)


def pretraining_table(texts: Iterable[str], validation: float = 0.05) -> pd.DataFrame:
    """Documents for a tiny model, or for PPO's `pretraining_coef`, each once.

    Args:
        texts: the documents.
        validation: the share held out, from 0 to 1, in expectation.

    Returns:
        Columns of PRETRAINING_TEXT, in the order given.

    Raises:
        UserError: there is no text, or one that is empty or not a string.
    """

    def row(values: Mapping[str, Any], position: int) -> Row:
        text = text_of(values, "text")
        return document_row(text, SOURCE, _split(text, validation))

    return _finished(_listed(texts, "text"), row, PRETRAINING_TEXT, validation)


def demonstrations_table(frame: pd.DataFrame, validation: float = 0.1) -> pd.DataFrame:
    """Prompts with responses that a policy is to imitate, each pair once.

    Args:
        frame: columns `prompt` (texts or lists of messages) and `response`, and no others.
        validation: the share of the prompts held out, from 0 to 1, in expectation.

    Returns:
        Columns of DEMONSTRATIONS, in the order given.

    Raises:
        UserError: a column is missing or unknown, there is no row, or a text is empty or not a string.
    """

    def row(values: Mapping[str, Any], position: int) -> Row:
        prompt, response = prompt_in(_plain(values)), text_of(values, "response")
        return demonstration_row(prompt, response, SOURCE, _split(str(prompt), validation))

    _require_columns(frame, ("prompt", "response"), ())
    return _finished(records(frame), row, DEMONSTRATIONS, validation)


def preferences_table(frame: pd.DataFrame, validation: float = 0.1) -> pd.DataFrame:
    """Pairs of responses of which somebody preferred one, for the reward model and for DPO.

    Rows about the same two responses are labels of one comparison, whichever was chosen: a repeated row counts twice,
    and two people who disagree pull in two directions.

    Args:
        frame: columns `prompt` (texts or lists of messages), `chosen` and `rejected`; perhaps `annotator`, whose name
            becomes a pseudonym, and `strength`, how much better the chosen response is, from 0 to 1; no others. Both
            may have gaps.
        validation: the share of the prompts held out, from 0 to 1, in expectation.

    Returns:
        Columns of PREFERENCES, one row of kind `pair` and weight 1 for each row of ``frame``, in its order.

    Raises:
        UserError: a column is missing or unknown, there is no row, a text is empty or not a string, chosen and rejected
            are the same, or a strength is not from 0 to 1.
    """

    def row(values: Mapping[str, Any], position: int) -> Row:
        made = _preference(_plain(values), position)
        return made | {"split": _split(made["prompt"], validation)}

    _require_columns(frame, ("prompt", "chosen", "rejected"), ("annotator", "strength"))
    return _finished(records(frame), row, PREFERENCES, validation)


def _preference(values: Mapping[str, Any], position: int) -> Row:
    """A row of PREFERENCES but for its split. Responses are sorted: their order must not tell which one was chosen."""
    prompt, chosen, rejected = prompt_in(values), text_of(values, "chosen"), text_of(values, "rejected")
    if chosen.strip() == rejected.strip():
        raise BadLineError("`chosen` and `rejected` are the same response, so there is nothing to choose")
    responses = sorted([chosen, rejected])
    ranks = ranks_from_best([responses.index(chosen)], 2)
    comparison = comparison_id(
        [content_hash(messages_of(prompt) or prompt, text) for text in responses], "pair", IMPORT_ROUND
    )
    annotator = pseudonym(_name(values.get("annotator")))
    return {
        "label_id": label_id(comparison, annotator, str(position), 1),
        "comparison_id": comparison,
        "round": IMPORT_ROUND,
        "kind": "pair",
        "prompt_id": prompt_id(prompt),
        "prompt": str(prompt),
        "messages": messages_of(prompt),
        "responses": responses,
        "policy_ids": [IMPORTED_POLICY] * 2,
        "ranks": ranks,
        "target": target(ranks),
        "annotator": annotator,
        "weight": 1.0,
        "strength": _strength(values.get("strength")),
        "ratings": None,
    }


def _strength(value: Any) -> float | None:
    if _is_missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadLineError(f"`strength` is {str(value)[:20]}, which is no number from 0 to 1")
    return float(value)


def _split(text: str, validation: float) -> str:
    # The prefix makes this hash differ from that of the text alone, by which a loop or a task has split its texts.
    return split_of(f"python/{text}", validation, test=0)


def _name(value: Any) -> str:
    """An annotator's name; a whole number is written as one, also where a gap in its column has made it a float."""
    if _is_missing(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_missing(value: Any) -> bool:
    """Whether a cell of a data frame is a gap."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _listed(values: Iterable[Any], key: str) -> list[Row]:
    """A row with the key ``key`` for each of ``values``."""
    if isinstance(values, str | Mapping | pd.DataFrame):
        raise UserError(f"Texts are a list or a column of strings, not one {type(values).__name__}.")
    return [{key: value} for value in values]


def _plain(values: Mapping[str, Any], key: str = "prompt") -> Mapping[str, Any]:
    """``values`` with a prompt that came out of Parquet, an array of messages, as a list."""
    prompt = values[key]
    return {**values, key: prompt.tolist()} if isinstance(prompt, np.ndarray) else values


def _finished(
    rows: list[Row], make: Callable[[Mapping[str, Any], int], Row], schema: pa.Schema, validation: float
) -> pd.DataFrame:
    """The table of what ``make`` returns for each row and its position; of rows with equal ids the first stays."""
    if not 0 <= validation <= 1:
        raise UserError(f"validation is {validation:g}; it is a share, from 0 to 1.")
    if not rows:
        raise UserError("There is no row to make a table of; give at least one.")
    made = pd.DataFrame([_made(values, position, make) for position, values in enumerate(rows)])
    return table(made.drop_duplicates(schema.names[0], ignore_index=True), schema).to_pandas()


def _made(values: Mapping[str, Any], position: int, make: Callable[[Mapping[str, Any], int], Row]) -> Row:
    try:
        return make(values, position)
    except BadLineError as error:
        raise UserError(f"Row {position}, counted from 0: {error}; correct it or leave it out.") from None


def _require_columns(frame: pd.DataFrame, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    known = [*required, *optional]
    missing = [name for name in required if name not in frame.columns]
    if missing:
        raise UserError(f"The data frame has no column `{missing[0]}`; known here: {', '.join(known)}.")
    unknown = [str(name) for name in frame.columns if name not in known]
    if unknown:
        raise UserError(f"The column `{unknown[0][:40]}` would be ignored; leave it out. Known: {', '.join(known)}.")
    if not frame.columns.is_unique:
        raise UserError("The data frame has two columns of one name; leave one out.")
