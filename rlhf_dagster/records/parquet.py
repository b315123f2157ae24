"""Parquet with a checksum over the whole file, in a place that every reader of Parquet passes over.

Parquet finds its footer from the end of the file and its pages by their offsets from the beginning, so bytes between
the last page and the footer belong to nobody. A tag there holds the SHA-256 of everything else: a flipped bit anywhere
is noticed, in page headers and the footer too, which the checksums of Parquet's pages do not cover.
"""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlhf_dagster.errors import Damaged, first_line

_MAGIC = b"RLHF-SHA256-1:"
TAG_LENGTH = len(_MAGIC) + hashlib.sha256().digest_size
_TAIL = 8
"""Bytes at the end of a Parquet file: the footer's length, and ``PAR1``."""

_IN_THIS_THREAD: Any = {"use_threads": False, "pre_buffer": False}
"""A thread of Arrow's that lets go of Python's bytes while the interpreter ends aborts the whole process."""


def to_parquet(table: pa.Table) -> bytes:
    """A table as a sealed Parquet file."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, write_page_checksum=True)
    return seal_parquet(buffer.getvalue().to_pybytes())


def seal_parquet(data: bytes) -> bytes:
    """A Parquet file with its tag; one that has a tag stays as it is."""
    if _tag(data) is not None:
        return data
    end = len(data) - _TAIL - _footer_length(data)
    return data[:end] + _MAGIC + hashlib.sha256(data).digest() + data[end:]


def read_parquet(source: Path | bytes, name: str = "", columns: list[str] | None = None) -> pa.Table:
    """The table in a file or in its bytes, once its checksum is compared; ``name`` names it in errors.

    A file without a tag, such as a user's own, is read as it is. Raises Damaged where the checksum does not match, or
    where this is no Parquet.
    """
    data = source.read_bytes() if isinstance(source, Path) else source
    name = name or str(source)
    check_parquet(data, name)
    try:
        table = pq.read_table(
            pa.BufferReader(data), columns=columns, page_checksum_verification=True, **_IN_THIS_THREAD
        )
        if not is_sealed(data):
            table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Damaged(f"{name} is damaged or no Parquet table ({first_line(error)}).") from None
    return table


def check_parquet(data: bytes, name: str) -> None:
    """Raise Damaged where a tagged file is not what was written."""
    tag = _tag(data)
    if tag is not None and tag != hashlib.sha256(without_tag(data)).digest():
        raise Damaged(f"{name} is damaged: it does not match its checksum.")


def without_tag(data: bytes) -> bytes:
    """The bytes of a Parquet file as they were before it got its tag."""
    if _tag(data) is None:
        return data
    end = len(data) - _TAIL - _footer_length(data)
    return data[: end - TAG_LENGTH] + data[end:]


def is_sealed(data: bytes) -> bool:
    """Whether a file has a tag."""
    return _tag(data) is not None


def _tag(data: bytes) -> bytes | None:
    """The checksum in a file's tag; None without one, and where the data is no Parquet."""
    if len(data) < _TAIL + TAG_LENGTH or data[-4:] != b"PAR1":
        return None
    end = len(data) - _TAIL - _footer_length(data)
    tag = data[max(0, end - TAG_LENGTH) : max(0, end)]
    return tag[len(_MAGIC) :] if tag.startswith(_MAGIC) else None


def _footer_length(data: bytes) -> int:
    return int.from_bytes(data[-_TAIL:-4], "little")
