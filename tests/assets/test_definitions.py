import json
import subprocess
import sys

import dagster as dg
import pytest
from loops import small, write_loop

from rlhf_dagster.assets.checks.declare import look_name
from rlhf_dagster.assets.checks.known import LOOKS
from rlhf_dagster.assets.rounds import open_next_round, rounds
from rlhf_dagster.automation.headlines import HEADLINES
from rlhf_dagster.automation.interventions.known import INTERVENTIONS
from rlhf_dagster.automation.jobs import DESCRIPTIONS, job_assets
from rlhf_dagster.build import build_loop
from rlhf_dagster.config.arms import TRAINED
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.loop_names import GPU_POOL
from rlhf_dagster.records.schemas import COMPLETIONS
from rlhf_dagster.resources.io_managers import TABLES
from rlhf_dagster.resources.notifier import Notifier

GROUPS = {
    "data": {"prompts", "demonstration_batch", "demonstrations", "pretraining_text"},
    "model": {"base_model", "sft_checkpoint"},
    "preferences": {
        *("round_manifest", "completions", "preference_batch", "preference_labels", "label_quality"),
        *("preference_dataset", "feedback"),
    },
    "reward": {"reward_model", "reward_model_accuracy", "reward_model_halves"},
    "policy": {"policy_choice", *(arm.asset for arm in TRAINED.values())},
    "evaluation": {"evaluation_completions", "eval_report", "evaluation_batch", "human_evaluation"},
    "release": {"promotion", "round_page"},
}
PAGE = "round_page"
"""Not made by a run: a sensor writes it after each."""
ASSETS = {asset for assets in GROUPS.values() for asset in assets} - {PAGE}
ALL_ARMS = {"arms": [*TRAINED], "release": {"arm": "best"}, "dpo": {"loss": "kto"}}
"""Settings of a loop that has every asset."""
OF_EVERY_LOOP = ASSETS - GROUPS["policy"] - {"feedback"}
ONCE = GROUPS["data"] | GROUPS["model"]
MODELS = GROUPS["model"] | {"reward_model", *(arm.asset for arm in TRAINED.values())}
TORCH = MODELS | {
    *("completions", "policy_choice", "evaluation_completions", "eval_report"),
    *("reward_model_accuracy", "reward_model_halves"),
}


@pytest.fixture(scope="module")
def definitions(tmp_path_factory) -> dg.Definitions:
    return build_loop(LoopConfig(owner="team:lab", **ALL_ARMS), tmp_path_factory.mktemp("loop"))


@pytest.fixture(scope="module")
def specs(definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_the_loop_is_all_there_in_its_groups(specs) -> None:
    groups: dict[str, set[str]] = {}
    for name, spec in specs.items():
        groups.setdefault(spec.group_name, set()).add(name)
    assert groups == GROUPS


def test_the_graph_has_no_cycle(definitions) -> None:
    dg.Definitions.validate_loadable(definitions)
    levels = definitions.resolve_asset_graph().toposorted_asset_keys_by_level
    assert {key.to_user_string() for level in levels for key in level} == ASSETS | {PAGE}


POLICIES = [
    ({}, {"ppo_policy"}),
    ({"arms": ["dpo"]}, {"ppo_policy", "dpo_policy"}),
    ({"release": {"arm": "grpo"}}, {"grpo_policy"}),
    ({"arms": ["rloo"], "release": {"arm": "best"}}, {"ppo_policy", "rloo_policy", "policy_choice"}),
]
"""By settings, the assets in which a round learns and chooses a policy."""


@pytest.mark.parametrize(("settings", "policies"), POLICIES)
def test_a_loop_has_the_policies_that_it_asks_for_and_waits_for_no_other(tmp_path, settings, policies) -> None:
    graph = build_loop(LoopConfig.parse(settings, "test"), tmp_path).resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {PAGE} | OF_EVERY_LOOP | policies
    for asset in ("evaluation_completions", "eval_report", "promotion"):
        assert parents_of(graph, asset) & GROUPS["policy"] == policies
    for choice in policies & {"policy_choice"}:
        assert parents_of(graph, choice) & GROUPS["policy"] == policies - {choice}


def parents_of(graph, asset: str) -> set[str]:
    return {key.to_user_string() for key in graph.get(dg.AssetKey(asset)).parent_keys}


@pytest.mark.parametrize("name", sorted(ASSETS))
def test_every_asset_explains_itself(specs, name) -> None:
    spec = specs[name]
    assert len(spec.description) > 40
    assert spec.description.rstrip()[-1] in ".?"
    assert spec.owners == ["team:lab"]
    assert spec.code_version
    assert spec.partitions_def == (None if name in ONCE else rounds)
    kind = "parquet" if name in TABLES else "huggingface" if name in MODELS else "json"
    assert spec.kinds == ({kind, "torch"} if name in TORCH else {kind})


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_has_a_schema_with_described_columns(specs, name) -> None:
    columns = specs[name].metadata["dagster/column_schema"].columns
    assert [column.name for column in columns] == TABLES[name].names
    assert [column.type for column in columns] == [str(field.type) for field in TABLES[name]]
    assert all(column.description for column in columns)


def test_the_evaluation_table_is_completions_with_a_role() -> None:
    assert TABLES["evaluation_completions"].names == [*COMPLETIONS.names, "role"]


def test_what_needs_a_device_waits_in_the_gpu_pool(definitions) -> None:
    pools = {
        key.to_user_string(): asset.op.pool
        for asset in definitions.assets
        if isinstance(asset, dg.AssetsDefinition)
        for key in asset.keys
    }
    assert {name for name, pool in pools.items() if pool == GPU_POOL} == TORCH
    assert {pool for name, pool in pools.items() if name not in TORCH} == {None}


CHECKS = {"eval_report": "may_be_promoted", "reward_model_accuracy": "better_than_guessing"}


def test_the_report_and_the_reward_model_s_accuracy_have_blocking_checks_by_round(definitions) -> None:
    specs = [spec for check in definitions.asset_checks for spec in check.check_specs]
    blocking = [spec for spec in specs if spec.blocking]
    assert {spec.asset_key.to_user_string(): spec.name for spec in blocking} == CHECKS
    assert all(spec.partitions_def == rounds for spec in blocking)


def test_nothing_waits_for_the_check_of_the_pool(definitions) -> None:
    specs = {spec.name: spec for check in definitions.asset_checks for spec in check.check_specs if not spec.blocking}
    spec = specs.pop("pool_is_limited")
    assert (spec.asset_key.to_user_string(), spec.partitions_def) == ("base_model", None)
    assert specs.keys() == {look_name(look) for one in LOOKS for look in one.looks}


def test_the_reward_model_is_measured_before_anything_learns_from_it(definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for asset in ("reward_model_halves", "ppo_policy"):
        assert "reward_model_accuracy" in parents_of(graph, asset)


PEOPLE = {"label_store": {"simulated_annotators": False}}


@pytest.mark.parametrize(
    ("config", "trains_to"),
    [({}, "promotion"), (PEOPLE, "evaluation_batch"), (PEOPLE | {"evaluation": {"human_judgments": 0}}, "promotion")],
)
def test_jobs_select_their_assets_and_train_round_waits_for_people_alone(tmp_path, config, trains_to) -> None:
    loop = LoopConfig.parse(config, "test")
    built = build_loop(loop, tmp_path)
    wanted = job_assets(loop)
    assert wanted["train_round"][-1] == trains_to
    assert wanted.keys() == DESCRIPTIONS.keys()
    graph = built.resolve_asset_graph()
    for name, assets in wanted.items():
        job = built.resolve_job_def(name)
        assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == set(assets)
        assert job.partitions_def == (None if name == "prepare" else rounds)
        assert job.description == DESCRIPTIONS[name]
        for position, asset in enumerate(assets):
            assert not parents_of(graph, asset) & set(assets[position:])
    checks = {key.name for key in built.resolve_job_def("train_round").asset_layer.asset_graph.asset_check_keys}
    looks = {look_name(look) for one in LOOKS for look in one.looks if one.asset in wanted["train_round"]}
    assert checks == set(CHECKS.values()) | looks


def test_the_jobs_together_make_every_asset_once() -> None:
    jobs = job_assets(LoopConfig.parse(PEOPLE | ALL_ARMS, "test"))
    assert sorted(asset for assets in jobs.values() for asset in assets) == sorted(ASSETS)


def test_no_job_trains_an_arm_that_is_not_asked_for() -> None:
    made = {asset for assets in job_assets(LoopConfig()).values() for asset in assets}
    assert made & GROUPS["policy"] == {"ppo_policy"}


def test_a_loop_that_releases_another_arm_s_policy_trains_ppo_s_only_if_asked_to() -> None:
    for arms, policies in (([], {"dpo_policy"}), (["ppo"], {"ppo_policy", "dpo_policy"})):
        jobs = job_assets(LoopConfig.parse({"arms": arms, "release": {"arm": "dpo"}}, "test"))
        assert GROUPS["policy"] & set(jobs["train_round"]) == policies


def test_the_terminal_has_a_headline_for_every_asset() -> None:
    assert HEADLINES.keys() == ASSETS


LOADED = """
import json, sys
import rlhf_dagster.definitions
definitions = rlhf_dagster.definitions.defs()
heavy = ("torch", "transformers", "peft", "datasets", "matplotlib", "scipy", "accelerate")
print(json.dumps({
    "assets": sorted(key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()),
    "jobs": sorted(job.name for job in definitions.resolve_all_job_defs() if not job.name.startswith("__")),
    "owners": sorted({owner for spec in definitions.resolve_all_asset_specs() for owner in spec.owners}),
    "heavy": sorted(set(heavy) & set(sys.modules)),
}))
"""


@pytest.mark.parametrize("where", ["defs", "RLHF_LOOP"])
def test_the_code_location_loads_without_a_heavy_library(tmp_path, monkeypatch, where) -> None:
    owner = "team:rlhf"
    if where == "RLHF_LOOP":
        owner = "team:mine"
        monkeypatch.setenv("RLHF_LOOP", str(write_loop(tmp_path / "loop", owner=owner)))
    else:
        monkeypatch.delenv("RLHF_LOOP", raising=False)
        monkeypatch.setenv("RLHF_ROOT", str(tmp_path))
    result = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assets = sorted({PAGE, "ppo_policy"} | OF_EVERY_LOOP)
    jobs = sorted([*DESCRIPTIONS, *(one.name for one in INTERVENTIONS)])
    assert found == {"assets": assets, "jobs": jobs, "owners": [owner], "heavy": []}
    if where == "RLHF_LOOP":
        # Dagster's own loading of a defs folder warns of its parameters in beta.
        assert result.stderr == ""


def test_a_loop_that_is_not_there_is_one_sentence(tmp_path) -> None:
    with pytest.raises(UserError, match="no such file"):
        LoopFolder.open(tmp_path / "nowhere")


def test_two_loops_do_not_share_a_folder(tmp_path) -> None:
    one, two = (build_loop(LoopConfig.parse(small(), "test"), tmp_path / name) for name in ("one", "two"))
    roots = [built.resources["tables"].address for built in (one, two)]
    assert roots == [str(tmp_path / "one"), str(tmp_path / "two")]


def test_a_resource_is_replaced_and_the_others_stay(tmp_path) -> None:
    config, notifier = LoopConfig.parse(small(), "test"), Notifier(variable="MINE")
    own, built = build_loop(config, tmp_path), build_loop(config, tmp_path, resources={"notifier": notifier})
    assert built.resources["notifier"] is notifier
    assert built.resources.keys() == own.resources.keys()
    assert built.resources["compute"] == own.resources["compute"]
    dg.Definitions.validate_loadable(built)


def test_a_resource_that_nothing_asks_for_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="no resource `computer` to replace; it has loop, tables, json, models, comp"):
        build_loop(LoopConfig(), tmp_path, resources={"computer": Notifier()})


class OwnStore(EmbeddedLabelStore):
    """A label store of one's own."""


class OwnLoop(LoopFolder):
    @property
    def label_store(self) -> OwnStore:
        return OwnStore(self.root / "own.sqlite")


def test_a_label_store_is_replaced_with_the_loop_that_opens_it(stages, copy_of) -> None:
    runner = copy_of(stages.prepared)
    loop = OwnLoop(runner.loop.config, runner.loop.root)
    built = build_loop(loop.config, loop.root, resources={"loop": loop})
    key = open_next_round(runner.instance, runner.loop)
    job = built.resolve_job_def("collect_round")
    assert job.execute_in_process(instance=runner.instance, partition_key=key).success
    comparisons = loop.label_store.comparisons(key, "train")
    assert len(comparisons) == loop.config.labeling.comparisons_per_round


def test_steps_and_jobs_that_need_a_device_have_the_tags_of_the_config(tmp_path) -> None:
    """A launcher with a pod for each run reads those of jobs, an executor with a pod for each step those of steps."""
    gpu = {"container_config": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}
    tags = {"steps": {"dagster-k8s/config": gpu}, "jobs": {"team/queue": "big"}}
    built = build_loop(LoopConfig(tags=tags, arms=["dpo"]), tmp_path)
    steps = {asset.op.name: asset.op.tags.get("dagster-k8s/config") for asset in built.assets if hasattr(asset, "op")}
    tagged = {name for name, value in steps.items() if value is not None}
    assert {
        json.loads(steps[name])["container_config"]["resources"]["limits"]["nvidia.com/gpu"] for name in tagged
    } == {1}
    assert tagged == {name for name in TORCH if name in steps}
    jobs = {job.name: job.tags.get("team/queue") for job in built.jobs}
    assert {name for name, queue in jobs.items() if queue} == {"prepare", "collect_round", "train_round"}
    assert set(jobs.values()) == {"big", None}
    assert {job.tags["rlhf/loop"] for job in built.jobs} == {"sentiment"}


def test_tags_that_a_launcher_would_not_read_are_refused(tmp_path) -> None:
    wrong = {"container_config": {"resources": {}}, "pod_spec": {"node_selector": {"gpu": "h100"}}}
    with pytest.raises(UserError, match=r"`tags.jobs`: dagster-k8s/config .* \"pod_spec\""):
        build_loop(LoopConfig(tags={"jobs": {"dagster-k8s/config": wrong}}), tmp_path)
    with pytest.raises(UserError, match=r"`tags.steps`: the value of `a` is none that JSON can hold"):
        LoopConfig.parse({"tags": {"steps": {"a": {1: 2}}}}, "loop.yaml")
