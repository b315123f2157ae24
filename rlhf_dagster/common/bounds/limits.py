"""The bounds of what comes from outside, each a default that an environment variable changes.

In the environment, because processes that we start inherit it, and because a file that is to be bounded may be the one
that holds settings.
"""

import difflib
import os
from dataclasses import dataclass

from rlhf_dagster.errors import UserError

LIMIT_PREFIX = "RLHF_LIMIT_"


@dataclass(frozen=True)
class Limit:
    """The most of something that is taken from outside."""

    name: str
    default: int
    what: str
    """What is bounded, and in which unit."""

    @property
    def variable(self) -> str:
        return LIMIT_PREFIX + self.name

    @property
    def most(self) -> int:
        """Raises UserError where the environment holds no number that can be a bound."""
        given = os.environ.get(self.variable, "").strip()
        if not given:
            return self.default
        if not given.isascii() or not given.isdecimal() or not 0 < int(given[:19]) < 1 << 53:
            raise UserError(f"{self.variable} is {given[:40]!r}; give a whole number from 1 up ({self.what}).")
        return int(given)

    def said(self) -> str:
        """How to raise it, as the end of a sentence."""
        return f"where that is meant, set {self.variable} (now {self.most:,}) higher"


MEBIBYTE = 1 << 20
"""Bytes."""
LIMITS: dict[str, Limit] = {}


def _limit(name: str, default: int, what: str) -> Limit:
    LIMITS[name] = Limit(name, default, what)
    return LIMITS[name]


SETTINGS_MIB = _limit("SETTINGS_MIB", 4, "MiB of a loop.yaml, or of another file of settings")
SETTINGS_DEPTH = _limit("SETTINGS_DEPTH", 50, "mappings and lists within one another, in a file of settings")
SETTINGS_VALUES = _limit("SETTINGS_VALUES", 100_000, "values in a file of settings, each as often as aliases repeat it")
ROW_MIB = _limit("ROW_MIB", 64, "MiB of a line, a cell or a JSON value that is imported")
TEXT_CHARACTERS = _limit("TEXT_CHARACTERS", 4_000_000, "characters of a text that is imported: a prompt, a response")
CHAT_LENGTH = _limit("MESSAGES", 10_000, "messages of a chat that is imported")
IMPORT_ROWS = _limit("ROWS", 100_000_000, "rows of one import")
IMPORT_FILES = _limit("FILES", 10_000, "files with rows in one folder")
UNPACKED_RATIO = _limit("UNPACKED_RATIO", 200, "times its size that a compressed file may unpack to, beyond 256 MiB")
ROW_GROUP_MIB = _limit("ROW_GROUP_MIB", 8192, "MiB, unpacked, of a row group of a Parquet file")
ANSWER_MIB = _limit("ANSWER_MIB", 256, "MiB of an answer of a label server, unpacked")
REPLY_MIB = _limit("REPLY_MIB", 8, "MiB of a reply of a judge's server, unpacked")
REPLY_CHARACTERS = _limit("REPLY_CHARACTERS", 250_000, "characters of a judge's answer")
REQUEST_MIB = _limit("REQUEST_MIB", 16, "MiB of a request to `rlhf serve`")
REQUEST_DEPTH = _limit("REQUEST_DEPTH", 100, "lists and objects within one another in a request to a server of ours")
REQUEST_SECONDS = _limit("REQUEST_SECONDS", 30, "seconds in which such a request has arrived")
MODEL_TEXT_MIB = _limit(
    "MODEL_TEXT_MIB", 64, "MiB of a config, an index or a tokenizer's file of a model, and of a header of its weights"
)
TEMPLATE_SECONDS = _limit("TEMPLATE_SECONDS", 5, "seconds of computing that a chat template may take for one chat")
TEMPLATE_MIB = _limit("TEMPLATE_MIB", 512, "MiB of memory that a chat template may use")
TEMPLATE_CHARACTERS = _limit("TEMPLATE_CHARACTERS", 1_000_000, "characters of a chat template, and of what it writes")


def require_known_limits() -> None:
    """Raise UserError where the environment sets a limit that there is none of, or to what is no number."""
    for variable in sorted(os.environ):
        name = variable.removeprefix(LIMIT_PREFIX)
        if variable == name:
            continue
        if name not in LIMITS:
            close = difflib.get_close_matches(name, LIMITS, n=1)
            known = f"did you mean {LIMIT_PREFIX}{close[0]}?" if close else f"known are {', '.join(sorted(LIMITS))}."
            raise UserError(f"{variable} is no limit; {known}")
        LIMITS[name].most  # noqa: B018  # says so where it is no number
