"""The sensor that watches the logs of `data.feedback`, and has the prompts made anew."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from rlhf_dagster.automation.watch import active_run
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.data.conversations.logs import Logs
from rlhf_dagster.lineage.stop_cord import read_stop
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.loop_names import ALONE, LoopNames
from rlhf_dagster.resources.own_keys import with_own_resources

WAITS_FOR = ("prepare", "collect_round", "train_round")
"""Jobs that read prompts: those of one run stay the same."""


def conversation_sensors(config: LoopConfig, names: LoopNames = ALONE) -> list[dg.SensorDefinition]:
    """The sensor, where the loop names a log."""
    return [_logged_conversations(config, names)] if config.data.feedback.logs else []


def _logged_conversations(config: LoopConfig, names: LoopNames) -> dg.SensorDefinition:
    running = config.automation.running
    status = dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED

    def tick(context: dg.SensorEvaluationContext, loop: dg.ResourceParam[LoopFolder]) -> dg.SensorResult:
        files = _counted(Logs.of(config.data.feedback.logs, loop.root), json.loads(context.cursor or "{}"))
        wait = _why_not(context.instance, loop, sum(lines for _, _, lines in files.values()))
        if wait:
            return dg.SensorResult(skip_reason=wait, cursor=json.dumps(files))
        # A log that makes the run fail does so once, until it changes.
        request = dg.RunRequest(run_key=content_hash(files), asset_selection=[dg.AssetKey(names.path("prompts"))])
        return dg.SensorResult(run_requests=[request], cursor=json.dumps(files))

    return dg.sensor(
        name=names.own("logged_conversations"),
        job_name=names.own("prepare"),
        minimum_interval_seconds=config.automation.poll_seconds,
        default_status=status,
        description="Makes the prompts anew once the logs hold enough new lines, or fewer lines than before.",
    )(with_own_resources(tick, names))


def _why_not(instance: dg.DagsterInstance, loop: LoopFolder, lines: int) -> str:
    """Why the prompts are not made anew; empty where they are."""
    if stop := read_stop(loop.store):
        return stop.sentence
    read, wanted = int((loop.json("prompts") or {}).get("lines", 0)), loop.config.data.feedback.min_new
    if read <= lines < read + wanted:
        return f"{lines - read:,} lines of the logs are new; data.feedback.min_new is {wanted:,}."
    active = [sentence for job in WAITS_FOR if (sentence := active_run(instance, loop, job))]
    return f"{active[0]}; its prompts stay until then." if active else ""


def _counted(logs: Logs, seen: Mapping[str, Any]) -> dict[str, list[int]]:
    """By file: its bytes, when it was written to (ns) and its lines, which ``seen`` has of one that is the same."""
    found = {}
    for name, source in logs.files:
        state = Path(source.place).stat()
        known = seen.get(name, [])
        same = known[:2] == [state.st_size, state.st_mtime_ns]
        found[name] = known if same else [state.st_size, state.st_mtime_ns, sum(1 for _ in source.rows())]
    return found
