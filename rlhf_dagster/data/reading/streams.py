"""Bytes of a file, unpacked where it is compressed, and never more of them in memory than one row may have."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import pyarrow as pa

from rlhf_dagster.common.bounds.limits import MEBIBYTE, ROW_MIB, UNPACKED_RATIO
from rlhf_dagster.errors import UserError

READ_SIZE = 2**20
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BOMB_FROM = 256 * MEBIBYTE
"""What unpacks to less does no harm."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@contextmanager
def opened_bytes(path: Path) -> Iterator[BinaryIO]:
    """The bytes of ``path``, unpacked; raises UserError, also while they are read, for a file that cannot be."""
    try:
        with path.open("rb", buffering=READ_SIZE) as raw:
            yield _unpacked(path, raw)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"{path}: {_not_whole(path, 'gzip')}") from None
    except pa.ArrowException:
        raise UserError(f"{path}: {_not_whole(path, 'zstd')}") from None
    except OSError as error:
        if "zstd" in str(error).lower():
            raise UserError(f"{path}: {_not_whole(path, 'zstd')}") from None
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None


def lines_in(path: Path, stream: IO[Any]) -> Iterator[Any]:
    """The lines of a stream of bytes or text with their ends; raises UserError for one that is too long."""
    number, longest = 0, longest_row()
    while line := stream.readline(longest + 1):
        number += 1
        if len(line) > longest:
            raise too_long(f"{path}: line {number}")
        yield line


def longest_row() -> int:
    """Bytes of the longest line, cell or JSON value that is read."""
    return ROW_MIB.most * MEBIBYTE


def too_long(what: str) -> UserError:
    return UserError(f"{what} is longer than {ROW_MIB.most:,} MiB, so it is no row; shorten it, or {ROW_MIB.said()}.")


def not_utf8(path: Path, byte: int) -> UserError:
    return UserError(f"{path}: not UTF-8 text (byte {byte}); save it as UTF-8.")


def require_no_bomb(path: Path, packed: int, unpacked: int) -> None:
    """Raise UserError where so many bytes of a file have made so many as no text does."""
    ratio = UNPACKED_RATIO.most
    if unpacked > max(_BOMB_FROM, ratio * packed):
        raise UserError(
            f"{path}: unpacks to more than {ratio:,} times its size, which no text does; unpack it yourself and look "
            f"at it, or {UNPACKED_RATIO.said()}."
        )


def inner_suffix(path: Path) -> str:
    """The ending of the file's name that says what is in it, without that of its compression."""
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSED else path).suffix.lower()


def _unpacked(path: Path, raw: BinaryIO) -> BinaryIO:
    head = raw.read(4)
    raw.seek(0)
    codec = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "")
    named = COMPRESSED.get(path.suffix.lower(), "")
    if named and codec != named:
        raise UserError(f"{path}: {_not_whole(path, named)}")
    if not codec:
        return raw
    inner: Any = gzip.GzipFile(fileobj=raw) if codec == "gzip" else _zstd(raw)
    return io.BufferedReader(_Bounded(path, raw, inner), READ_SIZE)


def _zstd(raw: BinaryIO) -> Any:
    return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")


def _not_whole(path: Path, codec: str) -> str:
    claim = f", although its name ends in {path.suffix}" if path.suffix.lower() in COMPRESSED else ""
    return f"not a whole {codec} file{claim}; compress it again."


class _Bounded(io.RawIOBase):
    """What an archive unpacks to; raises UserError for an archive of which no text could be made."""

    def __init__(self, path: Path, raw: BinaryIO, inner: Any) -> None:
        self._path, self._raw, self._inner, self._given = path, raw, inner, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inner.read(len(buffer))
        buffer[: len(data)] = data
        self._given += len(data)
        require_no_bomb(self._path, self._raw.tell(), self._given)
        return len(data)
