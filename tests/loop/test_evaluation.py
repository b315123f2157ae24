"""What training noticed is said where the policy is judged."""

import pandas as pd
from loops import ROUND, asset_path, checkpoint, read_record, write_record

from rlhf_dagster.evaluation.held_out_text import held_out_documents
from rlhf_dagster.loop.candidate import round_candidate
from rlhf_dagster.loop.evaluation import evaluate_round

ALARM = "KL was negative for 20 updates."


def test_an_alarm_of_the_training_is_in_the_report_and_on_its_page(finished, copy_of) -> None:
    loop = copy_of(finished.loop.root).loop
    policy = checkpoint(loop, "ppo_policy", ROUND)
    path = policy.folder / "manifest.json"
    write_record(path, read_record(path) | {"warnings": [ALARM]})

    def read(asset: str) -> dict:
        return read_record(asset_path(loop, asset, ROUND, "json"))

    report, page = evaluate_round(
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
    assert ALARM in report["warnings"]
    assert ALARM in page
    assert "warnings" in read_record(checkpoint(loop, "sft_checkpoint").folder / "manifest.json")
