"""Another base model or tokenizer in mid-loop is refused."""

import json
import shutil
from pathlib import Path

import pytest
from loops import ROUND, SMALL, checkpoint, open_runner, write_loop

from rlhf_dagster.common.sealed import seal
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.manifest import MANIFEST, read_manifest
from rlhf_dagster.lineage.model_folders import tokenizer_digest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.foundations import require_base_of, require_one_tokenizer
from rlhf_dagster.loop.sampling import sample_evaluation


def with_tokenizer(loop: LoopFolder, model: Checkpoint, changes: dict[str, object]) -> Checkpoint:
    """A kept copy of a model with another `tokenizer.json`."""
    folder = loop.models.work_folder("other")
    shutil.copytree(model.folder, folder)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    kept = loop.models.identify(folder, "sft")
    loop.models.keep(folder, kept)
    return kept


def swapped(model: Checkpoint) -> dict[str, object]:
    """Its tokenizer with two words that have changed places."""
    content = json.loads((model.folder / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    first, second = sorted(words)[-2:]
    return {"model": content["model"] | {"vocab": words | {first: words[second], second: words[first]}}}


def test_models_of_one_loop_have_one_tokenizer(finished) -> None:
    loop = finished.loop
    models = [checkpoint(loop, "sft_checkpoint")]
    models += [checkpoint(loop, asset, ROUND) for asset in ("reward_model", "ppo_policy")]
    require_one_tokenizer(*models)
    assert len({tokenizer_digest(model.folder) for model in models}) == 1


def test_how_a_batch_was_padded_last_is_no_part_of_a_tokenizer(finished, copy_of) -> None:
    loop = copy_of(finished.loop.root).loop
    sft = checkpoint(loop, "sft_checkpoint")
    require_one_tokenizer(sft, with_tokenizer(loop, sft, {"padding": {"length": 7}}))


def test_another_tokenizer_in_mid_loop_is_refused(finished, copy_of) -> None:
    loop = copy_of(finished.loop.root).loop
    policy = checkpoint(loop, "ppo_policy", ROUND)
    other = with_tokenizer(loop, policy, swapped(policy))
    manifest = {"round": ROUND, "behaviour_policy": policy.model_id, "checkpoint": policy.path}
    sentence = f"{other.model_id} and {policy.model_id} have different tokenizers, .* begin a new loop"
    with pytest.raises(UserError, match=sentence):
        sample_evaluation(loop, manifest, policy, other, loop.table("prompts"))


def other_base(root: Path) -> dict[str, object]:
    return {"tiny": SMALL["base_model"]["tiny"] | {"width": 16}}


def test_another_base_model_in_mid_loop_is_refused(finished, copy_of) -> None:
    runner = copy_of(finished.loop.root)
    before = runner.loop.json("base_model")
    runner = open_runner(write_loop(runner.loop.root, base_model=other_base(runner.loop.root)))
    outcome = runner.run("prepare", None, ["base_model", "sft_checkpoint"])
    assert (outcome.success, outcome.failed_asset) == (False, "base_model")
    champion = checkpoint(runner.loop, "ppo_policy", ROUND).model_id
    assert outcome.failure.startswith(f"{champion}, the champion, was trained from {before['model_id']}, and")
    assert "begin a new loop in another folder" in outcome.failure
    assert runner.loop.json("base_model") == before


def test_before_a_round_is_promoted_another_base_model_may_come(stages, copy_of) -> None:
    runner = copy_of(stages.prepared, base_model=other_base(stages.prepared))
    assert runner.run("prepare", None, ["base_model", "sft_checkpoint"]).success
    require_base_of(runner.loop, checkpoint(runner.loop, "sft_checkpoint"))


def test_an_sft_checkpoint_of_another_base_model_is_refused(finished, copy_of) -> None:
    loop = copy_of(finished.loop.root).loop
    sft = checkpoint(loop, "sft_checkpoint")
    folder = loop.models.work_folder("other")
    shutil.copytree(sft.folder, folder)
    manifest = read_manifest(folder)
    manifest["parents"]["base_model"] = {"model_id": "base-other", "digest": "other"}
    (folder / MANIFEST).write_bytes(seal(manifest))
    other = loop.models.identify(folder, "sft")
    loop.models.keep(folder, other)
    require_base_of(loop, sft)
    with pytest.raises(UserError, match="and `base_model` gives base-other now"):
        require_base_of(loop, other)
