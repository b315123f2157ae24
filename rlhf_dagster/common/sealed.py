"""JSON records with a checksum and a format: what was written is what is read, or it is said which file is not."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.errors import Damaged, UserError, first_line

FORMAT = 1
"""Of everything that a loop keeps. A release that writes what an older one would misread counts one further."""
CHECKSUM, FORMAT_KEY = "_sha256", "_format"
"""Keys of the seal in a record; a record has none of its own that begin like these."""
_Record = TypeVar("_Record")


def seal(content: Mapping[str, Any], indent: int | None = 1, sort_keys: bool = False) -> bytes:
    """``content`` as JSON text with its format and its checksum, ending in a line feed.

    Raises ValueError for NaN and infinity, which JSON does not have.
    """
    if reserved := {CHECKSUM, FORMAT_KEY} & content.keys():
        raise ValueError(f"a record cannot have the key {min(reserved)}")
    record = dict(content) | {FORMAT_KEY: FORMAT}
    if sort_keys:
        record = dict(sorted(record.items()))
    sealed = record | {CHECKSUM: checksum(record)}
    text = json.dumps(sealed, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    # A lone surrogate, which UTF-8 does not have, becomes its JSON escape.
    return text.encode("utf-8", "backslashreplace")


def unseal(data: bytes, name: str) -> dict[str, Any]:
    """The content of a record; ``name`` names its file in errors.

    A record without checksum is taken as it is: version 0.1 wrote none, and neither do people.

    Raises:
        Damaged: the text is no JSON object, or does not match its checksum.
        UserError: the record was written by a newer release.
    """
    try:
        record = parse_json(data.decode("utf-8"))
    except ValueError:
        raise Damaged(f"{name} is damaged: it is not valid JSON.") from None
    if not isinstance(record, dict):
        raise Damaged(f"{name} is damaged: it is not a JSON object.")
    written = record.pop(CHECKSUM, None)
    if written is not None and written != checksum(record):
        raise Damaged(f"{name} is damaged: it does not match its checksum.")
    require_format(record.pop(FORMAT_KEY, 0), name)
    return record


def seal_page(text: str) -> bytes:
    """An HTML page with its checksum in a comment at its end."""
    # Texts can hold lone surrogates, which UTF-8 cannot.
    page = text.encode("utf-8", "replace")
    return page + f"<!-- {CHECKSUM} {hashlib.sha256(page).hexdigest()} -->\n".encode()


def is_whole_page(data: bytes) -> bool:
    """Whether a page is what was written; one without checksum, as version 0.1 wrote them, counts as whole."""
    page, mark, written = data.rpartition(f"<!-- {CHECKSUM} ".encode())
    return not mark or written.strip() == f"{hashlib.sha256(page).hexdigest()} -->".encode()


def html_of(data: bytes) -> str:
    """The HTML of :func:`seal_page`, without its checksum."""
    page, mark, _ = data.rpartition(f"<!-- {CHECKSUM} ".encode())
    return (page if mark else data).decode("utf-8")


def require_format(found: Any, name: str) -> None:
    """Raise UserError where something was written in a format that this release does not know."""
    if not isinstance(found, int) or found > FORMAT:
        raise UserError(
            f"{name} has format {found}, and this release of rlhf_dagster reads formats up to {FORMAT}; install the "
            "release that wrote it, or a newer one."
        )


def checksum(record: Mapping[str, Any]) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of a record."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_as(kind: type[_Record], values: Mapping[str, Any], name: str) -> _Record:
    """The dataclass ``kind`` from a record's values.

    Raises Damaged where a key is missing or not known, or a value is of another type than its field.
    """
    known: dict[str, Any] = _types_of(cast("Any", kind))
    if unknown := sorted(values.keys() - known.keys()):
        raise Damaged(f"{name} is damaged or by a newer release: it has the unknown key {unknown[0]!r}.")
    if wrong := [key for key, value in values.items() if not _is_a(known[key], value)]:
        raise Damaged(f"{name} is damaged: {wrong[0]!r} is not what it must be.")
    try:
        return kind(**values)
    except TypeError:
        raise Damaged(f"{name} is damaged: it lacks a key that it must have.") from None
    except ValueError as error:
        raise Damaged(f"{name} is damaged: {first_line(error)}.") from None


@cache
def _types_of(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _is_a(hint: Any, value: Any) -> bool:
    """Whether a value of JSON is of a field's type; what a list or a mapping holds is not looked at."""
    origin = get_origin(hint)
    if origin is Literal:
        return value in get_args(hint)
    if origin in (Union, UnionType):
        return any(_is_a(part, value) for part in get_args(hint))
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, {float: (int, float), tuple: (list, tuple)}.get(origin or hint, origin or hint))
