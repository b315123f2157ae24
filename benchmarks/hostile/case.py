"""One case: what a stranger brings, what is done with it, and what has to be true afterwards."""

import hashlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SECRET = "kept-7f3a9c51d2e8-secret"  # noqa: S105
"""The value of every secret in the environment of a case; it may be in no output and in no file."""
SECRETS = (
    "LABEL_STUDIO_API_KEY",
    "HF_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "PGPASSWORD",
    "OPENAI_API_KEY",
    "RLHF_USERS_KEY",
)
TESTS = Path(__file__).parents[2] / "tests"


@dataclass(frozen=True)
class Place:
    """Where a case has its files."""

    folder: Path
    shared: Path
    """A folder of all cases of a run."""

    @property
    def canary(self) -> Path:
        """What a stranger's code would make."""
        return self.folder / "ran"

    @property
    def loop(self) -> Path:
        """A loop that all cases have that need one: each leaves it as it is."""
        return self.shared / "loop"

    def code(self) -> str:
        """A stranger's Python."""
        return f"open({str(self.canary)!r}, 'w').close()\n"


Act = Callable[[Place], object]


@dataclass(frozen=True)
class Case:
    name: str
    act: Act
    """Raises UserError, or ends with the exit code of a command, where it refuses."""
    prepare: Act = lambda _: None
    """Is not measured."""
    says: str = ""
    """A pattern that the sentence holds."""
    harmless: bool | None = False
    """It is taken, and does nothing that it should not; None where it may be refused as well."""


def rlhf(*arguments: object) -> None:
    """The command in this process; ends with SystemExit."""
    from loops import rlhf_main

    rlhf_main(*arguments)


def rlhf_done(*arguments: object) -> None:
    """A command that has to work."""
    try:
        rlhf(*arguments)
    except SystemExit as ended:
        require(not ended.code, f"ended with {ended.code}")


class WrongError(Exception):
    """Something is not as it should be after a case."""


def require(holds: object, what: str) -> None:
    if not holds:
        raise WrongError(what)


@cache
def tests_of(file: str) -> Any:
    """A module of the tests, for its lists."""
    path = TESTS / file
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def values_of(test: Any) -> list[Any]:
    """With what a test is parametrised."""
    return list(next(mark.args[1] for mark in test.pytestmark if mark.name == "parametrize"))


def state_of(loop: Path) -> str:
    """A digest of all that a loop keeps; its unfinished work, its locks and Dagster's records are no part of it."""
    digest = hashlib.sha256()
    for path in sorted(loop.rglob("*")):
        name = path.relative_to(loop).as_posix()
        if name.startswith(("work/", "dagster", ".dagster", "logs")) or ".lock" in name or not path.is_file():
            continue
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def files_with(folder: Path, text: str) -> list[str]:
    """Files of a folder that hold ``text``; those of more than 64 MiB were made by the case and are not looked at."""
    found = []
    for base, _, names in os.walk(folder):
        for name in names:
            path = Path(base, name)
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 26:
                found += [str(path)] if text.encode() in path.read_bytes() else []
    return found
