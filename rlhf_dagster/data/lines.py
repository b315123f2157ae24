"""Lines of JSON from a file, and the sentence for each line that cannot be used."""

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rlhf_dagster.errors import UserError

Record = TypeVar("Record")


class BadLineError(ValueError):
    """A line that cannot be used; the message is the reason given to the user."""


def read_lines(file: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers counted from 1."""
    if not file.is_file():
        raise UserError(f"{file}: no such file.")
    try:
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"{file}: not a whole gzip file, although its name ends in .gz; compress it again.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}).") from None
    # Only "\n" ends a line: JSON strings may hold the other characters that str.splitlines breaks at.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise UserError(f"{file}: the file is empty; give one JSON object a line.")
    return lines


def parse_lines(
    lines: list[tuple[int, str]], parse: Callable[[dict[str, Any]], Record]
) -> tuple[list[tuple[int, Record]], list[tuple[int, str]]]:
    """The numbered records that ``parse`` makes, and the number and reason of each line it cannot use."""
    records: list[tuple[int, Record]] = []
    refused: list[tuple[int, str]] = []
    for number, line in lines:
        try:
            records.append((number, parse(_json_object(line))))
        except BadLineError as error:
            refused.append((number, str(error)))
    return records, refused


def _json_object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadLineError("not a JSON object")
    return value
