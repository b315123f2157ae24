"""What a new loop is to be, as flags say it or as a person answers."""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhf_dagster.data.import_file import IMPORT_KINDS, Kind, kind_of_file
from rlhf_dagster.errors import UserError

BY_SIMULATION, ON_A_PAGE, IN_LABEL_STUDIO = "simulated", "page", "label_studio"
A_TASK, OWN_FILES = "task", "imports"
Asking = Callable[[str, str], str]
"""Asks a question, with what Enter stands for."""

DATA_QUESTION = "Data: files with prompts, demonstrations or judgments, with spaces between; or the embedded `task`"
MODEL_QUESTION = "Model: a folder, or ORGANISATION/NAME on the Hub; or a `tiny` one that is made here"
WHO_QUESTION = "Who labels: `simulated` annotators (of a task), you on a `page` here, or people in `label_studio`"


@dataclass(frozen=True)
class DataFile:
    kind: Kind
    path: Path


@dataclass(frozen=True)
class NewLoop:
    source: str = A_TASK
    """`task`, or `imports` for files of one's own."""
    files: tuple[DataFile, ...] = ()
    """Those that are imported at once."""
    task: str = ""
    model: str = ""
    """A Hub id or a folder; empty: a tiny model that the loop makes."""
    chat: bool = False
    annotators: str = ""
    """`simulated`, `page`, `label_studio` or the address of a server; empty: nobody says."""

    def __post_init__(self) -> None:
        """Raises UserError where two answers do not go together."""
        if self.source not in (A_TASK, OWN_FILES):
            raise UserError(f"--source {self.source}: choose one of {A_TASK}, {OWN_FILES}.")
        if self.chat and not self.model:
            raise UserError("--chat reads prompts in the template of a model; give it with --model.")
        if self.task and (self.source != A_TASK or self.model):
            raise UserError(
                "--task is for a loop that learns a task with a tiny model; leave --source, --data and --model out."
            )
        _require_annotators(self)


def of_options(data: list[str], source: str, model: str, chat: bool, task: str, annotators: str) -> NewLoop:
    """What flags say; raises UserError where they do not go together. Whoever gives files labels on a page."""
    if data and source not in ("", OWN_FILES):
        raise UserError(f"--source {source} and --data are two sources; leave one of them out.")
    source = source or (OWN_FILES if data or model else A_TASK)
    wanted = NewLoop(source, (), task, model, chat, annotators or (ON_A_PAGE if data else ""))
    return replace(wanted, files=data_files(data))


def data_files(names: list[str]) -> tuple[DataFile, ...]:
    """Files with the kind of their records, by name as `gold=FILE`, or as their first rows look.

    Raises UserError where a file is not there, or has no kind that is known.
    """
    return tuple(_data_file(name) for name in names)


def _data_file(name: str) -> DataFile:
    said, _, rest = name.partition("=")
    for kind in IMPORT_KINDS:
        if rest and kind == said:
            return DataFile(kind, Path(rest).expanduser())
    file = Path(name).expanduser()
    return DataFile(kind_of_file(file), file)


def _require_annotators(wanted: NewLoop) -> None:
    who = wanted.annotators
    if who not in ("", BY_SIMULATION, ON_A_PAGE, IN_LABEL_STUDIO) and not who.startswith(("http://", "https://")):
        choices = f"{BY_SIMULATION}, {ON_A_PAGE}, {IN_LABEL_STUDIO}"
        raise UserError(f"--annotators {who}: choose {choices}, or give the address of a Label Studio server.")
    if who == BY_SIMULATION and wanted.source != A_TASK:
        raise UserError(f"--annotators {BY_SIMULATION}: only a task has simulated annotators; choose {ON_A_PAGE}.")


def can_ask() -> bool:
    """Whether a person is there to answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask(answer: Asking, say: Callable[[str], Any]) -> NewLoop:
    """Ask what a new loop is to be: data, model, who labels. A wrong answer is said to be one and asked for again."""
    data = _until_right(lambda: _data(answer), say)
    model = _until_right(lambda: _model(answer), say)
    usual = ON_A_PAGE if data["source"] == OWN_FILES else BY_SIMULATION

    def who() -> NewLoop:
        return NewLoop(**data, model=model, annotators=answer(WHO_QUESTION, usual))

    return _until_right(who, say)


def _until_right(question: Callable[[], Any], say: Callable[[str], Any]) -> Any:
    while True:
        try:
            return question()
        except UserError as error:
            say(str(error))


def _data(answer: Asking) -> dict[str, Any]:
    given = answer(DATA_QUESTION, A_TASK)
    if given == A_TASK:
        return {"source": A_TASK}
    try:
        names = shlex.split(given)
    except ValueError as error:
        raise UserError(f"{given}: {error}.") from None
    return {"source": OWN_FILES, "files": data_files(names)}


def _model(answer: Asking) -> str:
    given = answer(MODEL_QUESTION, "tiny")
    if given == "tiny":
        return ""
    require_name(given)
    return given


def require_name(model: str) -> None:
    """Raise UserError where something is neither a folder nor can be a name on the Hub."""
    if not Path(model).expanduser().is_dir() and (model.count("/") != 1 or model.startswith((".", "/", "~"))):
        raise UserError(f"--model {model}: there is no such folder, and a name on the Hub is ORGANISATION/NAME.")
