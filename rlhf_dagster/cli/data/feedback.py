"""The command `rlhf feedback`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_dagster.cli.output import sentence_of
from rlhf_dagster.errors import UserError

if TYPE_CHECKING:
    from rlhf_dagster.loop.folder import LoopFolder


def take_feedback(folder: Path, dry_run: bool, as_json: bool) -> None:
    """Read the logs that the loop names, make its prompts anew, and say what became of each conversation."""
    from rlhf_dagster.cli.which_loop import open_loop
    from rlhf_dagster.data.conversations.keeping import read_logs, sentences_on_logs

    loop = open_loop(folder)
    data = loop.config.data
    if not data.feedback.logs:
        raise UserError(f"{folder}: `data.feedback.logs` names no log; `rlhf serve --log FOLDER` writes one.")
    counts = read_logs(data, loop.root, loop.store)[0].counts if dry_run else _prompts_made(loop)
    if as_json:
        print(json.dumps(counts, indent=1))
        return
    for refused in counts["first_refused"]:
        print(refused, file=sys.stderr)
    for sentence in sentences_on_logs(counts):
        print(sentence)
    print("Nothing is kept: a dry run." if dry_run else "Rounds that are collected from now on draw from them.")


def _prompts_made(loop: "LoopFolder") -> dict[str, Any]:
    from rlhf_dagster.cli.runner import LoopRunner

    outcome = LoopRunner.open(loop).run("prepare", assets=["prompts"])
    if not outcome.success:
        raise UserError(f"prompts failed: {sentence_of(outcome.failure)}")
    return loop.json("prompts") or {}
