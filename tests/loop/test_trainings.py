import json
import shutil

import pandas as pd
import pytest
from loops import ROUND, asset_path, checkpoint

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.labeling.dataset import snapshot_hash
from rlhf_dagster.lineage.manifest import label_ids, read_manifest
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.lineage.models import model_digest
from rlhf_dagster.loop.trainings.base_model import base_model_cache, build_base_model
from rlhf_dagster.loop.trainings.ppo import make_ppo_policy
from rlhf_dagster.loop.trainings.reward_model import make_reward_model
from rlhf_dagster.loop.trainings.sft import make_sft_checkpoint


def silent(*_: object, **__: object) -> None:
    pass


@pytest.mark.parametrize("asset", ["base_model", "sft_checkpoint", "reward_model", "ppo_policy"])
def test_a_pointer_names_a_model_that_has_its_digest(finished, asset) -> None:
    by_round = asset in ("reward_model", "ppo_policy")
    found = checkpoint(finished.loop, asset, ROUND if by_round else "")
    assert model_digest(found.folder) == found.digest
    assert found.model_id.endswith(found.digest[:10])


def test_a_manifest_says_what_a_model_was_made_from(finished) -> None:
    loop = finished.loop
    base, sft, reward, policy = (
        checkpoint(loop, *which)
        for which in (("base_model",), ("sft_checkpoint",), ("reward_model", ROUND), ("ppo_policy", ROUND))
    )
    manifests = {model.model_id: read_manifest(model.folder) for model in (base, sft, reward, policy)}
    identity = {model.model_id: {"model_id": model.model_id, "digest": model.digest} for model in (base, sft, reward)}
    assert manifests[base.model_id]["parents"] == {}
    assert manifests[sft.model_id]["parents"] == {"base_model": identity[base.model_id]}
    assert manifests[reward.model_id]["parents"] == {"sft_checkpoint": identity[sft.model_id]}
    assert manifests[policy.model_id]["parents"] == {
        "sft_checkpoint": identity[sft.model_id],
        "start": identity[sft.model_id],
        "reward_model": identity[reward.model_id],
    }
    snapshot = pd.read_parquet(asset_path(loop, "preference_dataset", ROUND))
    for model in (reward, policy):
        manifest = manifests[model.model_id]
        assert manifest["dataset"] == snapshot_hash(snapshot)
        assert label_ids(manifest) == sorted(snapshot.loc[snapshot["split"] == "train", "label_id"])
        assert manifest["round"] == ROUND
    recorded = manifests[policy.model_id]["config"]["ppo"]
    assert recorded == loop.config.ppo.recorded()
    # Settings that version 0.1 lacks are no part of the record at their defaults.
    assert PpoSettings.parse(recorded, "manifest") == loop.config.ppo
    assert manifests[policy.model_id]["seed"] == loop.config.stage_seed("ppo", ROUND)
    assert len(manifests[policy.model_id]["curves"]["kl"]) == loop.config.ppo.updates


def test_a_second_loop_takes_its_base_model_from_the_cache(stages, copy_of, monkeypatch) -> None:
    import rlhf_dagster.training.pretraining.tiny_model as tiny

    runner = copy_of(stages.prepared)
    loop = runner.loop
    made = checkpoint(loop, "base_model")
    shutil.rmtree(made.folder)
    monkeypatch.setattr(tiny, "make_tiny_model", lambda *_: pytest.fail("pretrained again"))
    result = build_base_model(loop, asset_path(loop, "pretraining_text"), silent)
    assert result.checkpoint == made
    assert model_digest(made.folder) == made.digest
    assert result.curves
    assert [path for path in base_model_cache().iterdir() if path.suffix == ".new"] == []


def test_leftovers_of_a_killed_stage_are_removed(stages, copy_of) -> None:
    loop = copy_of(stages.prepared).loop
    work = loop.root / "work"
    for leftover in ("sft/output", "sft/.output.abc123", "sft/state/state-000000007"):
        (work / leftover).mkdir(parents=True)
        (work / leftover / "model.safetensors").write_text("half")
    (work / "sft-other").mkdir()
    sft = make_sft_checkpoint(
        loop, loop.config.sft, checkpoint(loop, "base_model"), asset_path(loop, "demonstrations"), silent
    ).checkpoint
    assert sft == checkpoint(loop, "sft_checkpoint")
    assert [path.name for path in work.iterdir() if path.is_dir()] == ["sft-other"]


def test_training_the_same_again_makes_the_same_model_and_registers_it_once(stages, copy_of) -> None:
    loop = copy_of(stages.unjudged).loop
    before = sorted(path.name for path in (loop.root / "models").iterdir())
    policies, history = loop.registry.policies(), loop.registry.history()
    result = make_ppo_policy(
        loop,
        ROUND,
        loop.config.ppo,
        sft=checkpoint(loop, "sft_checkpoint"),
        behaviour_policy=loop.registry.pin(ROUND),
        reward_model=checkpoint(loop, "reward_model", ROUND),
        prompts=asset_path(loop, "prompts"),
        pretraining_text=asset_path(loop, "pretraining_text"),
        preferences=asset_path(loop, "preference_dataset", ROUND),
        progress=silent,
    )
    assert result.checkpoint == checkpoint(loop, "ppo_policy", ROUND)
    assert sorted(path.name for path in (loop.root / "models").iterdir()) == before
    assert (loop.registry.policies(), loop.registry.history()) == (policies, history)


def test_other_validation_labels_make_another_reward_model_of_the_same_weights(stages, copy_of) -> None:
    loop = copy_of(stages.unjudged).loop
    first = checkpoint(loop, "reward_model", ROUND)
    path = asset_path(loop, "preference_dataset", ROUND)
    snapshot = pd.read_parquet(path)
    fewer = snapshot.drop(snapshot.index[snapshot["split"] != "train"][:1])
    assert len(fewer) == len(snapshot) - 1
    fewer.to_parquet(path)
    sft, prompts = checkpoint(loop, "sft_checkpoint"), asset_path(loop, "prompts")
    settings = loop.config.reward_model
    other, again = (
        make_reward_model(loop, ROUND, settings, sft=sft, preferences=path, prompts=prompts, progress=silent)
        for _ in range(2)
    )
    assert folder_digest(other.checkpoint.folder) == folder_digest(first.folder)
    assert other.checkpoint.model_id != first.model_id
    assert read_manifest(other.checkpoint.folder)["dataset"] == snapshot_hash(fewer)
    assert read_manifest(first.folder)["dataset"] == snapshot_hash(snapshot)
    assert again.checkpoint == other.checkpoint


def test_demonstrations_fix_the_mean_of_scores_where_that_is_set(stages, copy_of) -> None:
    loop = copy_of(stages.unjudged).loop
    made = make_reward_model(
        loop,
        ROUND,
        loop.config.reward_model.changed(normalisation="demonstrations"),
        sft=checkpoint(loop, "sft_checkpoint"),
        preferences=asset_path(loop, "preference_dataset", ROUND),
        prompts=asset_path(loop, "prompts"),
        progress=silent,
    )
    assert made.metrics["reference_mean"] == pytest.approx(0, abs=1e-4)
    assert made.metrics["score_scale"] == 1.0
    assert read_manifest(made.checkpoint.folder)["config"]["reward_model"]["normalisation"] == "demonstrations"


@pytest.mark.parametrize(("start", "parent"), [("behaviour", "ppo-round-0001"), ("sft", "sft-")])
def test_the_second_round_starts_where_the_config_says(two_rounds, copy_of, start, parent) -> None:
    if start == "behaviour":
        loop = two_rounds.loop
    else:
        runner = copy_of(two_rounds.loop.root, ppo={"start": start})
        assert runner.run("train_round", "round-0002", ["ppo_policy"]).success
        loop = runner.loop
    manifest = read_manifest(checkpoint(loop, "ppo_policy", "round-0002").folder)
    assert manifest["parents"]["start"]["model_id"].startswith(parent)
    assert manifest["parents"]["sft_checkpoint"]["model_id"].startswith("sft-")


def test_a_base_model_from_a_folder_is_relative_to_the_config(stages, copy_of) -> None:
    made = checkpoint(copy_of(stages.prepared).loop, "base_model")
    settings = {"source": "folder", "name": made.path}
    loop = copy_of(stages.prepared, base_model=settings).loop
    result = build_base_model(loop, asset_path(loop, "pretraining_text"), silent)
    manifest = read_manifest(result.checkpoint.folder)
    assert manifest["config"]["base_model"]["name"] == made.path
    assert json.loads((result.checkpoint.folder / "config.json").read_text())["n_layer"] == 1


def test_the_start_of_a_later_round_has_its_digest_in_the_manifest(two_rounds) -> None:
    first, second = (checkpoint(two_rounds.loop, "ppo_policy", key) for key in (ROUND, "round-0002"))
    parents = read_manifest(second.folder)["parents"]
    assert parents["start"] == {"model_id": first.model_id, "digest": first.digest}
