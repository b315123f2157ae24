"""Documents from text and JSONL files, rows from a data set."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.config.data import HubDataset
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.messages import prompt_and_answer, prompt_in, turns_of
from rlhf_dagster.data.reading.hub import load_rows
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import messages_of

_COLUMNS = ("prompt", "response", "text", "user", "chat")
"""Settings of a data set that name a column."""


def read_documents(path: Path) -> list[str]:
    """Documents of a text file (an empty line ends one) or of a ``.jsonl`` file (key ``text``)."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; `data.pretraining_files` names it.")
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; convert it first.") from None
    if path.suffix != ".jsonl":
        return [part.strip() for part in re.split(r"\n\s*\n", content) if part.strip()]
    # Only "\n" ends a line: JSON strings may hold the other characters that str.splitlines breaks at.
    return [_text(path, number, line) for number, line in enumerate(content.split("\n"), 1) if line.strip()]


def _text(path: Path, number: int, line: str) -> str:
    try:
        text = parse_json(line)["text"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}, line {number}: expected a JSON object with a `text` key.") from None
    if not isinstance(text, str):
        raise UserError(f"{path}, line {number}: `text` must be a string.")
    return text


def read_dataset(source: HubDataset, root: Path) -> Iterator[dict[str, Any]]:
    """Rows of a data set under our own column names (prompt, response, text, user).

    A prompt may be a list of messages: then there are `messages` beside it.
    """
    rows = load_rows(source, root)
    columns = {ours: getattr(source, ours) for ours in _COLUMNS if getattr(source, ours)}
    missing = [theirs for theirs in columns.values() if theirs not in rows.column_names]
    if missing:
        raise UserError(
            f"The data set {source.name} has no column `{missing[0]}`; it has {', '.join(rows.column_names)}."
        )
    for number, row in enumerate(rows, 1):
        values = {ours: _value(source, number, theirs, row[theirs]) for ours, theirs in columns.items()}
        if source.chat:
            values |= _of_chat(source, number, values.pop("chat"))
        if source.beginning and isinstance(values["prompt"], str):
            cut = _cut(source, values)
            if cut is None:
                continue
            values |= cut
        yield values if isinstance(values.get("prompt"), str) else _with_chat(source, number, values)


def _of_chat(source: HubDataset, number: int, chat: Any) -> dict[str, Any]:
    """The prompt, as messages, and the response of a whole chat."""
    messages = turns_of(chat) if isinstance(chat, str) else chat
    try:
        prompt, response = prompt_and_answer(messages)
    except BadLineError as error:
        raise UserError(f"The data set {source.name}, row {number}: `{source.chat}` {error}; correct it.") from None
    return {"prompt": prompt, "response": response}


def _cut(source: HubDataset, values: dict[str, Any]) -> dict[str, str] | None:
    """The beginning of a text as prompt and, where the response is the same column, the rest as response.

    None where one of them would be empty.
    """
    text = values["prompt"]
    ends = [word.end() for word in islice(re.finditer(r"\S+", text), source.beginning)]
    prompt, rest = (text[: ends[-1]].lstrip(), text[ends[-1] :].strip()) if ends else ("", "")
    found = {"prompt": prompt, "response": rest} if source.response == source.prompt else {"prompt": prompt}
    return found if all(found.values()) else None


def _with_chat(source: HubDataset, number: int, values: dict[str, Any]) -> dict[str, Any]:
    """``values`` whose prompt, if there is one, is a list of messages, with the prompt's text and messages."""
    if "prompt" not in values:
        return values
    try:
        prompt = prompt_in(values)
    except BadLineError as error:
        raise UserError(f"The data set {source.name}, row {number}: {error}; correct it.") from None
    return values | {"prompt": str(prompt), "messages": messages_of(prompt)}


def _value(source: HubDataset, number: int, column: str, value: Any) -> Any:
    is_chat = column in (source.prompt, source.chat) and isinstance(value, list)
    if column != source.user and not is_chat and not isinstance(value, str):
        raise UserError(f"The data set {source.name}, row {number}: `{column}` is not text; choose another column.")
    return value
