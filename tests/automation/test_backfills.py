"""Rounds of a backfill: launched in their order, one after another, and a later one never before an earlier one."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.automation_tick_evaluation_context import build_run_requests_with_backfill_policies
from dagster._core.definitions.events import AssetKeyPartitionKey
from loops import small
from rounds_on_disk import key, register

import rlhf_dagster.assets.backfill_order as order
from rlhf_dagster.automation.failures import find_failure
from rlhf_dagster.automation.instance import prepare_home
from rlhf_dagster.build import build_loop
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder

FIRST, SECOND, THIRD = (key(number) for number in (1, 2, 3))
OWN = {order.BACKFILL_TAG: "own"}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        found.add_dynamic_partitions("rounds", [FIRST, SECOND, THIRD, "monday"])
        yield found


@pytest.fixture
def loop(tmp_path: Path) -> LoopFolder:
    """A loop whose rounds can be pinned to SFT."""
    made = LoopFolder(LoopConfig.parse(small(), "test"), tmp_path)
    register(made, "sft", "")
    made.registry.set_initial("sft")
    return made


def test_a_backfill_of_assets_is_launched_in_the_order_of_rounds(instance, loop: LoopFolder) -> None:
    graph = build_loop(loop.config, loop.root).resolve_asset_graph()
    for asset in graph.materializable_asset_keys:
        node = graph.get(asset)
        assert node.backfill_policy == (order.ONE_ROUND_A_RUN if node.partitions_def else None)
    wanted = {AssetKeyPartitionKey(dg.AssetKey("round_manifest"), one) for one in (THIRD, FIRST, SECOND)}
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        requests = build_run_requests_with_backfill_policies(wanted, graph, instance)
    runs = [dg.DagsterRun("__ASSET_JOB", tags=request.tags) for request in requests]
    assert [order.round_of_run(run) for run in runs] == [FIRST, SECOND, THIRD]


def test_an_instance_of_a_loop_runs_one_round_of_a_backfill_at_a_time(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(os.environ, "DAGSTER_HOME", str(prepare_home(tmp_path)))
    with dg.DagsterInstance.get() as instance:
        queue = instance.get_concurrency_config().run_queue_config
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
    assert queue and queue.tag_concurrency_limits == [
        {"key": order.BACKFILL_TAG, "limit": 1, "value": {"applyLimitPerUniqueValue": True}}
    ]


def run_of(instance: dg.DagsterInstance, tags: dict[str, str], status: str = "STARTED") -> dg.DagsterRun:
    @dg.job
    def nothing() -> None:
        pass

    return instance.create_run_for_job(nothing, tags=tags, status=dg.DagsterRunStatus[status])


@pytest.fixture
def step(instance: dg.DagsterInstance) -> Callable[[dg.DagsterRun], Any]:
    """A step of a run, as far as it is asked; what it logs is in ``said``."""

    def of(run: dg.DagsterRun) -> Any:
        said: list[str] = []
        log = SimpleNamespace(info=said.append)
        return SimpleNamespace(run=run, instance=instance, partition_key=order.round_of_run(run), log=log, said=said)

    return of


def test_a_later_round_waits_for_earlier_ones_that_are_being_made(instance, step, monkeypatch) -> None:
    of_assets = {"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": FIRST}
    earlier = [run_of(instance, OWN | tags) for tags in (of_assets, {order.PARTITION_TAG: SECOND})]
    later = step(run_of(instance, OWN | {order.PARTITION_TAG: THIRD}))

    def done_meanwhile(_: float) -> None:
        instance.report_run_failed(earlier.pop(0))

    monkeypatch.setattr(order.time, "sleep", done_meanwhile)
    order.wait_for_older_rounds(later)
    assert [line.partition(" (")[0] for line in later.said] == [
        f"{THIRD} waits for {FIRST}",
        f"{THIRD} waits for {SECOND}",
    ]
    assert earlier == []


def test_nothing_is_waited_for_outside_of_a_backfill_or_of_another_one(instance, step) -> None:
    run_of(instance, {order.BACKFILL_TAG: "other", order.PARTITION_TAG: FIRST})
    run_of(instance, {order.PARTITION_TAG: FIRST})
    run_of(instance, OWN | {order.PARTITION_TAG: THIRD})
    for tags in (OWN, {}):
        order.wait_for_older_rounds(step(run_of(instance, tags | {order.PARTITION_TAG: SECOND})))


def test_a_round_whose_predecessor_has_not_begun_is_refused(instance, step) -> None:
    """It may be waiting for the place of the one that would wait for it."""
    queued = run_of(instance, OWN | {order.PARTITION_TAG: FIRST}, "NOT_STARTED")
    with pytest.raises(UserError) as caught:
        order.wait_for_older_rounds(step(run_of(instance, OWN | {order.PARTITION_TAG: SECOND})))
    assert str(caught.value) == (
        f"{SECOND} learns from the labels of {FIRST} too, which this backfill has not begun. Launch it again after run "
        f"{queued.run_id[:8]}, or limit `dagster/backfill` to one run at a time in dagster.yaml."
    )


def test_a_run_that_is_cancelled_waits_no_longer(instance, step, monkeypatch) -> None:
    run_of(instance, OWN | {order.PARTITION_TAG: FIRST})
    waiting = run_of(instance, OWN | {order.PARTITION_TAG: SECOND})
    monkeypatch.setattr(order.time, "sleep", lambda _: instance.report_run_canceling(waiting))
    with pytest.raises(dg.DagsterExecutionInterruptedError):
        order.wait_for_older_rounds(step(waiting))


RANGES = {
    (FIRST, FIRST): "",
    (FIRST, THIRD): f"A run is of one round, and this one of {FIRST} to {THIRD}: launch a run for each.",
    ("monday", "monday"): "monday: rounds are called round-0001, round-0002 and so on; delete this partition.",
}


@pytest.mark.parametrize("ends", RANGES, ids=["one", "several", "none"])
def test_a_run_is_of_one_round_and_says_which(instance, loop: LoopFolder, ends: tuple[str, str]) -> None:
    job = build_loop(loop.config, loop.root).resolve_implicit_global_asset_job_def()
    tags = dict(zip(("dagster/asset_partition_range_start", "dagster/asset_partition_range_end"), ends, strict=True))
    done = job.get_subset(asset_selection={dg.AssetKey("round_manifest")}).execute_in_process(
        instance=instance, tags=tags, raise_on_error=False
    )
    failure = find_failure(done.all_events)
    assert (failure.reason if failure else "") == RANGES[ends]
    assert loop.registry.pins() == ([FIRST] if done.success else [])
    if done.success:
        run = instance.get_run_by_id(done.run_id)
        assert run and run.tags[order.PARTITION_TAG] == FIRST
