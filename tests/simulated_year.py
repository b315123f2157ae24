"""A loop's schedule and sensors in simulated time: people, servers, clocks and daemons that come and go.

The sensors and all that they decide by are the real ones, on a real Dagster instance and a real stop
cord. Simulated are the clock, what people do, what runs take and make, and the label store's counts.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock
from uuid import uuid4

import dagster as dg
from dagster._utils.schedules import schedule_execution_time_iterator

from rlhf_dagster.assets.one_sentence import STOPPED_TAG
from rlhf_dagster.automation import sensors as real
from rlhf_dagster.automation.own_runs import ALIVE
from rlhf_dagster.automation.sensors import TickFailed, loop_automation
from rlhf_dagster.automation.watch import POSITION_TAG
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.store import LabelCounts
from rlhf_dagster.lineage.stop_cord import pull, read_stop, reset
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.round_keys import round_key

COMPARISONS, JUDGMENTS = 40, 12
STEP = timedelta(hours=1)
CATCH_UP = 5
"""Missed times of a schedule that Dagster makes up for."""
ENDED = {"success": "PIPELINE_SUCCESS", "failure": "PIPELINE_FAILURE", "canceled": "PIPELINE_CANCELED"}


@dataclass
class Round:
    key: str
    collected: bool = False
    labels: list[tuple[int, datetime]] = field(default_factory=list)
    """Position in the ledger, and when by the annotator's clock."""
    judgments: list[tuple[int, datetime]] = field(default_factory=list)
    report: dict[str, Any] | None = None
    decision: dict[str, Any] | None = None
    promoted: bool = False
    due: int = 0
    """Steps for which something could have been launched for it."""


@dataclass(frozen=True)
class SimulatedLoop(LoopFolder):
    """A loop whose tables, models and labels are the world's."""

    world: Any = None

    @property
    def newest_promotion(self) -> str:
        return max((one.key for one in self.world.rounds.values() if one.promoted), default="")

    @property
    def registry(self) -> Any:
        return SimpleNamespace(champion=lambda: "sft")

    @property
    def label_store(self) -> Any:
        return SimpleNamespace(count=self.world.count)

    def has_table(self, asset: str, round_key: str = "") -> bool:
        return bool(self.world.rounds[round_key].collected)

    def json(self, asset: str, round_key: str = "") -> dict[str, Any] | None:
        return getattr(self.world.rounds[round_key], {"eval_report": "report", "promotion": "decision"}[asset])  # type: ignore[no-any-return]

    def table(self, asset: str, round_key: str = "", columns: list[str] | None = None) -> Any:
        report = self.world.rounds[round_key].report
        return {"policy_ids": [[report["policy_id"]]]} if report["passes"] else None


class World:
    """Everything around the sensors. ``troubles`` is how often a trouble begins, in each step."""

    def __init__(self, folder: Path, config: LoopConfig, seed: int, troubles: float = 0.004) -> None:
        self.random, self.troubles = Random(seed), troubles
        self.now = self.begin = datetime(2027, 1, 1, 0, 30, tzinfo=UTC)
        self.clock_error, self.until = timedelta(), dict[str, datetime]()
        self.rounds: dict[str, Round] = {}
        self.position, self.finished, self.wrong = 0, Counter[str](), list[str]()
        self.instance = dg.DagsterInstance.local_temp(str(folder))
        self.loop = SimulatedLoop(config, folder, world=self)
        schedules, sensors = loop_automation(config)
        self.schedule = schedules[0]
        names = ("new_labels", "opened_rounds", "judgments_complete")
        self.sensors = {one.name: one for one in sensors if one.name in names}
        self.cursors: dict[str, str | None] = dict.fromkeys(self.sensors)
        self.said: dict[str, str] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.repeated, self.launches, self.tried = Counter[tuple[str, str]](), Counter[str](), Counter[Any]()
        self.active: dict[str, tuple[str, str, datetime, int]] = {}
        self.last_schedule, self.scheduled = self.begin, 0

    # What the sensors see

    def clock(self) -> datetime:
        return self.now + self.clock_error

    def has(self, trouble: str) -> bool:
        return self.until.get(trouble, self.begin) > self.now

    def count(self, key: str, purpose: str, since: int = 0) -> LabelCounts:
        if self.has("server down"):
            raise UserError("Label Studio at http://here cannot be reached; start it.")
        found = self.rounds[key].labels if purpose == "train" else self.rounds[key].judgments
        total = COMPARISONS if purpose == "train" else JUDGMENTS
        new = [at for position, at in found if position > since]
        last = max((position for position, _ in found), default=0)
        times = (min(new, default=None), max(new, default=None))
        done = len(found)
        return LabelCounts(total, done, done, done, 0, done, last, len(new), *times)

    # What happens

    def step(self) -> None:
        self.now += STEP
        self._troubles()
        self._people()
        self._end_runs()
        if not self.has("daemon down"):
            self._tick_schedule()
            for name in self.sensors:
                self._tick(name)
        self._check()

    def _troubles(self) -> None:
        longest = {"server down": 100, "daemon down": 100, "people away": 500, "trainings fail": 60}
        for name, hours in longest.items():
            if self.random.random() < self.troubles:
                self.until[name] = self.now + timedelta(hours=self.random.randrange(1, hours))
        if self.random.random() < self.troubles:
            self.clock_error = timedelta(hours=self.random.choice([0, 0, -30, -1, 1, 30, 24 * 40]))

    def _people(self) -> None:
        if self.random.random() < self.troubles:
            pull(self.loop.store, "somebody", "the labels are odd")
        elif read_stop(self.loop.store) and self.random.random() < 0.1:
            reset(self.loop.store, "somebody")
        if self.random.random() < self.troubles:
            self._open()
        if self.random.random() < self.troubles and self.rounds:
            self._launch("train_round", max(self.rounds), {})  # by hand, which nobody should, and everybody may
        if self.random.random() < 0.05:
            self._reexecute()
        if self.has("people away") or self.has("server down"):
            return
        for one in self.rounds.values():
            self._give(one.labels, COMPARISONS if one.collected else 0)
            self._give(one.judgments, JUDGMENTS if one.report and one.report["passes"] else 0)

    def _give(self, labels: list[tuple[int, datetime]], most: int) -> None:
        for _ in range(min(self.random.choice([0, 0, 0, 1, 3]), most - len(labels))):
            self.position += 1
            wrong = self.random.choice([0] * 8 + [-400, 0.05, 9000])
            labels.append((self.position, self.now + timedelta(hours=wrong, minutes=-self.random.randrange(60))))

    def _reexecute(self) -> None:
        """A person mends what has failed, and has the run done once more, with the tags that it had."""
        newest = {
            (run.job_name, run.tags["dagster/partition"]): run for run in reversed(self.instance.get_runs(limit=20))
        }
        for (job, key), run in newest.items():
            wants = run.status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
            if wants and not self.has("trainings fail") and not self._is_over(self.rounds[key]):
                tags = {name: value for name, value in run.tags.items() if name == POSITION_TAG}
                self._launch(job, key, tags)
                return

    def _open(self) -> str:
        key = round_key(len(self.rounds) + 1)
        self.rounds[key] = Round(key)
        self.instance.add_dynamic_partitions(self.loop.names.rounds, [key])
        return key

    def _launch(self, job: str, key: str, tags: dict[str, str]) -> None:
        run_id = str(uuid4())
        status = self.random.choice([dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
        tags = {"dagster/partition": key, **tags}
        self.instance.add_run(dg.DagsterRun(job, run_id, status=status, tags=tags))
        hours = {"collect_round": 2, "train_round": 12, "release_round": 2}[job]
        self.active[run_id] = (job, key, self.now + timedelta(hours=self.random.randrange(1, hours)), self.position)

    def _end_runs(self) -> None:
        stop = read_stop(self.loop.store)
        for run_id, (job, key, end, seen) in list(self.active.items()):
            if end > self.now and not stop:
                continue
            outcome = "success"
            if stop:
                self.instance.add_run_tags(run_id, {STOPPED_TAG: "true"})
                outcome = "failure"
            elif self.has("trainings fail") or self.random.random() < 0.05:
                outcome = self.random.choice(["failure", "canceled"])
            else:
                self._done(job, self.rounds[key], seen)
            event = dg.DagsterEvent(event_type_value=ENDED[outcome], job_name=job)
            self.instance.run_storage.handle_run_event(run_id, event)
            self.finished[outcome] += 1
            del self.active[run_id]

    def _done(self, job: str, one: Round, seen: int) -> None:
        if job == "collect_round":
            one.collected = True
        elif job == "train_round" and one.labels:
            used = max((position for position, _ in one.labels if position <= seen), default=0)
            passes = self.random.random() < 0.7
            one.report = {"policy_id": uuid4().hex, "labels_read": {"position": used}, "passes": passes}
            one.decision, one.judgments = None, []
        elif job == "release_round" and one.report:
            outcome = self.random.choice(["pass", "pass", "fail", "not enough judgments"])
            one.promoted = outcome == "pass"
            one.decision = {"outcome": outcome, "policy": one.report["policy_id"], "reasons": ["why"]}

    # What Dagster's daemon does

    def _tick_schedule(self) -> None:
        missed, now = list[datetime](), self.clock()
        settings = self.loop.config.automation
        times = schedule_execution_time_iterator(
            self.last_schedule.timestamp(), settings.open_round_cron, settings.timezone, ascending=True
        )
        for time in times:
            if time > now:
                break
            if time > self.last_schedule:
                missed.append(time)
        for time in missed[-CATCH_UP:]:
            self.scheduled += 1
            with dg.build_schedule_context(
                instance=self.instance, resources={"loop": self.loop}, scheduled_execution_time=time
            ) as context:
                found = self._failing("open_round", lambda: self.schedule(context))
            if isinstance(found, dg.RunRequest):
                self._request("open_round", "collect_round", found)
        self.last_schedule = missed[-1] if missed else self.last_schedule

    def _tick(self, name: str) -> None:
        with dg.build_sensor_context(
            instance=self.instance, resources={"loop": self.loop}, cursor=self.cursors[name]
        ) as context:
            result: Any = self._failing(name, lambda: self.sensors[name](context))
        if result is None:
            return
        self.said[name] = result.skip_reason.skip_message if result.skip_reason else ""
        for request in result.run_requests or []:
            self._request(name, str(self.sensors[name].job_name), request)
        if self.random.random() > self.troubles:  # or the daemon was killed between the two
            self.cursors[name] = result.cursor

    def _failing(self, name: str, look: Any) -> Any:
        try:
            return look()
        except TickFailed as failed:
            if not self.has("server down"):
                self.wrong.append(f"{name} failed: {failed}")
            self.said[name] = str(failed)
            return None

    def _request(self, name: str, job: str, request: dg.RunRequest) -> None:
        """Launch it, unless its key was: of that Dagster says nothing to anybody."""
        key, why = (name, str(request.run_key)), str(request.partition_key)
        if key in self.keys:
            self.repeated[key] += 1
            return
        self.keys[key] = why
        active = [one for one in self.active.values() if one[0] == job and (job == "train_round" or one[1] == why)]
        if active:
            self.wrong.append(f"{self.now}: {name} launches {job} of {why} beside {active}")
        blind = self.has("server down") and job != "collect_round"  # an opened round is in the loop's folder alone
        if read_stop(self.loop.store) or blind:
            self.wrong.append(f"{self.now}: {name} launches {job} of {why} while it cannot know or must not")
        self.launches[job] += 1
        self._launch(job, why, dict(request.tags))

    # What must hold

    def _check(self) -> None:
        stuck = [key for key, times in self.repeated.items() if times > 3]
        if stuck:
            self.wrong.append(f"{self.now}: asked for again and again, and never launched: {stuck}")
        undecided = [one for one in self.rounds.values() if not self._is_over(one)]
        blind = self.has("daemon down") or self.has("server down") or read_stop(self.loop.store)
        for one in undecided:
            one.due = 0 if blind or not self._is_due(one) else one.due + 1
            if one.due > 30:
                self.wrong.append(f"{self.now}: {one.key} starves: {self.said}")

    def _is_over(self, one: Round) -> bool:
        return one.promoted or one.key <= self.loop.newest_promotion

    def _is_due(self, one: Round) -> bool:
        """Whether nothing that is stated stands in the way of a training, or of a decision."""
        if self.active or not one.collected or one.key != max(self.rounds):
            return False
        job = "release_round" if one.report and one.report["passes"] else "train_round"
        runs = self.instance.get_runs(dg.RunsFilter(job_name=job, tags={"dagster/partition": one.key}), limit=1)
        if runs and (runs[0].status != dg.DagsterRunStatus.SUCCESS and STOPPED_TAG not in runs[0].tags):
            return False  # "failed in run ...; re-execute it once that is mended"
        if job == "release_round":
            return one.decision is None and len(one.judgments) == JUDGMENTS
        used = one.report["labels_read"]["position"] if one.report else 0
        return len(one.labels) == COMPARISONS and one.labels[-1][0] > used


class Clock(datetime):
    """`datetime` whose now is the world's."""

    world: World

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return cls.world.clock()


def live(world: World, days: int) -> Iterator[World]:
    """Let the time pass, an hour at each turn."""
    Clock.world = world

    def passes(loop: Any, report: dict[str, Any], human: Any) -> Any:
        return SimpleNamespace(passed=report["passes"], reasons=[] if report["passes"] else ["too weak"])

    with (
        mock.patch.object(real, "datetime", Clock),
        mock.patch.object(real, "require_in_place", lambda loop: None),
        mock.patch.object(real, "unsettled_sentence", lambda loop, partitions: ""),
        mock.patch.object(real, "open_next_round", lambda instance, loop: world._open()),
        mock.patch("rlhf_dagster.loop.round_state.decide", passes),
    ):
        for _ in range(days * 24):
            world.step()
            yield world


def alive(world: World) -> int:
    return len(world.instance.get_runs(dg.RunsFilter(statuses=ALIVE)))
