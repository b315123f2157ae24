"""What a loop's folder answers, and what it says where an answer is missing, damaged, or from version 0.1."""

import json
import uuid
from pathlib import Path

import pandas as pd
import pytest
from kept_models import loop_of_policies
from loops import ROUND, asset_path, checkpoint, read_record, write_loop, write_record

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.models import model_digest
from rlhf_dagster.loop.folder import LoopFolder


@pytest.fixture
def empty(tmp_path) -> LoopFolder:
    return LoopFolder.open(write_loop(tmp_path / "loop"))


def write_json(loop: LoopFolder, asset: str, key: str, content: object) -> None:
    path = asset_path(loop, asset, key, "json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_what_is_not_made_is_none(empty) -> None:
    assert empty.json("eval_report", ROUND) is None
    assert empty.checkpoint("sft_checkpoint") is None
    assert empty.table("prompts") is None
    assert empty.decision(ROUND) is None
    assert empty.rounds_with("preference_labels") == []


def test_a_damaged_file_is_named_with_what_makes_it_again(empty) -> None:
    write_json(empty, "promotion", ROUND, '{"promoted": tr')
    with pytest.raises(
        UserError, match=f"assets/promotion/{ROUND}.json is damaged: .*; run promotion of {ROUND} again"
    ):
        empty.json("promotion", ROUND)
    write_json(empty, "sft_checkpoint", "", "")
    with pytest.raises(UserError, match=r"assets/sft_checkpoint.json is damaged: .*; run sft_checkpoint again\."):
        empty.checkpoint("sft_checkpoint")


def test_a_decision_on_an_earlier_policy_of_the_round_is_none(empty) -> None:
    write_json(empty, "promotion", ROUND, {"policy": "first", "promoted": False})
    assert empty.decision(ROUND)["policy"] == "first"
    write_json(empty, "eval_report", ROUND, {"policy_id": "second"})
    assert empty.decision(ROUND) is None
    write_json(empty, "eval_report", ROUND, {"policy_id": "first"})
    assert empty.decision(ROUND)["policy"] == "first"


def test_rounds_are_those_with_the_asset_and_without_what_lies_beside_it(empty) -> None:
    for key in ("round-0003", "round-0001", "round-0002"):
        write_json(empty, "eval_report", key, {})
        asset_path(empty, "eval_report", key, "html").write_text("<p>")
    asset_path(empty, "eval_report", ".round-0009", "json").write_text("half")
    assert empty.rounds_with("eval_report") == ["round-0001", "round-0002", "round-0003"]
    assert empty.rounds_with("eval_report", up_to="round-0002") == ["round-0001", "round-0002"]
    assert empty.rounds_with("eval_report", before="round-0002") == ["round-0001"]


def test_a_loop_of_data_of_its_own_has_no_task_and_no_simulated_annotators(tmp_path) -> None:
    settings = {"data": {"source": "imports"}, "label_store": {"simulated_annotators": False}}
    loop = LoopFolder.open(write_loop(tmp_path / "loop", **settings))
    with pytest.raises(UserError, match="no task"):
        loop.annotators()


def test_a_policy_s_checkpoint_is_whole(finished) -> None:
    loop = finished.loop
    policy = checkpoint(loop, "ppo_policy", ROUND)
    assert loop.policy(policy.model_id) == policy
    assert loop.registry.get(policy.model_id).digest == policy.digest == model_digest(policy.folder)


def test_a_policy_registered_by_version_0_1_has_its_digest_computed_and_registers_again(finished, copy_of) -> None:
    loop = copy_of(finished.loop.root).loop
    policy = checkpoint(loop, "ppo_policy", ROUND)
    file = loop.root / "registry" / "policies" / f"{policy.model_id}.json"
    record = read_record(file)
    del record["digest"]
    write_record(file, record)
    assert loop.policy(policy.model_id) == policy
    parents = record["parents"]
    again = loop.registry.register(policy.model_id, policy.path, "ppo", ROUND, parents, policy.digest)
    assert again.policy_id == policy.model_id
    with pytest.raises(UserError, match="already registered differently"):
        loop.registry.register(policy.model_id, "models/other", "ppo", ROUND, parents, policy.digest)


def test_two_digests_under_one_id_are_refused(empty) -> None:
    empty.registry.register("p", "models/p", "ppo", ROUND, [], "one")
    with pytest.raises(UserError, match="already registered differently"):
        empty.registry.register("p", "models/p", "ppo", ROUND, [], "two")


def test_columns_of_a_table(finished) -> None:
    batch = finished.loop.table("preference_batch", ROUND, ["comparison_id"])
    assert isinstance(batch, pd.DataFrame)
    assert batch.columns.tolist() == ["comparison_id"]


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_model_that_is_gone_is_said_with_the_ways_back(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = loop_of_policies(
        tmp_path / "loop", **({"root": f"memory://{uuid.uuid4().hex}"} if place == "bucket" else {})
    )
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "cache"))
    sft = loop.checkpoint("sft_checkpoint")
    assert sft is not None
    loop.store.delete(sft.path)
    with pytest.raises(UserError, match=f"the model {sft.model_id} is gone; restore it from a backup, or make it"):
        _ = sft.folder
