"""Rows of JSON: an object a line, an array of objects, or objects over several lines."""

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.reading.source import NumberedRow
from rlhf_dagster.data.reading.streams import (
    BYTE_ORDER_MARK,
    READ_SIZE,
    lines_in,
    longest_row,
    not_utf8,
    opened_bytes,
    too_long,
)
from rlhf_dagster.errors import UserError

_BEGIN, _BETWEEN = re.compile(r"\s*\[?\s*"), re.compile(r"[\s,]*")
_END = "]"
_DECODER = json.JSONDecoder()
_CUT = 16
"""An error so close to the end of what was read may come from the cut there."""


def json_rows(path: Path) -> Iterator[NumberedRow]:
    """The objects of a file with their numbers: those of lines, or of values where there is no object a line."""
    lines = _has_lines(path)
    with opened_bytes(path) as stream:
        yield from _of_lines(path, stream) if lines else _of_values(path, stream)


def _has_lines(path: Path) -> bool:
    with opened_bytes(path) as stream:
        return _is_lines(stream.read(READ_SIZE))


def json_object(line: str) -> Mapping[str, Any] | BadLineError:
    """The object of a line, or why it is none."""
    try:
        return _object(_value(line))
    except (ValueError, RecursionError) as error:
        return BadLineError(f"not valid JSON: {error}")


def _value(line: str) -> Any:
    """``json.loads``, without its search for blanks around an object that is the whole line."""
    if line.startswith("{"):
        value, end = _DECODER.raw_decode(line)
        if end == len(line) or line[end:] == "\n":
            return value
    return json.loads(line)


def _object(value: Any) -> Mapping[str, Any] | BadLineError:
    return value if isinstance(value, dict) else BadLineError("not a JSON object")


def _is_lines(head: bytes) -> bool:
    """Whether a file that begins so has an object a line; ``head`` may be cut anywhere."""
    text = head.removeprefix(BYTE_ORDER_MARK).decode(errors="replace").lstrip()
    first, ended, _ = text.partition("\n")
    if text.startswith("["):
        return bool(ended) and _is_array_a_line(text)
    return not text.startswith("{") or not ended or _parses(first) or not _goes_on(text, first)


def _goes_on(text: str, first: str) -> bool:
    """Whether the object with which ``text`` begins ends behind its ``first`` line."""
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return end > len(first)


def _is_array_a_line(text: str) -> bool:
    """Whether each of the first lines is an array of its own, which then is a wrong line and not the file."""
    lines = [line for line in text.split("\n")[:3] if line.strip()]
    return len(lines) > 1 and all(map(_parses, lines[:2]))


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _of_lines(path: Path, stream: BinaryIO) -> Iterator[NumberedRow]:
    place = 0
    for number, line in enumerate(lines_in(path, stream), start=1):
        start = len(BYTE_ORDER_MARK) if number == 1 and line.startswith(BYTE_ORDER_MARK) else 0
        try:
            text = line[start:].decode()
        except UnicodeDecodeError as error:
            raise not_utf8(path, place + start + error.start) from None
        place += len(line)
        if text.strip():
            yield number, json_object(text)


def _of_values(path: Path, stream: BinaryIO) -> Iterator[NumberedRow]:
    buffer = _Buffer(path, stream)
    number = 0
    more = buffer.skip(_BEGIN)
    while more and not buffer.at(_END):
        number += 1
        yield number, _object(buffer.value(number))
        more = buffer.skip(_BETWEEN)


class _Buffer:
    """The text of a stream from the value that is next to be read."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path, self._stream = path, stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text, self._position, self._read = "", 0, 0

    def skip(self, pattern: re.Pattern[str]) -> bool:
        """Go on past ``pattern``; whether there is anything behind it."""
        while True:
            found = pattern.match(self._text, self._position)
            self._position = found.end() if found else self._position
            if self._position < len(self._text):
                return True
            if not self._more(READ_SIZE):
                return False

    def at(self, mark: str) -> bool:
        return self._text.startswith(mark, self._position)

    def value(self, number: int) -> Any:
        """The value that begins here; the text is read on until it is whole."""
        size = READ_SIZE
        while True:
            try:
                value, self._position = self._json.raw_decode(self._text, self._position)
            except RecursionError:
                raise UserError(f"{self._path}: value {number} is nested too deeply to be a row.") from None
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _CUT
                if not cut or not self._more(size):
                    raise UserError(f"{self._path}: value {number} is not valid JSON: {error.msg}.") from None
                size *= 2
            else:
                return value

    def _more(self, size: int) -> bool:
        """Read on, and forget what is behind; whether there was more."""
        rest = self._text[self._position :]
        if len(rest) > longest_row():
            raise too_long(f"{self._path}: a value")
        data = self._stream.read(size)
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise not_utf8(self._path, self._read + error.start) from None
        self._read += len(data)
        self._text, self._position = rest + text, 0
        return bool(data)
