"""What training noticed is said where the policy is judged."""

import pandas as pd
from loops import ROUND, asset_path, checkpoint, read_record, write_record

from rlhf_dagster.evaluation.held_out_text import held_out_documents
from rlhf_dagster.loop import evaluation
from rlhf_dagster.loop.candidate import round_candidate
from rlhf_dagster.loop.evaluation import evaluate_round, label_accuracy, scores_of_compared
from rlhf_dagster.pages.markdown import as_text
from rlhf_dagster.training.reward import scores

ALARM = "KL was negative for 20 updates."


def test_an_alarm_of_the_training_is_in_the_report_and_on_its_page(finished, copy_of) -> None:
    loop = copy_of(finished.loop.root).loop
    policy = checkpoint(loop, "ppo_policy", ROUND)
    path = policy.folder / "manifest.json"
    write_record(path, read_record(path) | {"warnings": [ALARM]})

    def read(asset: str) -> dict:
        return read_record(asset_path(loop, asset, ROUND, "json"))

    evaluated = evaluate_round(
        loop,
        read("round_manifest"),
        pd.read_parquet(asset_path(loop, "evaluation_completions", ROUND)),
        checkpoint(loop, "reward_model", ROUND),
        round_candidate(loop, ROUND),
        read("reward_model_accuracy"),
        read("label_quality"),
        sft=checkpoint(loop, "sft_checkpoint"),
        held_out=held_out_documents(
            *(pd.read_parquet(asset_path(loop, name)) for name in ("pretraining_text", "demonstrations"))
        ),
        halves=read("reward_model_halves"),
    )
    assert ALARM in evaluated.report["warnings"]
    assert ALARM in evaluated.page
    assert f"- {as_text(ALARM)}" in evaluated.markdown
    assert "warnings" in read_record(checkpoint(loop, "sft_checkpoint").folder / "manifest.json")


def test_each_response_is_scored_once_and_of_the_train_split_the_beginning(finished, monkeypatch) -> None:
    preferences = pd.read_parquet(asset_path(finished.loop, "preference_dataset", ROUND))
    again = preferences.assign(label_id=preferences["label_id"] + "-again")
    both = pd.concat([preferences, again], ignore_index=True)
    model, config = checkpoint(finished.loop, "reward_model", ROUND).folder, finished.loop.config
    scored: list[int] = []
    plain = scores.score_responses

    def counting(model, prompts, texts, *rest):
        scored.append(len(texts))
        return plain(model, prompts, texts, *rest)

    monkeypatch.setattr(scores, "score_responses", counting)
    once, twice = (scores_of_compared(model, one, config.sampling, config.compute) for one in (preferences, both))
    assert twice == [*once, *once]
    distinct = preferences.drop_duplicates("comparison_id")["responses"].map(len).sum()
    assert scored == [distinct, distinct]
    monkeypatch.setattr(evaluation, "MEASURED_TRAIN_COMPARISONS", 3)
    figures = label_accuracy(model, preferences, config.sampling, config.compute, 1.0)
    assert figures["splits"]["train"]["comparisons"] <= 3
    held_out = preferences[preferences["split"] != "train"]
    assert figures["unseen"]["labels"] + figures["unseen"]["tied"] == len(held_out)
