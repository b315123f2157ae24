"""`rlhf annotate`: the task's simulated annotators, all at once, at a pace, or as long as the loop runs."""

from pathlib import Path

from rlhf_dagster.cli.which_loop import open_loop
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder

_PURPOSES = ("train", "evaluation")


def give_labels(
    folder: Path,
    round_key: str | None,
    annotators: int | None,
    purpose: str | None,
    per_minute: float | None,
    follow: bool,
) -> None:
    """Answer what is not labelled yet.

    ``round_key`` is the newest round if it is None or, with ``follow``, every open one; ``purpose`` is ``train`` or,
    with ``follow``, both. ``per_minute`` is how many labels all annotators give together; None: as fast as they can.
    """
    if purpose is not None and purpose not in _PURPOSES:
        raise UserError(f"--purpose {purpose}: choose train or evaluation.")
    if per_minute is not None and not 0 < per_minute < float("inf"):
        raise UserError(f"--per-minute {per_minute:g}: give a number above 0.")
    from rlhf_dagster.loop.annotators import require_batch

    loop = open_loop(folder)
    if not loop.config.has_task:
        raise UserError(f"{folder}: simulated annotators exist for embedded tasks only; here people label.")
    if follow:
        _follow(loop, _round(loop, round_key) if round_key else None, annotators, purpose, per_minute)
        return
    key, purpose = _round(loop, round_key), purpose or "train"
    require_batch(loop, key, purpose)
    _answer(loop, key, purpose, annotators, per_minute)
    counts = loop.label_store.count(key, purpose)
    _say(f"{key}: {counts.usable:,} usable labels on {counts.labelled:,} of {counts.comparisons:,} comparisons.")


def _answer(loop: LoopFolder, key: str, purpose: str, annotators: int | None, per_minute: float | None) -> None:
    from rlhf_dagster.common.progress import Progress
    from rlhf_dagster.loop.annotators import Crew, work_off
    from rlhf_dagster.loop.labels import simulate

    if per_minute is None:
        simulate(loop, key, purpose, Progress("annotate", print), annotators)
    else:
        work_off(Crew(loop, per_minute, annotators), [(key, purpose)], _say)


def _follow(
    loop: LoopFolder, key: str | None, annotators: int | None, purpose: str | None, per_minute: float | None
) -> None:
    from rlhf_dagster.cli.label_studio import stop_when_asked
    from rlhf_dagster.loop.annotators import Crew, follow, open_batches

    stop_when_asked()
    crew, purposes = Crew(loop, per_minute, annotators), (purpose,) if purpose else _PURPOSES
    pace = f"at most {per_minute:g} labels a minute on average" if per_minute else "as fast as they can"
    _say(f"Annotators label {key or 'every open round'}, {pace} (Ctrl-C stops them).")
    if loop.config.label_store.simulated_annotators:
        _say("label_store.simulated_annotators is on: batches are answered when they are sent, so little may be left.")
    try:
        follow(crew, lambda: open_batches(loop, key, purposes), _say)
    except KeyboardInterrupt:
        _say(f"Stopped after {crew.given:,} labels; the same command goes on.")


def _round(loop: LoopFolder, round_key: str | None) -> str:
    """The round asked for, or the newest; raises UserError where there is none."""
    from rlhf_dagster.cli.loops import _round
    from rlhf_dagster.cli.runner import LoopRunner

    return _round(LoopRunner.open(loop), round_key)


def _say(line: str) -> None:
    """Print without buffering, also where the output is a file."""
    print(line, flush=True)
