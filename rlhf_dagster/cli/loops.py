"""The commands that work on one loop's folder."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from rlhf_dagster.cli.output import sentence_of
from rlhf_dagster.errors import UserError

if TYPE_CHECKING:
    from rlhf_dagster.cli.runner import LoopRunner
    from rlhf_dagster.loop.folder import LoopFolder


def run_job(job: str, folder: Path, round_key: str | None, until: str | None, again: bool) -> None:
    from rlhf_dagster.assets.rounds import open_import_round
    from rlhf_dagster.automation.jobs import job_assets
    from rlhf_dagster.automation.pages import write_page
    from rlhf_dagster.cli.console import RunView, terminal
    from rlhf_dagster.cli.runner import LoopRunner
    from rlhf_dagster.cli.which_loop import open_loop
    from rlhf_dagster.loop.sampling import require_judgments
    from rlhf_dagster.records.round_keys import IMPORT_ROUND

    loop = open_loop(folder)
    if job not in (jobs := job_assets(loop.config)):
        raise UserError(f"There is no job {job}; choose one of {', '.join(jobs)}.")
    runner = LoopRunner.open(loop)
    if round_key == IMPORT_ROUND and job != "prepare":
        require_judgments(loop)
        open_import_round(runner.instance, loop)
    key = None if job == "prepare" else _round(runner, round_key)
    if key:
        runner.require_ready(job, key)
    assets = runner.assets(job, until) if again else _missing(runner, job, key, until)
    if not assets:
        print(f"{job} {key or ''}: everything is there; --again makes it again.")
        return
    view = RunView(terminal())
    with view.watching():
        outcome = runner.run(job, key, assets, view.event)
    page = write_page(runner.instance, loop)
    if outcome.stopped_by_gate:
        print(f"{key} stops here, by the gate: {outcome.failure}")
    elif not outcome.success:
        raise UserError(f"{outcome.failed_asset or job} failed: {sentence_of(outcome.failure)}")
    if key and job == "train_round" and loop.store.exists(report := loop.asset_key("eval_report", key, "html")):
        print(f"Report of {key}: {loop.store.address}/{report}")
    print(f"All rounds on one page: {loop.store.address}/{page}")


def _missing(runner: "LoopRunner", job: str, key: str | None, until: str | None) -> list[str]:
    """What is to be made; what stays although something newer is there is said."""
    found = runner.freshness(job, key)
    if kept := found.kept:
        why = f"{key} is decided, or sent to annotators" if key else "promoted rounds are built on it"
        newer = ", ".join(sorted(set(kept.values())))
        print(f"{newer} is newer than {', '.join(kept)}, which stays: {why}. --again makes it again.")
    return [asset for asset in runner.assets(job, until) if asset in found.outdated]


def add_round(folder: Path) -> None:
    from rlhf_dagster.assets.rounds import open_next_round
    from rlhf_dagster.cli.runner import LoopRunner
    from rlhf_dagster.cli.which_loop import open_loop

    loop = open_loop(folder)
    key = open_next_round(LoopRunner.open(loop).instance, loop)
    print(f"{key} is open. Next: rlhf run collect_round {loop.option}")


def status(folder: Path, as_json: bool) -> None:
    from rlhf_dagster.assets.rounds import open_rounds
    from rlhf_dagster.cli.runner import LoopRunner
    from rlhf_dagster.cli.which_loop import open_to_read
    from rlhf_dagster.loop.guards.deleted_rounds import unsettled_sentence
    from rlhf_dagster.loop.guards.left_out import data_notices
    from rlhf_dagster.loop.summary import round_rows

    loop = open_to_read(folder)
    keys = open_rounds(LoopRunner.open(loop).instance, loop)
    rows = [row | _left_out(loop, row["round"]) for row in round_rows(loop, keys)]
    if sentence := unsettled_sentence(loop, keys):
        print(sentence, file=sys.stderr)
    if as_json:
        print(json.dumps(rows, indent=1))
        print("".join(f"{sentence}\n" for sentence in data_notices(loop)), end="", file=sys.stderr)
        return
    if not rows:
        print(f"No round is open. Next: rlhf round open {loop.option}")
        return
    from rlhf_dagster.cli.tables import rounds_table, what_is_left_out, why_not

    console = Console()
    console.print(rounds_table(rows))
    for sentence in why_not(rows):
        console.print(sentence, highlight=False, soft_wrap=True)
    for sentence in [*what_is_left_out(rows), *data_notices(loop)]:
        console.print(sentence, highlight=False)


def _left_out(loop: "LoopFolder", key: str) -> dict[str, Any]:
    """The key `left_out` of a round's row, where something of it is on record."""
    from rlhf_dagster.loop.guards.left_out import left_out_of_round

    found = left_out_of_round(loop, key)
    return {"left_out": found} if found else {}


def _round(runner: Any, round_key: str | None) -> str:
    from rlhf_dagster.assets.rounds import open_rounds
    from rlhf_dagster.records.round_keys import IMPORT_ROUND, round_number

    if round_key is not None and round_number(round_key) is None:
        raise UserError(f"--round {round_key}: the names of rounds are {IMPORT_ROUND}, round-0001 and so on.")
    keys = [key for key in open_rounds(runner.instance, runner.loop) if round_number(key) is not None]
    if not keys:
        raise UserError(f"No round is open; open one with `rlhf round open {runner.loop.option}`.")
    if round_key is not None and round_key not in keys:
        raise UserError(f"There is no round {round_key}; open are {', '.join(keys)}.")
    return round_key or keys[-1]
