"""`rlhf train`: one stage from a spec file, without a loop and without Dagster.

Beside the output, ``OUTPUT.training/`` holds the state that an unfinished training goes on from, ``OUTPUT.logs/`` its
metrics, ``OUTPUT.answers/`` what judges have answered. ``training.json`` in the output records inputs and settings, so
that a model of another spec is not taken for this spec's. A reward model's output also has ``accuracy.json``: how well
it predicts held-out labels.
"""

import errno
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_dagster.cli.output import sentence_of
from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.config.yaml_files import parse_file
from rlhf_dagster.errors import UserError
from rlhf_dagster.storage.local import LocalStore

if TYPE_CHECKING:
    from rlhf_dagster.compute.work import Work
    from rlhf_dagster.training.specs import TrainingResult

RECORD, ACCURACY = "training.json", "accuracy.json"
DISK_PROBLEMS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_LINE_EVERY = 15.0
"""Seconds between progress lines where there is no terminal to draw a bar on."""


def example(stage: str) -> None:
    """Print a commented spec."""
    from rlhf_dagster.compute.trainings import find_training
    from rlhf_dagster.training.spec_files import commented_spec

    print(commented_spec(find_training(stage).spec), end="")


def train_stage(stage: str, path: Path) -> None:
    """Train what a spec file asks for; a training that was interrupted goes on where it was."""
    from rlhf_dagster.common.files import locked

    spec = read_spec(stage, path)
    _refuse_toy_settings(stage, spec, path)
    with _disk_problems(spec.output), locked(spec.output.with_name(f".{spec.output.name}.lock")):
        record = _record(stage, spec)
        if _is_trained(spec.output, record):
            print(f"{spec.output} is trained already, from the same inputs and settings.")
            return
        result = _run(stage, spec, record)
    for name, value in (result.metrics | _accuracy(spec, result)).items():
        print(f"  {name.replace('_', ' '):<36} {value:.4g}")
    for warning in result.warnings:
        print(f"  warning: {warning}")
    print(f"{spec.output} is trained; metrics and TensorBoard events are in {_beside(spec.output, 'logs')}.")


def _refuse_toy_settings(stage: str, spec: Any, path: Path) -> None:
    """Raise UserError where a real model would be trained with the defaults, which are for a toy."""
    from rlhf_dagster.config.model_sizes import TOY_PARAMETERS, in_millions, left_to_the_toy
    from rlhf_dagster.training.input_sizes import parameters_of

    begin = next((getattr(spec, name) for name in ("start", "sft", "model") if hasattr(spec, name)), None)
    parameters = 0 if begin is None else parameters_of(begin)
    if parameters <= TOY_PARAMETERS:
        return
    left = left_to_the_toy({"sampling": spec.sampling, stage: spec.settings})
    if left:
        named = ", ".join(name.replace(f"{stage}.", "settings.") for name in left)
        raise UserError(
            f"{path}: {begin} has {in_millions(parameters)} parameters, and what the spec leaves out is for a toy of "
            f"one million; give {named} (docs/presets.md has those of published runs)."
        )


@contextmanager
def _disk_problems(output: Path) -> Iterator[None]:
    """Turn the error of a full disk, or of one that cannot be written, into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_PROBLEMS:
            raise
        place = error.filename or output.parent
        raise UserError(
            f"{place}: {error.strerror}; mend that and run the same command again, which goes on from the last state."
        ) from None


def read_spec(stage: str, path: Path) -> Any:
    """The spec in a YAML or JSON file, whose relative paths begin at the file's folder."""
    from rlhf_dagster.compute.trainings import find_training
    from rlhf_dagster.training.spec_files import spec_from_values

    kind = find_training(stage).spec
    try:
        values = parse_file(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; `rlhf train {stage} --example` prints a spec.") from None
    return spec_from_values(kind, values, str(path), path.resolve().parent)


def _record(stage: str, spec: Any) -> dict[str, Any]:
    """What the result depends on: settings by name, and a hash of each input's content."""
    from pydantic_core import to_jsonable_python

    from rlhf_dagster.config.base import Settings
    from rlhf_dagster.lineage.model_folders import content_of
    from rlhf_dagster.training.functions import decisive_reward, source_of
    from rlhf_dagster.training.runtime.resuming import told_fields

    record: dict[str, Any] = {"stage": stage}
    for name, value in told_fields(spec).items():
        told = value.recorded() if isinstance(value, Settings) else value
        record[name] = content_of(value) if isinstance(value, Path) else to_jsonable_python(told)
    if function := record.get("reward_function"):
        record["reward_function_source"] = source_of(function)
    if record.get("reward"):
        record["reward"] = decisive_reward(spec.reward)
    return record


def _is_trained(output: Path, record: dict[str, Any]) -> bool:
    """Whether the output is there already; raises UserError where it was not made by this command from this spec."""
    if not output.exists():
        return False
    if not (output / RECORD).is_file():
        raise UserError(f"{output} exists and was not made by `rlhf train`; choose another `output`.")
    _require_same(output, record, "is trained")
    return True


def _require_same(folder: Path, here: dict[str, Any], what: str) -> None:
    """Raise UserError with every difference between what the record in ``folder`` says and what is asked for."""
    there = _read_record(folder / RECORD)
    if there.get("stage") != here["stage"]:
        there, here = ({"stage": record.get("stage")} for record in (there, here))
    before, now = (dict(_flat({name: record.get(name) for name in here})) for record in (there, here))
    changed = [name for name in before | now if before.get(name) != now.get(name)]
    if changed:
        listed = "; ".join(f"{name}: {_shown(before, name)} there, {_shown(now, name)} here" for name in changed)
        raise UserError(f"{folder} {what} from another spec ({listed}); choose another `output`, or move it away.")


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
        if isinstance(record, dict):
            return record
    except ValueError:
        pass
    raise UserError(f"{path} is damaged, so that nobody knows what is beside it; move {path.parent} away.") from None


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(values: dict[str, Any], name: str) -> str:
    value = str(values.get(name))
    return f"content {value[:8]}" if len(value) == 64 else value


def _run(stage: str, spec: Any, record: dict[str, Any]) -> "TrainingResult":
    """Train in a folder beside the output, and move the finished model to its place."""
    from rlhf_dagster.common.files import write_atomically
    from rlhf_dagster.compute.work import TrainingDied, TrainingFailed, Work
    from rlhf_dagster.training.runtime.resuming import TrainingStopped

    root, kept = _beside(spec.output, "training"), _beside(spec.output, "training") / RECORD
    work = Work(root / spec.output.name, LocalStore(root), _beside(spec.output, "logs"), "rlhf")
    root.mkdir(exist_ok=True)
    # Without a saved state nothing can be lost, so a corrected spec may start over.
    if kept.is_file() and any(work.state.glob("state-*")):
        _require_same(root, record, "is unfinished")
    write_atomically(kept, json.dumps(record, indent=1).encode())
    try:
        with _stopping_at_a_step(root), _shown_progress(stage) as progress:
            result = _train_until_done(stage, _in_work(spec, work), work, progress)
    except TrainingStopped:
        print("rlhf: stopped after a step; run the same command again to go on.", file=sys.stderr)
        raise SystemExit(130) from None
    except (TrainingDied, TrainingFailed) as error:
        raise UserError(f"{sentence_of(str(error))} The same command goes on from the last state.") from None
    finished = record | {"metrics": result.metrics, "warnings": list(result.warnings)}
    (work.output / RECORD).write_text(json.dumps(finished, indent=1) + "\n", encoding="utf-8")
    work.output.rename(spec.output)
    shutil.rmtree(root)
    return result


def _in_work(spec: Any, work: "Work") -> Any:
    """``spec`` as it is trained in the work folder; what judges answer is kept beside the output itself."""
    if getattr(spec, "answers", None) == "":
        spec = replace(spec, answers=str(_beside(spec.output, "answers")))
    return replace(spec, output=work.output)


def _accuracy(spec: Any, result: "TrainingResult") -> dict[str, float]:
    """A reward model's held-out accuracy, that of lengths alone, and its calibration error; empty for other stages.

    All figures go to ``accuracy.json`` in the model's folder. This accuracy also counts labels with several best
    responses, which the accuracy that the training itself measures leaves out.
    """
    from rlhf_dagster.training.specs import RewardModelSpec

    if not isinstance(spec, RewardModelSpec):
        return {}
    from rlhf_dagster.loop.evaluation import label_accuracy
    from rlhf_dagster.records.schemas import PREFERENCES
    from rlhf_dagster.records.tables import read_table

    frame = read_table(spec.preferences, PREFERENCES)
    figures = label_accuracy(spec.output, frame, spec.sampling, spec.compute, result.metrics["score_scale"])
    (spec.output / ACCURACY).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    held_out = {split: found for split, found in figures["splits"].items() if split != "train" and found["accuracy"]}
    shown = {f"accuracy_{split}": found["accuracy"]["value"] for split, found in held_out.items()}
    shown |= {f"longest_wins_{split}": found["length_baseline"]["value"] for split, found in held_out.items()}
    shown |= {f"shortest_wins_{split}": found["brevity_baseline"]["value"] for split, found in held_out.items()}
    return shown | {f"calibration_error_{split}": found["calibration_error"] for split, found in held_out.items()}


def _train_until_done(stage: str, spec: Any, work: "Work", progress: Callable[..., None]) -> "TrainingResult":
    """A training whose process dies is taken up again, as often as its compute settings say."""
    from rlhf_dagster.compute.run import run_training
    from rlhf_dagster.compute.work import TrainingDied

    for retries in reversed(range(spec.compute.retries + 1)):
        try:
            return run_training(stage, spec, work, progress).result
        except TrainingDied as died:
            if not retries:
                raise
            print(f"{died}\nIt is taken up again from its last state.", file=sys.stderr)
    raise AssertionError("the loop returns or raises")


def _beside(output: Path, what: str) -> Path:
    return output.with_name(f"{output.name}.{what}")


@contextmanager
def _stopping_at_a_step(root: Path) -> Iterator[None]:
    """Ctrl-C ends the training after the current step, with its state written; a second Ctrl-C ends it at once."""
    from rlhf_dagster.lineage.stop_cord import STOP_FILE, pull

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pull(LocalStore(root), "Ctrl-C", "the command was interrupted")

    (root / STOP_FILE).unlink(missing_ok=True)
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _shown_progress(stage: str) -> Iterator[Callable[..., None]]:
    """A bar on a terminal, else a line every so often."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from rlhf_dagster.common.progress import Progress as Lines
    from rlhf_dagster.common.progress import describe

    console = Console()
    if not console.is_terminal:
        yield Lines(stage, print, _LINE_EVERY)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[tail]}"), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bars:
        bar = bars.add_task(stage, total=None, tail="")

        def show(step: int, total: int, **numbers: float) -> None:
            bars.update(bar, completed=step, total=total, tail=f"{step} of {total}{describe(numbers)}")

        yield show
