"""Loops side by side in a team's code location, on one instance: nothing collides, and each sees its own alone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from loops import ROUND, Stages, copy_folder, small, write_loop
from team_project import OWN_ASSETS, write_project

from rlhf_dagster.assets.checks.pool import pool_problem
from rlhf_dagster.assets.graph import loop_checks
from rlhf_dagster.assets.rounds import add_partition, open_next_round, open_rounds
from rlhf_dagster.automation.execution import execute
from rlhf_dagster.automation.failures import failed_runs
from rlhf_dagster.automation.freshness import Records
from rlhf_dagster.automation.interventions.known import INTERVENTIONS
from rlhf_dagster.automation.jobs import job_assets
from rlhf_dagster.automation.own_runs import alive_runs, is_run_of
from rlhf_dagster.automation.pages import page_sensor, write_page
from rlhf_dagster.automation.sensors import loop_automation
from rlhf_dagster.automation.watch import active_run, last_attempt
from rlhf_dagster.build import build_loop
from rlhf_dagster.component import RlhfLoop, require_apart
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.loop_names import ALONE, LOOP_TAG, LoopNames
from rlhf_dagster.resources.column_lineage import COLUMN_LINEAGE
from rlhf_dagster.resources.notifier import Notifier

# Dagster warns of its own classes in beta.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
NUMBER = 10
LOOPS = [f"loop_{number}" for number in range(NUMBER)]
ONE, TWO = (LoopNames((name,)) for name in ("one", "two"))


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.Definitions]:
    """Ten loops and a team's own definitions in one code location."""
    root = tmp_path_factory.mktemp("team")
    loops = {name: {"name": name, "key_prefix": name, "root": str(root / name)} for name in LOOPS}
    project = write_project(root / "project", "ten_loops", loops)
    yield dg.ComponentTree.for_project(project).build_defs()


def test_ten_loops_and_a_team_s_own_load_side_by_side(team: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(team)
    assets = {key.to_user_string() for key in team.resolve_asset_graph().get_all_asset_keys()}
    of_a_loop = {asset for found in job_assets(LoopConfig()).values() for asset in found} | {"round_page"}
    expected = {f"{loop}/{asset}" for loop in LOOPS for asset in of_a_loop}
    assert assets - expected == {"prompts", *(f"table_{number}" for number in range(1, OWN_ASSETS))}
    assert expected <= assets


def test_the_executor_of_the_team_stays(team: dg.Definitions) -> None:
    assert team.executor is dg.multiprocess_executor


def test_every_name_but_the_pool_is_the_loop_s_own(team: dg.Definitions) -> None:
    graph = team.resolve_asset_graph()
    for loop in LOOPS:
        nodes = [graph.get(key) for key in graph.get_all_asset_keys() if key.path[0] == loop]
        assert all(node.group_name.startswith(f"{loop}__") for node in nodes)
        assert {node.partitions_def.name for node in nodes if node.partitions_def} == {f"{loop}__rounds"}
        for node in nodes:
            assert {key.path[0] for key in (*node.parent_keys, *node.child_keys)} <= {loop}
    pools = {asset.op.pool for asset in team.assets or [] if isinstance(asset, dg.AssetsDefinition)}
    assert pools == {None, "gpu"}
    sensors = {sensor.name for sensor in team.sensors or []}
    assert {name.partition("__")[0] for name in sensors} == set(LOOPS)
    assert len(sensors) == len(team.sensors or []) == NUMBER * len(loop_automation(LoopConfig())[1])
    resources = set(team.resources or {}) - {"json"}
    assert {name.partition("__")[0] for name in resources} == set(LOOPS)


def test_a_job_makes_the_assets_of_its_loop_and_its_runs_say_so(team: dg.Definitions) -> None:
    for loop in LOOPS[:2]:
        job = team.resolve_job_def(f"{loop}__train_round")
        assert {key.path[0] for key in job.asset_layer.executable_asset_keys} == {loop}
        assert job.tags[LOOP_TAG] == loop
    assert [key.to_user_string() for key in team.resolve_job_def("prepare").asset_layer.executable_asset_keys] == [
        "prompts"
    ]


def test_a_loop_alone_has_the_names_that_it_always_had(tmp_path: Path) -> None:
    built = build_loop(LoopConfig(), tmp_path)
    assert set(built.resources or {}) == {"loop", "tables", "json", "models", "compute", "notifier"}
    assert {job.name for job in built.jobs or []} == {*job_assets(LoopConfig()), *(one.name for one in INTERVENTIONS)}
    assert {sensor.name for sensor in built.sensors or []} == {
        *("new_labels", "opened_rounds", "judgments_complete", "failed_runs", "round_page_after_runs")
    }
    assert [schedule.name for schedule in built.schedules or []] == ["open_round"]
    assert built.executor is None


@pytest.mark.parametrize("part", ["", "a__b", "_a", "a-b", "a b"])
def test_a_prefix_that_dagster_could_not_tell_apart_is_refused(part: str) -> None:
    with pytest.raises(UserError, match="letters and digits, with single underscores"):
        LoopNames((part,))


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


@pytest.fixture
def pair(tmp_path: Path) -> tuple[LoopFolder, LoopFolder]:
    """Two loops that are called one and two, on files of their own."""
    config = LoopConfig.parse(small(), "test")
    one, two = (LoopFolder(config, tmp_path / names.prefix[0], names) for names in (ONE, TWO))
    return one, two


def start(instance: dg.DagsterInstance, loop: LoopFolder, job: str, status: str = "STARTED") -> dg.DagsterRun:
    """A run of a loop's job on its first round, as the daemon makes it."""
    definition = build_loop(loop.config, loop.root, names=loop.names).resolve_job_def(loop.names.own(job))
    tags = {"dagster/partition": ROUND, **definition.run_tags}
    return instance.create_run_for_job(definition, status=dg.DagsterRunStatus[status], tags=tags)


def test_rounds_and_runs_of_one_loop_are_not_seen_by_another(instance, pair) -> None:
    one, two = pair
    assert open_next_round(instance, one) == ROUND
    run = start(instance, one, "train_round")
    assert (open_rounds(instance, one), open_rounds(instance, two)) == ([ROUND], [])
    assert active_run(instance, one, "train_round").startswith(f"train_round of {ROUND} is running")
    assert active_run(instance, two, "train_round") == ""
    attempt = last_attempt(instance, one, "train_round", ROUND)
    assert attempt is not None and attempt.run_id == run.run_id
    assert last_attempt(instance, two, "train_round", ROUND) is None
    assert [len(alive_runs(instance, loop)) for loop in pair] == [1, 0]


def test_a_page_names_the_runs_of_its_loop_alone(instance, pair) -> None:
    one, two = pair
    start(instance, two, "collect_round")
    start(instance, one, "train_round")
    pages = [loop.store.get(write_page(instance, loop)).data.decode() for loop in pair]
    assert ["train_round" in page for page in pages] == [True, False]
    assert ["collect_round" in page for page in pages] == [False, True]
    for loop in pair:
        assert instance.get_latest_materialization_event(dg.AssetKey([loop.names.prefix[0], "round_page"]))


def test_a_page_is_written_anew_after_runs_of_its_loop_alone(instance, pair) -> None:
    one, two = pair
    seen = look(instance, one, "")
    start(instance, two, "train_round")
    assert look(instance, one, seen) == seen
    start(instance, one, "train_round")
    assert look(instance, one, seen) != seen


def look(instance: dg.DagsterInstance, loop: LoopFolder, cursor: str) -> str:
    """The cursor after a look of the sensor that writes the page."""
    sensor = page_sensor(loop.config.automation, loop.names)
    resources = {loop.names.own("loop"): loop}
    with dg.build_sensor_context(instance=instance, resources=resources, cursor=cursor) as context:
        return sensor(context).cursor or ""


def test_a_failure_is_told_by_the_loop_whose_run_it_was(instance, pair, monkeypatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(Notifier, "send", lambda _, text, *rest: told.append(text))
    run = start(instance, pair[0], "train_round")
    instance.report_run_failed(run, "Out of memory.")
    (ended,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    for loop in pair:
        resources = {loop.names.own("loop"): loop, loop.names.own("notifier"): Notifier()}
        context = dg.build_run_status_sensor_context(
            sensor_name="failed_runs",
            dagster_event=ended.dagster_event,
            dagster_instance=instance,
            dagster_run=run,
            resources=resources,
        ).for_run_failure()
        failed_runs(loop.config.automation, loop.names)(context)
    assert len(told) == 1
    assert told[0].startswith(f"one__train_round of {ROUND} failed: ")


def test_a_run_of_assets_is_of_each_loop_whose_assets_it_makes(pair) -> None:
    def run(*keys: list[str], **tags: str) -> dg.DagsterRun:
        named = {name.replace("__", "/"): value for name, value in tags.items()}
        return dg.DagsterRun("__ASSET_JOB", asset_selection={dg.AssetKey(key) for key in keys}, tags=named)

    both = run(["one", "prompts"], ["two", "prompts"], rlhf__loop="one")
    assert [is_run_of(both, loop) for loop in pair] == [True, True]
    assert [is_run_of(run(["prompts"]), loop) for loop in pair] == [False, False]
    assert is_run_of(run(["prompts"]), replace(pair[0], names=ALONE))


def test_runs_of_before_are_known_by_their_job(pair) -> None:
    alone = replace(pair[0], names=ALONE)
    assert is_run_of(dg.DagsterRun("train_round"), alone)
    assert not is_run_of(dg.DagsterRun("nightly"), alone)
    assert not is_run_of(dg.DagsterRun("train_round", tags={LOOP_TAG: "other"}), alone)


@pytest.fixture
def beside(stages: Stages, tmp_path: Path, instance: dg.DagsterInstance) -> tuple[LoopFolder, Callable[..., Any]]:
    """The small loop, prepared while it was alone, as one among others, and what runs its jobs."""
    copy_folder(stages.prepared, tmp_path / "one")
    loop = replace(LoopFolder.open(write_loop(tmp_path / "one")), names=ONE)
    built = [build_loop(loop.config, tmp_path / names.prefix[0], names=names) for names in (ONE, TWO)]
    definitions = dg.Definitions.merge(*built)

    def run(job: str, *assets: str) -> Any:
        return execute(definitions, instance, job, None if job == "prepare" else ROUND, assets, names=ONE)

    run.definitions = definitions  # type: ignore[attr-defined]
    return loop, run


def test_a_loop_among_others_makes_what_it_makes_alone(beside, instance, stages) -> None:
    loop, run = beside
    add_partition(instance, loop, ROUND)
    assert run("collect_round").success
    alone = LoopFolder.open(stages.unjudged)
    for asset in ("completions", "preference_batch"):
        assert loop.table(asset, ROUND).equals(alone.table(asset, ROUND))
    graph = run.definitions.resolve_asset_graph()
    records = Records(loop, instance, graph, ROUND)
    assert records.parents("completions") == ["prompts", "round_manifest"]
    assert records.is_there("completions")
    assert records.freshness(["round_manifest", "completions"]).outdated == {}
    assert run("collect_round", "completions").success
    assert Records(loop, instance, graph, ROUND).made_from_newer("preference_batch") == ""
    made = instance.get_latest_materialization_event(dg.AssetKey(["one", "completions"]))
    assert instance.get_run_by_id(made.run_id).tags[LOOP_TAG] == "one"
    lineage = made.asset_materialization.metadata[COLUMN_LINEAGE].value.deps_by_column
    assert lineage["prompt"] == [dg.TableColumnDep(dg.AssetKey(["one", "prompts"]), "text")]
    assert not (loop.root / "assets" / "one").exists()


def test_a_failure_names_the_asset_as_the_loop_knows_it(beside, instance) -> None:
    loop, run = beside
    add_partition(instance, loop, ROUND)
    outcome = run("train_round", "reward_model")
    assert outcome.failed_asset == "reward_model"
    assert outcome.failure.startswith("sft_checkpoint") or "is not there yet" in outcome.failure


def test_a_run_of_assets_alone_is_tagged_with_its_loop(beside, instance) -> None:
    _, run = beside
    job = run.definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(["one", "prompts"])])
    assert instance.get_run_by_id(result.run_id).tags[LOOP_TAG] == "one"


def test_the_pool_s_limit_is_asked_of_the_instance(instance) -> None:
    assert "no limit for the pool `gpu`" in pool_problem(instance, "gpu")
    check = dg.AssetCheckKey(dg.AssetKey(["one", "base_model"]), "pool_is_limited")
    (spec,) = [spec for one in loop_checks(ONE) for spec in one.check_specs if spec.key == check]
    assert not spec.blocking
    instance.event_log_storage.set_concurrency_slots("gpu", 2)
    assert pool_problem(instance, "gpu") == ""
    assert "no limit for the pool `other`" in pool_problem(instance, "other")


@pytest.mark.parametrize(("pools", "found"), [({"default_limit": 1}, ""), ({"granularity": "run"}, "by run")])
def test_what_dagster_yaml_says_of_pools_counts(tmp_path: Path, pools: dict[str, Any], found: str) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"concurrency": {"pools": pools}}) as instance:
        problem = pool_problem(instance, "gpu")
    assert found in problem
    assert bool(problem) == bool(found)


def test_a_translator_changes_what_assets_look_like_and_where_their_keys_begin(tmp_path: Path) -> None:
    def translate(spec: dg.AssetSpec) -> dg.AssetSpec:
        key = spec.key.with_prefix("warehouse") if spec.key.path[-1] == "prompts" else spec.key
        return spec.replace_attributes(
            key=key, owners=["team:data"], automation_condition=dg.AutomationCondition.on_missing()
        ).merge_attributes(tags={"cost": "research"})

    built = build_loop(LoopConfig(), tmp_path, names=ONE, get_asset_spec=translate)
    dg.Definitions.validate_loadable(built)
    specs = {spec.key.to_user_string(): spec for spec in built.resolve_all_asset_specs()}
    assert {"warehouse/one/prompts", "one/completions"} <= specs.keys()
    assert dg.AssetKey(["warehouse", "one", "prompts"]) in {dep.asset_key for dep in specs["one/completions"].deps}
    assert all(spec.owners == ["team:data"] and spec.tags["cost"] == "research" for spec in specs.values())
    assert all(spec.automation_condition for spec in specs.values())
    assert built.resources["one__loop"].names.path("prompts") == ("warehouse", "one", "prompts")


def test_a_key_that_does_not_end_in_its_asset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="key of prompts was changed to questions; only what stands before"):
        build_loop(LoopConfig(), tmp_path, get_asset_spec=lambda spec: spec.replace_attributes(key="questions"))


def test_a_loop_in_the_place_of_the_own_one_has_its_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has not the names of the loop"):
        build_loop(LoopConfig(), tmp_path, {"loop": LoopFolder(LoopConfig(), tmp_path)}, ONE)


TRANSLATION = {
    "owners": ["team:data"],
    "tags": {"asset": "{{ spec.key.path[-1] }}"},
    "automation_condition": "{{ dg.AutomationCondition.on_missing() }}",
}


def test_a_component_says_its_names_and_what_its_assets_look_like(tmp_path: Path) -> None:
    attributes = {"name": "mine", "key_prefix": "nlp/mine", "pool": "big_gpu", "translation": TRANSLATION}
    tree = dg.ComponentTree.for_project(write_project(tmp_path, "one_translated", {"mine": attributes}))
    (component,) = tree.get_all_components(of_type=RlhfLoop)
    assert component.names == LoopNames(("nlp", "mine"), "big_gpu")
    specs = {spec.key.to_user_string(): spec for spec in tree.build_defs().resolve_all_asset_specs()}
    assert specs["nlp/mine/prompts"].tags["asset"] == "prompts"
    assert specs["nlp/mine/prompts"].owners == ["team:data"]
    assert specs["nlp/mine/promotion"].automation_condition == dg.AutomationCondition.on_missing()
    assert specs["prompts"].owners == []


APART = [
    (
        [{"name": "one"}, {"name": "two"}],
        "The loops one and two have the same `key_prefix`, or none; give each one of its own.",
    ),
    (
        [{"name": "same", "key_prefix": "one"}, {"name": "same", "key_prefix": "two"}],
        "The loops same and same both keep their files in .rlhf/same; give each a `root` of its own.",
    ),
]


@pytest.mark.parametrize(("loops", "sentence"), APART, ids=["names", "files"])
def test_loops_that_would_be_one_are_refused(loops, sentence: str) -> None:
    found = [
        RlhfLoop(config, Path(".rlhf", config.name), LoopNames((one["key_prefix"],) if "key_prefix" in one else ()))
        for one in loops
        for config in [LoopConfig(name=one["name"])]
    ]
    with pytest.raises(UserError) as caught:
        require_apart(found)
    assert str(caught.value).startswith(sentence)


def test_two_loops_without_a_prefix_are_a_sentence_in_a_project(tmp_path: Path) -> None:
    project = write_project(tmp_path, "two_alike", {"one": {"name": "one"}, "two": {"name": "two"}}, own="")
    with pytest.raises(Exception) as caught:  # Dagster's own wrapper is not public
        dg.ComponentTree.for_project(project).build_defs()
    assert "have the same `key_prefix`, or none" in str(caught.value.__cause__)


def test_loops_in_the_folder_of_the_environment_have_folders_of_their_own(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("RLHF_ROOT", str(tmp_path / "loops"))
    project = write_project(tmp_path, "two_in_one_root", {name: {"key_prefix": name} for name in ("one", "two")})
    found = dg.ComponentTree.for_project(project).get_all_components(of_type=RlhfLoop)
    assert sorted(loop.root for loop in found) == [tmp_path / "loops" / "one", tmp_path / "loops" / "two"]


def test_a_prefix_that_cannot_be_one_is_a_sentence_of_the_component(tmp_path: Path) -> None:
    tree = dg.ComponentTree.for_project(write_project(tmp_path, "badly_named", {"mine": {"key_prefix": "a-b"}}))
    with pytest.raises(Exception) as caught:  # Dagster's own wrapper is not public
        tree.build_defs()
    assert "letters and digits" in str(caught.value.__cause__)
