"""Run a loop's jobs in this process, on the loop's own Dagster instance."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import dagster as dg

from rlhf_dagster.automation.declared import DeclaredLoop
from rlhf_dagster.automation.execution import EventListener, RunOutcome, execute
from rlhf_dagster.automation.freshness import Freshness, Records
from rlhf_dagster.automation.instance import code_location, open_instance, require_idle, run_tags
from rlhf_dagster.automation.jobs import PREPARE, ROUND_JOBS, job_assets
from rlhf_dagster.automation.launcher import require_unwatched
from rlhf_dagster.build import build_loop
from rlhf_dagster.common.files import locked
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.evaluation import decide
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.round_keys import IMPORT_ROUND


@dataclass(frozen=True)
class LoopRunner:
    """Executes jobs of a loop. What is there is not made again, unless it is older than what it is made from."""

    loop: LoopFolder
    instance: dg.DagsterInstance

    @classmethod
    def open(cls, loop: LoopFolder) -> "LoopRunner":
        return cls(loop, open_instance(loop))

    @cached_property
    def definitions(self) -> dg.Definitions:
        loop = self.loop
        if isinstance(loop, DeclaredLoop):
            return loop.definitions()
        return build_loop(loop.config, loop.root, names=loop.names)

    def assets(self, job: str, until: str | None = None) -> list[str]:
        """Assets of a job, upstream first, optionally up to ``until``."""
        assets = job_assets(self.loop.config)[job]
        if until is None:
            return assets
        if until not in assets:
            raise UserError(f"Job {job} has no asset {until}; it has {', '.join(assets)}.")
        return assets[: assets.index(until) + 1]

    def missing(self, job: str, round_key: str | None, until: str | None = None) -> list[str]:
        """Assets of a job that must be made, optionally up to ``until`` (:meth:`Records.freshness`)."""
        outdated = self.freshness(job, round_key).outdated
        return [asset for asset in self.assets(job, until) if asset in outdated]

    def freshness(self, job: str, round_key: str | None) -> Freshness:
        """What a job must make again, and what it keeps although something newer is there."""
        return self._records(round_key).freshness(self.assets(job))

    def require_ready(self, job: str, round_key: str) -> None:
        """Raise UserError where the jobs before this one have not made what it needs, or made it from something older.

        A round that the gate refused before anybody was asked has nothing to release.
        """
        records, own = self._records(round_key), self.assets(job)
        for asset in _prepared(job, round_key, records, own):
            if not records.is_stored(asset):
                raise UserError(f"There is no {asset} yet; run `rlhf run prepare {self.loop.option}` first.")
        for earlier in ROUND_JOBS[: ROUND_JOBS.index(job)]:
            command = f"run `rlhf run {earlier} --round {round_key} {self.loop.option}` first."
            for asset in self.assets(earlier):
                needed = any(asset in records.parents(child) for child in own)
                if asset in own or (not needed and not records.is_there(asset)):
                    continue
                if not records.is_there(asset):
                    if refused := self._refused(round_key):
                        raise UserError(refused)
                    self.require_ready(earlier, round_key)  # what that one lacks comes first
                    raise UserError(f"{round_key} has no {asset} yet; {command}")
                if newer := records.made_from_newer(asset):
                    raise UserError(f"{asset} of {round_key} is older than {newer}, of which it is made; {command}")

    def _refused(self, round_key: str) -> str:
        """Why a round that was trained has nothing to be judged; empty where the gate has not refused it."""
        report = self.loop.json("eval_report", round_key)
        early = decide(self.loop, report, None) if report else None
        if report is None or early is None or early.passed:
            return ""
        return f"{report['policy_id']} of {round_key} was refused by the gate: {' '.join(early.reasons)}"

    def run(
        self,
        job: str,
        round_key: str | None = None,
        assets: list[str] | None = None,
        listener: EventListener | None = None,
    ) -> RunOutcome:
        """Execute a job, or some of its assets, for one round."""
        require_unwatched(self.instance)
        tags, names, location = run_tags(self.loop), self.loop.names, code_location(self.loop)
        with ExitStack() as until_on_record:
            until_on_record.enter_context(locked(self.loop.root / "work" / ".starting.lock"))
            require_idle(self.instance, self.loop)

            def hear(event: dg.DagsterEvent) -> None:
                if event.event_type == dg.DagsterEventType.RUN_START:
                    until_on_record.close()  # whoever looks now finds this run
                if listener is not None:
                    listener(event)

            return execute(self.definitions, self.instance, job, round_key, assets, hear, tags, names, location)

    def _records(self, round_key: str | None) -> Records:
        return Records(self.loop, self.instance, self.definitions.resolve_asset_graph(), round_key)


def _prepared(job: str, round_key: str, records: Records, own: list[str]) -> list[str]:
    """What of the job `prepare` a job of a round reads. Of imported judgments nothing is sampled."""
    if round_key == IMPORT_ROUND and job == "collect_round":
        return ["prompts"]
    return [asset for asset in PREPARE if any(asset in records.parents(child) for child in own)]
