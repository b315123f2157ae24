"""Logs of a training: ``metrics.jsonl`` and TensorBoard events always, W&B or MLflow where asked for, by accelerate.

Importing this imports no torch.
"""

import json
import logging
import math
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.common.extras import install_command
from rlhf_dagster.common.files import write_atomically
from rlhf_dagster.common.lines import lines_of
from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.errors import Damaged, UserError, first_line

METRICS, RUNS = "metrics.jsonl", "runs.json"
FINAL = "final/"
"""Prefix of the names of a finished training's metrics."""
_log = logging.getLogger("rlhf_dagster.training")


class TrainingLog:
    """Writes progress to ``folder``, and to the ``services`` as the run ``run`` of ``project``.

    A training that goes on after an interruption reports the steps after its last state again: their entries in
    ``folder`` are replaced, and services, in which the run goes on, do not get them twice. A training that reports step
    1 begins a new log.
    """

    def __init__(self, folder: Path, project: str, run: str, services: Sequence[str] = ()) -> None:
        """Raises UserError where a service's package is not installed."""
        for name in services:
            if find_spec(name) is None:
                raise UserError(f"compute.trackers names {name}, which is not installed; `{install_command(name)}`.")
        self.folder, self.project, self.run, self.services = folder, project, run, tuple(services)
        self._file: IO[str] | None = None
        """None before the first step, and after a write has failed."""
        self._begun = False
        self._trackers: dict[str, Any] = {}
        self._last = (0, 0)
        self._told: float = 0
        """Last step that services have heard of before this training was interrupted."""

    def __call__(self, step: int, total: int, **numbers: float) -> None:
        if not self._begun:
            self._begun = True
            self._begin(step)
        self._last = (step, total)
        self._write(numbers, [name for name in self._trackers if step > self._told or name not in self.services])

    def finish(self, metrics: dict[str, float]) -> None:
        """Write a finished training's metrics, at its last step."""
        if self._begun:
            self._write({FINAL + name: value for name, value in metrics.items()}, list(self._trackers))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        for name in list(self._trackers):
            self._ask(name, lambda tracker: tracker.finish())

    def _write(self, numbers: dict[str, float], trackers: Sequence[str]) -> None:
        step, total = self._last
        self._write_line(json.dumps({"step": step, "total": total, **numbers}) + "\n")
        for name in trackers:
            self._ask(name, lambda tracker: tracker.log(numbers, step=step))

    def _write_line(self, line: str) -> None:
        """Append a line. After a failure nothing more is written, or the next line would continue half of this one."""
        if self._file is None:
            return
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            self._say_unwritten(error)
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _say_unwritten(self, error: OSError | UserError) -> None:
        why = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        _log.warning("%s cannot be written (%s); it has no further steps.", self.folder / METRICS, why)

    def _begin(self, step: int) -> None:
        """Open the logs at ``step``, without what they hold of this step and of later ones."""
        try:
            self._file = self._opened_at(step)
            self._trackers["tensorboard"] = _tensorboard(self.folder, step)
        except (OSError, UserError) as error:
            self._say_unwritten(error)
        self._trackers |= self._open_services()

    def _opened_at(self, step: int) -> IO[str]:
        path = self.folder / METRICS
        lines = [(line, _step_of(line)) for line in self._lines(path)]
        before = [line for line, there in lines if there < step]
        if before:
            self._told = max(there for _, there in lines if there < math.inf)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        write_atomically(path, "".join(f"{line}\n" for line in before).encode())
        return path.open("a", encoding="utf-8")

    def _lines(self, path: Path) -> list[str]:
        """What is in ``metrics.jsonl``; says so where a line cannot be read."""
        lines = lines_of(path.read_text(encoding="utf-8", errors="replace")) if path.exists() else []
        unreadable = sum(math.isinf(_step_of(line)) for line in lines)
        if unreadable:
            _log.warning("%s: %d lines are cut off or damaged, and are removed.", path, unreadable)
        return lines

    def _open_services(self) -> dict[str, Any]:
        path = self.folder / RUNS
        known = _known_runs(path)
        opened = {}
        for name in self.services:
            try:
                opened[name], known[name] = SERVICES[name](self.project, self.run, known.get(name))
            except Exception as error:  # whatever a service raises, people must hear of it before an hour is trained
                raise UserError(f"compute.trackers: {name} cannot be opened ({first_line(error)}).") from None
        if opened:
            _keep_runs(path, known)
        return opened

    def _ask(self, name: str, call: Callable[[Any], Any]) -> None:
        """Call a service. One that fails is not called again: a training does not end because of its log."""
        _give_accelerate_a_state()
        try:
            call(self._trackers[name])
        except Exception as error:
            _log.warning("%s has failed (%s); this training logs to it no more.", name, error)
            del self._trackers[name]


@contextmanager
def tracking(training_log: TrainingLog | None, progress: Callable[..., None]) -> Iterator[Callable[..., None]]:
    """``progress`` that also goes to a log, which is closed at the end of the block; without a log, as it is."""
    if training_log is None:
        yield progress
        return

    def both(step: int, total: int, **numbers: float) -> None:
        training_log(step, total, **numbers)
        progress(step, total, **numbers)

    try:
        yield both
    finally:
        training_log.close()


def _known_runs(path: Path) -> dict[str, Any]:
    """The services' names for a training's runs; a damaged list is done without, and the services begin new runs."""
    try:
        return unseal(path.read_bytes(), str(path)) if path.exists() else {}
    except Damaged as damaged:
        _log.warning("%s Services begin a new run of this training.", damaged)
        return {}


def _keep_runs(path: Path, known: dict[str, Any]) -> None:
    try:
        write_atomically(path, seal(known))
    except UserError as error:
        _log.warning("%s is not kept, and a training that goes on will be a new run: %s", path, error)


def _tensorboard(folder: Path, step: int) -> Any:
    """TensorBoard's log, which hides older events of ``step`` and of later steps."""
    from accelerate.tracking import TensorBoardTracker

    return _started(TensorBoardTracker("tensorboard", folder, purge_step=step, filename_suffix=f".from-{step}"))


def _wandb(project: str, run: str, known: str | None) -> tuple[Any, str]:
    from accelerate.tracking import WandBTracker

    run_id = known or uuid.uuid4().hex
    return _started(WandBTracker(project, name=run, id=run_id, resume="allow")), run_id


def _mlflow(project: str, run: str, known: str | None) -> tuple[Any, str]:
    from accelerate.tracking import MLflowTracker

    tracker = _started(MLflowTracker(project, run_id=known, run_name=run))
    return tracker, tracker.tracker.info.run_id


SERVICES: dict[str, Callable[[str, str, str | None], tuple[Any, str]]] = {"wandb": _wandb, "mlflow": _mlflow}
"""Each opens a run by its id, or a new one; gives tracker and id. Keys and addresses come from the environment."""


def _started(tracker: Any) -> Any:
    # One process logs, also where the training has several; accelerate's own rule would set up a device to decide it.
    tracker.main_process_only = False
    _give_accelerate_a_state()
    tracker.start()
    return tracker


def _give_accelerate_a_state() -> None:
    """Accelerate's logger, to which trackers write, needs a PartialState; that of a Trainer later replaces this one."""
    from accelerate import PartialState

    if not PartialState._shared_state:
        PartialState(cpu=True)


def _step_of(line: str) -> float:
    """The step of a line; infinite for one that a crash has cut off."""
    try:
        return int(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
