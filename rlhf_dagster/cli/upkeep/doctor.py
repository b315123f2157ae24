"""The command `rlhf doctor`."""

import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from rlhf_dagster.assets.checks.pool import pool_problem
from rlhf_dagster.assets.rounds import open_rounds
from rlhf_dagster.automation.declared import DeclaredLoop
from rlhf_dagster.automation.instance import open_instance
from rlhf_dagster.cli.which_loop import find_loop
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.deleted_rounds import unsettled_sentence
from rlhf_dagster.loop.upkeep.doctor import Diagnosis, diagnoses_of

_SILENT_AFTER = 300.0
"""Seconds without a sign of life after which a daemon is taken for gone; Dagster's own limit."""


def print_diagnoses(folder: Path) -> int:
    """Print a line for each look, with what mends it where something is wrong; returns the exit code."""
    found = list(_diagnoses(folder))
    for one in found:
        print(f"{'mend' if one.mend else 'ok  '}  {one.about:<12} {one.sentence}")
        if one.mend:
            print(f"      {'':<12} next: {one.mend}")
    wrong = sum(bool(one.mend) for one in found)
    print(f"{wrong} of {len(found)} want mending." if wrong else "All is well.")
    return 1 if wrong else 0


def _diagnoses(folder: Path) -> Iterator[Diagnosis]:
    try:
        loop = find_loop(folder)
    except UserError as error:
        yield Diagnosis(
            "settings", str(error), f"correct {folder / CONFIG_FILE}, or `rlhf init {shlex.quote(str(folder))}`"
        )
        return
    place = "a component of its project" if isinstance(loop, DeclaredLoop) else f"in {folder / CONFIG_FILE}"
    yield Diagnosis("settings", f"The loop {loop.config.name} is declared: {place}.")
    yield from diagnoses_of(loop)
    yield from _of_dagster(loop)


def _of_dagster(loop: LoopFolder) -> Iterator[Diagnosis]:
    """What Dagster's records say: places in the pool of GPUs, rounds, and whether anybody acts on the loop."""
    try:
        with open_instance(loop) as instance:
            problem = pool_problem(instance, loop.names.pool)
            mend = f"dagster instance concurrency set {loop.names.pool} 1" if problem else ""
            yield Diagnosis("pool", problem or f"The pool `{loop.names.pool}` has a limit.", mend)
            yield _rounds(loop, open_rounds(instance, loop))
            beats = [beat.timestamp for beat in instance.get_daemon_heartbeats().values()]
            yield _daemon(loop, max(beats, default=0.0))
    except UserError as error:
        yield Diagnosis("dagster", str(error), "bring the folder `dagster` back from a backup")


def _rounds(loop: LoopFolder, keys: list[str]) -> Diagnosis:
    unsettled = unsettled_sentence(loop, keys)
    if unsettled:
        return Diagnosis("rounds", unsettled, "one of the two commands above")
    return Diagnosis("rounds", f"{len(keys)} rounds are open.")


def _daemon(loop: LoopFolder, last: float) -> Diagnosis:
    silent = time.time() - last
    if silent < _SILENT_AFTER:
        return Diagnosis("daemon", f"Dagster's daemon gave a sign of life {silent:.0f} seconds ago.")
    sentence = "No daemon of Dagster is at work, so schedule and sensors do not act."
    wanted = loop.config.automation.running
    return Diagnosis("daemon", sentence, f"rlhf ui {loop.option}" if wanted else "")
