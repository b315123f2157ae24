"""Ten loops beside a team's own assets in one project, three of them at work at once under a real daemon."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from loops import ROUND, Stages, checkpoint, copy_folder, small
from team_at_work import TeamAtWork
from team_project import OWN, write_project

from rlhf_dagster.assets.rounds import open_next_round, open_rounds
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.pages.server import ROUNDS_PAGE
from rlhf_dagster.records.loop_names import LOOP_TAG, LoopNames

pytestmark = [pytest.mark.integration, pytest.mark.long]

LOOPS = [f"loop_{number}" for number in range(10)]
AT_WORK = LOOPS[:3]
ROOM = "multiprocess_executor"
"""Each step as a process of its own would spend the test on imports."""


@pytest.fixture(scope="module")
def team(stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamAtWork]:
    """Ten loops, of which three are prepared and run by themselves."""
    root = tmp_path_factory.mktemp("team")
    for name in AT_WORK:
        copy_folder(stages.prepared, root / name, "dagster")
    loops = {name: attributes(root, name) for name in LOOPS}
    project = write_project(root / "team_of_ten", "team_of_ten", loops, OWN.replace(ROOM, "in_process_executor"))
    made = TeamAtWork(project, root / "home")
    made.configure()
    yield made
    made.stop()


def attributes(root: Path, name: str) -> dict[str, Any]:
    automation = {"running": name in AT_WORK, "open_round_cron": "0 0 1 1 *", "poll_seconds": 1}
    return small(name=name, automation=automation | {"min_new_labels": 10, "quiet_minutes": 0}) | {
        "key_prefix": name,
        "root": str(root / name),
    }


def folder(team: TeamAtWork, name: str) -> LoopFolder:
    """A loop of the project, as its component opens it."""
    from rlhf_dagster.cli.which_loop import find_declared

    found = find_declared(name, team.project)
    assert found.names == LoopNames((name,), said=found.names.said)
    return found


@pytest.fixture(scope="module")
def worked(team: TeamAtWork) -> dict[str, list[dg.DagsterRun]]:
    """The runs of each loop, once all three have decided on a round that was opened for them."""
    loops = [folder(team, name) for name in AT_WORK]
    with team.instance() as instance:
        for loop in loops:
            assert open_next_round(instance, loop) == ROUND
    team.start_daemon()
    own = team.run("dagster", "job", "launch", "-m", team.module, "-j", "prepare")
    assert own.returncode == 0, own.stderr
    team.wait_until(lambda instance: all(decided(instance, loop) for loop in loops) and not at_work(instance))
    with team.instance() as instance:
        runs = instance.get_runs()
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}, team.log()[-3000:]
    by_loop: dict[str, list[dg.DagsterRun]] = {name: [] for name in ["", *LOOPS]}
    for run in runs:
        by_loop[run.tags.get(LOOP_TAG, "")].append(run)
    return by_loop


def decided(instance: dg.DagsterInstance, loop: LoopFolder) -> bool:
    failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert not failed, [(run.job_name, run.run_id) for run in failed]
    return loop.json("promotion", ROUND) is not None


def at_work(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    return instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.QUEUED]))


def test_dg_finds_nothing_wrong(team: TeamAtWork) -> None:
    checked = team.run("dg", "check", "defs")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "All definitions loaded successfully." in checked.stdout
    assert "Warning" not in checked.stderr


def test_runs_and_partitions_are_those_of_their_loop(team: TeamAtWork, worked: dict[str, list[dg.DagsterRun]]) -> None:
    assert [run.job_name for run in worked[""]] == ["prepare"]
    for name in LOOPS:
        jobs = [f"{name}__collect_round", f"{name}__train_round"] if name in AT_WORK else []
        assert sorted(run.job_name for run in worked[name]) == jobs
    with team.instance() as instance:
        for name in LOOPS:
            assert open_rounds(instance, folder(team, name)) == ([ROUND] if name in AT_WORK else [])
        for run in (run for name in AT_WORK for run in worked[name]):
            made = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
            keys = {one.get_dagster_event().asset_key for one in made}
            assert {key.path[0] for key in keys if key} == {run.tags[LOOP_TAG]}


def test_the_rounds_are_at_work_at_once(worked: dict[str, list[dg.DagsterRun]], team: TeamAtWork) -> None:
    with team.instance() as instance:
        records = instance.get_run_records()
    spans = {
        name: [
            (record.start_time, record.end_time)
            for record in records
            if record.dagster_run.tags.get(LOOP_TAG) == name and record.start_time and record.end_time
        ]
        for name in AT_WORK
    }
    first = {name: (min(begin for begin, _ in one), max(end for _, end in one)) for name, one in spans.items()}
    assert max(begin for begin, _ in first.values()) < min(end for _, end in first.values())


def test_a_sensor_launches_for_its_loop_alone(team: TeamAtWork, worked: dict[str, list[dg.DagsterRun]]) -> None:
    ticks = team.ticks()
    launched = {name: {run for tick in found for run in tick.run_ids} for name, found in ticks.items()}
    for name in AT_WORK:
        own = set().union(*(runs for sensor, runs in launched.items() if sensor.startswith(f"{name}__")))
        assert own == {run.run_id for run in worked[name]}
    # A code server that a busy machine is slow to start is asked again at the next tick.
    errors = {tick.error.cls_name for found in ticks.values() for tick in found if tick.error}
    assert errors <= {"DagsterUserCodeUnreachableError"}


def test_a_page_tells_of_its_own_loop(team: TeamAtWork, worked: dict[str, list[dg.DagsterRun]]) -> None:
    for name in LOOPS:
        loop = folder(team, name)
        page = loop.store.get(ROUNDS_PAGE).data.decode()
        assert (ROUND in page) == (name in AT_WORK)
        assert not [other for other in LOOPS if other != name and other in page]


def test_each_makes_what_it_makes_alone(team: TeamAtWork, worked: dict, finished: LoopRunner) -> None:
    for name in AT_WORK:
        loop = folder(team, name)
        for asset in ("reward_model", "ppo_policy"):
            assert checkpoint(loop, asset, ROUND).digest == checkpoint(finished.loop, asset, ROUND).digest
