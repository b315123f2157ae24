"""The command `rlhf metrics`."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from rlhf_dagster.assets.rounds import open_rounds
from rlhf_dagster.automation.instance import open_instance
from rlhf_dagster.automation.jobs import job_assets
from rlhf_dagster.cli.which_loop import open_to_read
from rlhf_dagster.common.files import write_atomically
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.reporting.metrics import LoopMetrics
from rlhf_dagster.loop.reporting.prometheus import Gauge, prometheus_text
from rlhf_dagster.records.loop_names import LOOP_TAG

_SUFFIX = ".prom"


def write_metrics(folder: Path, out: Path | None) -> int:
    """Print a loop's numbers, or write them to ``out``; returns the exit code, 1 where a part cannot be read."""
    if out is not None:
        _require_collected(out)
    loop = open_to_read(folder)
    with open_instance(loop) as instance:
        gauges, problems = _gauges(DagsterMetrics(loop, instance))
    text = prometheus_text(gauges, loop=loop.run_tag[LOOP_TAG])
    if out is None:
        print(text, end="")
    else:
        write_atomically(out, text.encode("utf-8", "replace"), public=True)  # the collector is another user
    for part, problem in problems.items():
        print(f"The metrics of {part} are left out. {problem}", file=sys.stderr)
    return 1 if problems else 0


def _require_collected(out: Path) -> None:
    if out.suffix != _SUFFIX:
        raise UserError(f"--out {out}: node_exporter reads files that end in {_SUFFIX} alone; name it so.")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}; give the one that node_exporter reads.")


@dataclass(frozen=True)
class DagsterMetrics:
    """The numbers of a loop that Dagster's records give."""

    loop: LoopFolder
    instance: dg.DagsterInstance

    def sent_at(self, asset: str, round_key: str) -> float | None:
        """When an asset of a round was made first, in seconds since 1970; None where that is not on record."""
        made = dg.AssetRecordsFilter(asset_key=self._key(asset), asset_partitions=[round_key])
        found = self.instance.fetch_materializations(made, limit=1, ascending=True).records
        return found[0].timestamp if found else None

    def gauges(self) -> Iterator[Gauge]:
        """When each stage was made last, how many runs there are, and the daemon's last sign of life."""
        assets = dict.fromkeys(asset for job in job_assets(self.loop.config).values() for asset in job)
        records = self.instance.get_asset_records([self._key(asset) for asset in assets])
        newest = {record.asset_entry.asset_key: record.asset_entry.last_materialization_record for record in records}
        made = {asset: last.timestamp for asset in assets if (last := newest.get(self._key(asset)))}
        about = "When each stage has succeeded last."
        yield Gauge.by("rlhf_stage_last_success_timestamp_seconds", about, "stage", made)
        runs = {status.value: self._runs(status) for status in dg.DagsterRunStatus}
        yield Gauge.by("rlhf_runs", "Runs on record, by Dagster's status.", "status", runs)
        beats = [beat.timestamp for beat in self.instance.get_daemon_heartbeats().values()]
        about = "Last sign of life of Dagster's daemon; 0 where there was none."
        yield Gauge.of("rlhf_daemon_heartbeat_timestamp_seconds", about, max(beats, default=0.0))

    def _key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey(self.loop.names.path(asset))

    def _runs(self, status: dg.DagsterRunStatus) -> int:
        return self.instance.get_runs_count(dg.RunsFilter(statuses=[status], tags=self.loop.run_tag))


def _gauges(dagster: DagsterMetrics) -> tuple[list[Gauge], dict[str, str]]:
    """All that can be read, and for each part that cannot a sentence."""
    loop = dagster.loop
    keys = open_rounds(dagster.instance, loop)
    parts = {**LoopMetrics(loop, keys, dagster.sent_at).parts(), "dagster": dagster.gauges}
    found: list[Gauge] = []
    problems: dict[str, str] = {}
    for about, part in parts.items():
        try:
            found += list(part())
        except UserError as error:
            problems[about] = str(error)
    readable = {about: float(about not in problems) for about in parts}
    about = "1 for a part that could be read; the metrics of the others are not there."
    found.append(Gauge.by("rlhf_readable", about, "part", readable))
    found.append(Gauge.of("rlhf_metrics_timestamp_seconds", "When these numbers were read.", time.time()))
    return found, problems
