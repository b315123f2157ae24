"""Standard output that can go nowhere: a full disk, a reader that has ended, a stream that was closed."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TextIO

from rlhf_dagster.errors import UserError

_lost: list[str] = []
"""Why output was lost, also where whoever printed it went on without it: a view of long work, or Click."""


class OutputLost(UserError):  # noqa: N818  # lost is what it is
    """What a command prints cannot be written. The message is the sentence for it."""


class GuardedOutput(io.TextIOWrapper):
    """A stream of text that raises OutputLost where it cannot be written.

    Not an OSError: Click and Rich end a command in their own ways, and without a word, where they catch one.
    """

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            return self._lose(error, len(text))

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._lose(error, 0)

    def _lose(self, error: OSError, size: int) -> int:
        raise OutputLost(_record(self, error)) from None


class PatientOutput(GuardedOutput):
    """One whose loss does not end the work that it shows; :func:`require_output` says so at the end."""

    def _lose(self, error: OSError, size: int) -> int:
        _record(self, error)
        return size


def guard_output() -> None:
    """Put a guarded stream in the place of standard output.

    Raises:
        OutputLost: standard output is closed.
    """
    if _open_closed():
        raise OutputLost("Standard output is closed; let it lead somewhere, to /dev/null where nobody reads it.")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the output's encoding has no characters for is written as escapes: a name is no reason to end.
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _guarded(sys.stdout)


def require_output() -> None:
    """Raise OutputLost where something that was printed is not written, or was lost on the way."""
    sys.stdout.flush()
    if _lost:
        why = _lost[0]
        _lost.clear()
        raise OutputLost(why)


def end_output() -> None:
    """Write what is still to be written: the interpreter would do it at its end, and fail in its own words."""
    with suppress(OutputLost):
        sys.stdout.flush()


def say_error(sentence: str) -> None:
    """Print a sentence to standard error, if that leads anywhere; the exit code stays the same."""
    try:
        print(f"rlhf: {sentence}", file=sys.stderr, flush=True)
    except OSError:
        _lead_nowhere(sys.stderr.fileno())


def sentence_of(failure: str) -> str:
    """The sentence of a failure; the end of a training's log, where it comes with one, goes to standard error."""
    sentence, *log = failure.splitlines() or [""]
    if log:
        print(*log, sep="\n", file=sys.stderr)
    return sentence


def _record(stream: GuardedOutput, error: OSError) -> str:
    """Note a loss; returns the sentence of the first one."""
    _lead_nowhere(stream.fileno())
    _lost.append(_sentence(error))
    return _lost[0]


def _lead_nowhere(number: int) -> None:
    """Let a stream lead to /dev/null: what is still to be written would fail again at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _sentence(error: OSError) -> str:
    if error.errno == errno.EPIPE:
        return "Nobody reads the output any more; what is done stays done."
    return f"The output cannot be written ({error.strerror}); what is done stays done, let the output lead elsewhere."


def _guarded(stream: io.TextIOWrapper) -> TextIO:
    return GuardedOutput(
        stream.buffer,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _open_closed() -> bool:
    """Open standard streams that are closed, on /dev/null; returns whether standard output was.

    Files that are opened later would get their numbers: a database under that of standard output holds whatever is
    printed.
    """
    is_closed = sys.stdout is None
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    return is_closed
