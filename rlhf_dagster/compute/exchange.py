"""The files by which a run and its training process speak, with checksums: what was written is what is read.

``request.json`` says what to train, ``outcome.json`` what became of it, and ``messages.jsonl`` holds, a line each, the
steps that are done and what the process has to say.
"""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

from rlhf_dagster.common.files import write_atomically
from rlhf_dagster.common.lines import lines_of
from rlhf_dagster.common.sealed import read_as, seal, unseal
from rlhf_dagster.errors import Damaged

REQUEST, OUTCOME, MESSAGES = "request.json", "outcome.json", "messages.jsonl"
OWNER_RECORD, FOLLOWED = "owner.json", "followed"
_log = logging.getLogger("rlhf_dagster.training")
_Record = TypeVar("_Record")


@dataclass(frozen=True)
class Request:
    """What a training process is asked to do."""

    stage: str
    """The name of a training."""
    spec: str
    """The spec as JSON."""
    state: str
    """Folder of the unfinished training's state."""
    every_seconds: float
    cancelled: str
    """A file that ends the training at its next step; its text is the reason."""
    store: str
    """Address of the store whose stop cord does the same."""
    copies: str = ""
    """Folder of that store where states go as well; empty for none."""


@dataclass(frozen=True)
class TrainingOutcome:
    """What became of a training: one of the first three."""

    result: str = ""
    """A TrainingResult as JSON, whose numbers may be NaN."""
    stopped: str = ""
    """Why the training stopped early."""
    error: str = ""
    """A sentence for the user: why this cannot be trained."""
    usage: dict[str, float] = field(default_factory=dict)
    ray_job: str = ""
    """The job of Ray that did it; empty where none did."""


@dataclass(frozen=True)
class Owner:
    """Whose a work folder is: the fence between a training and an earlier try of it that is cut off and works on."""

    job: str
    identity: str
    """Of what is trained, and with which compute settings."""
    attempt: str = ""
    """Which start of the job's ranks; empty until they have started."""


def write_record(path: Path, record: Request | TrainingOutcome | Owner) -> None:
    """Write a record whole; raises UserError where the disk takes none."""
    write_atomically(path, seal(asdict(record)))


def read_record(kind: type[_Record], path: Path) -> _Record:
    """Raises Damaged where the file is not what was written."""
    return read_as(kind, unseal(path.read_bytes(), str(path)), str(path))


class Messages:
    """The writing end of ``messages.jsonl``. A training does not end because nobody can hear it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        """None after a write has failed: a further line would continue half of one."""
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            self._give_up(error)

    def progress(self, step: int, total: int, **numbers: float) -> None:
        # The numbers are a text of their own, as they may be NaN, which a record cannot hold.
        self._write({"step": step, "total": total, "numbers": json.dumps(numbers)})

    def say(self, text: str) -> None:
        """Pass on a warning."""
        self._write({"said": text})

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, message: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        try:
            _write_all(self._file, seal(message, indent=None))
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        with suppress(OSError):
            self.close()
        self._file = None
        _log.warning("%s cannot be written (%s); no further step is reported.", self._path, error.strerror)


def _write_all(file: IO[bytes], data: bytes) -> None:
    """Write in one call where the system can, so that a reader sees whole lines."""
    while data:
        data = data[file.write(data) :]


class Heard:
    """The reading end of ``messages.jsonl``."""

    def __init__(self, path: Path, progress: Callable[..., None]) -> None:
        self._path, self._progress = path, progress
        self._position = 0

    def pass_on(self) -> None:
        """Report the whole lines that were written since the last call."""
        written = self._new()
        complete = written[: written.rfind(b"\n") + 1]
        self._position += len(complete)
        for line in lines_of(complete):
            self._report(line)

    def end(self) -> None:
        """Say so where the last line has no end."""
        if self._new():
            _log.warning("The last line of %s is cut off and left out: its process was ended.", self._path)

    def _new(self) -> bytes:
        if not self._path.exists():
            return b""
        with self._path.open("rb") as file:
            file.seek(self._position)
            return file.read()

    def _report(self, line: bytes) -> None:
        try:
            message = unseal(line, f"A line of {self._path}")
        except Damaged as damaged:
            _log.warning("%s The step that it reports is left out.", damaged)
            return
        if said := message.get("said"):
            _log.warning("%s", said)
        else:
            self._progress(message["step"], message["total"], **json.loads(message["numbers"]))


class PassOn(logging.Handler):
    """Sends the warnings of this process to the run that started it."""

    def __init__(self, messages: Messages) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.say(record.getMessage())
