import pandas as pd
import pytest
from loops import ROUND, asset_path, checkpoint

from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.sampling import pin_round, sample_completions, sample_evaluation
from rlhf_dagster.records.round_keys import IMPORT_ROUND


def test_a_rounds_pin_survives_a_later_promotion(two_rounds) -> None:
    loop = two_rounds.loop
    first, second = pin_round(loop, ROUND), pin_round(loop, "round-0002")
    assert first["behaviour_policy"].startswith("sft-")
    assert second["behaviour_policy"].startswith("ppo-round-0001-")
    assert loop.registry.champion().policy_id.startswith("ppo-round-0002-")
    assert (loop.root / second["checkpoint"] / "config.json").is_file()


def test_completions_are_of_training_prompts_by_the_pinned_policy(finished) -> None:
    loop = finished.loop
    completions = pd.read_parquet(asset_path(loop, "completions", ROUND))
    prompts = pd.read_parquet(asset_path(loop, "prompts")).set_index("prompt_id")
    assert set(prompts.loc[completions["prompt_id"], "split"]) == {"train"}
    assert (prompts.loc[completions["prompt_id"], "text"].to_numpy() == completions["prompt"]).all()
    assert set(completions["policy_id"]) == {pin_round(loop, ROUND)["behaviour_policy"]}
    assert completions["completion_id"].is_unique
    # 40 comparisons and 5% to spare, of 4 samples each.
    assert completions.groupby("prompt_id").size().tolist() == [4] * 42
    assert {len(tokens) for tokens in completions["token_ids"]} == {loop.config.sampling.response_tokens}
    assert all(value <= 0 for row in completions["log_probs"] for value in row)


def test_sampling_again_gives_the_same_and_another_round_other_prompts(finished) -> None:
    loop = finished.loop
    prompts = pd.read_parquet(asset_path(loop, "prompts"))
    kept = pd.read_parquet(asset_path(loop, "completions", ROUND))
    again = sample_completions(loop, pin_round(loop, ROUND), prompts.sample(frac=1, random_state=1))
    pd.testing.assert_series_equal(again["text"], kept["text"])
    assert again["completion_id"].tolist() == kept["completion_id"].tolist()
    other = sample_completions(loop, pin_round(loop, ROUND) | {"round": "round-0007"}, prompts)
    assert set(other["prompt_id"]) != set(kept["prompt_id"])


def test_few_prompts_give_more_samples_each(finished) -> None:
    prompts = pd.read_parquet(asset_path(finished.loop, "prompts"))
    few = prompts[prompts["split"] == "train"].head(15)
    told: list[tuple[int, int]] = []
    pinned = pin_round(finished.loop, ROUND)
    completions = sample_completions(finished.loop, pinned, few, progress=lambda *step: told.append(step))
    assert completions.groupby("prompt_id").size().tolist() == [12] * 15  # 3 comparisons of 4 on each of 15
    assert told[-1] == (180, 180)
    assert told[0][0] == min(180, finished.loop.config.sampling.batch_size)


def test_evaluation_is_on_test_prompts_with_every_role_answering_each(two_rounds) -> None:
    loop = two_rounds.loop
    frame = pd.read_parquet(asset_path(loop, "evaluation_completions", "round-0002"))
    prompts = pd.read_parquet(asset_path(loop, "prompts")).set_index("prompt_id")
    assert set(prompts.loc[frame["prompt_id"], "split"]) == {"test"}
    assert frame.groupby("role")["prompt_id"].nunique().to_dict() == {"behaviour": 24, "policy": 24, "sft": 24}
    assert frame.groupby("role")["policy_id"].first().str.slice(0, 14).to_dict() == {
        "behaviour": "ppo-round-0001",
        "policy": "ppo-round-0002",
        "sft": f"{checkpoint(loop, 'sft_checkpoint').model_id}"[:14],
    }
    sft = frame[frame["role"] == "sft"]
    for own, reference in zip(sft["log_probs"], sft["reference_log_probs"], strict=True):
        assert own == pytest.approx(reference, abs=1e-4)


def test_in_the_first_round_sft_is_the_behaviour_policy(finished) -> None:
    frame = pd.read_parquet(asset_path(finished.loop, "evaluation_completions", ROUND))
    sft, behaviour = (frame[frame["role"] == role].reset_index() for role in ("sft", "behaviour"))
    assert sft["completion_id"].tolist() == behaviour["completion_id"].tolist()


@pytest.mark.parametrize(
    ("missing", "sentence"), [("train", "No prompt is in the train split"), ("test", "so nothing can be measured")]
)
def test_a_split_without_prompts_is_one_sentence(finished, missing, sentence) -> None:
    loop = finished.loop
    prompts = pd.read_parquet(asset_path(loop, "prompts"))
    prompts = prompts[prompts["split"] != missing]
    models = checkpoint(loop, "ppo_policy", ROUND), checkpoint(loop, "sft_checkpoint")
    with pytest.raises(UserError, match=sentence):
        sample_completions(loop, pin_round(loop, ROUND), prompts)
        sample_evaluation(loop, pin_round(loop, ROUND), *models, prompts)


def test_the_import_round_without_imports_is_one_sentence(finished) -> None:
    manifest = pin_round(finished.loop, IMPORT_ROUND)
    assert manifest["behaviour_policy"] == "imported"
    with pytest.raises(UserError, match="there are none; run `rlhf import judgments FILE"):
        sample_completions(finished.loop, manifest, pd.DataFrame())
