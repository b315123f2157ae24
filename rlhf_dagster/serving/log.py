"""The log of what was asked of the served policy: JSON lines in OpenAI's form, which `data.feedback` reads."""

import errno
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from rlhf_dagster.common.files import writing
from rlhf_dagster.common.user_hash import user_hash

SUFFIX = ".jsonl"


class ConversationLog:
    """Adds lines to a file whose name ends in `.jsonl`, or to one for each day (UTC) in a folder.

    Only their owner can read the files. Several processes can write to one: each line is written at once.
    """

    def __init__(self, place: Path, key: bytes, say: Callable[[str], object]) -> None:
        """``say`` is told where a line could not be written, once for each reason: whoever asked has the answer.

        Raises UserError where nothing can be written.
        """
        self._place, self._key, self._say = place, key, say
        self._lock, self._said, self._is_cut = Lock(), "", False
        with writing(place.parent if place.suffix == SUFFIX else place):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._append(b"")

    def conversation(self, line: Mapping[str, Any], user: str) -> None:
        """A request with its response; ``user`` is hashed."""
        self._write({**line, "user": user_hash(user, self._key)})

    def thumbs(self, response_id: str, choice: int, liked: bool, user: str) -> None:
        """What ``user`` thought of a response."""
        feedback = {"id": response_id, "choice": choice, "thumbs": "up" if liked else "down"}
        self._write({"feedback": feedback, "user": user_hash(user, self._key)})

    @property
    def _file(self) -> Path:
        return self._place if self._place.suffix == SUFFIX else self._place / f"{datetime.now(UTC):%Y-%m-%d}{SUFFIX}"

    def _write(self, line: Mapping[str, Any]) -> None:
        timed = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **line}
        try:
            # JSON can spell half of a surrogate pair, and UTF-8 cannot.
            self._append(json.dumps(timed, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        except OSError as error:
            self._tell(f"A conversation is not in the log: {self._file} cannot be written ({error.strerror}).")

    def _append(self, line: bytes) -> None:
        with self._lock:
            handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                whole = b"\n" + line if self._is_cut else line
                self._is_cut = self._is_cut or bool(line)
                if os.write(handle, whole) < len(whole):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._is_cut = False
            finally:
                os.close(handle)

    def _tell(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            self._say(sentence)
