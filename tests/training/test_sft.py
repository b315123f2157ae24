from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from toy_language import FIXED, VARIABLE, Tables, demonstration_row, sft_spec, write

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.schemas import DEMONSTRATIONS
from rlhf_dagster.training.checkpoints import folder_digest
from rlhf_dagster.training.policies import Policy, load_policy
from rlhf_dagster.training.settings import LoraSettings, SamplingSettings, SftSettings
from rlhf_dagster.training.sft import Demonstrations, _collate, train_sft
from rlhf_dagster.training.specs import TrainingResult

SETTINGS = SftSettings(max_tokens=16)


def demonstrations(policy: Policy, prompt: str, response: str, sampling: SamplingSettings) -> Demonstrations:
    frame = pd.DataFrame([demonstration_row(0, prompt, response)])
    return Demonstrations(frame, policy.tokenizer, SETTINGS, sampling)


@pytest.mark.parametrize(
    ("response", "sampling", "expected"),
    [
        ("red dog", FIXED, "red dog <eos>"),
        ("red dog red dog red dog", FIXED, "red dog red dog red"),
        ("red dog red dog red dog", VARIABLE, "red dog red dog red dog <eos>"),
    ],
)
def test_a_response_ends_with_the_end_token_unless_it_is_cut(
    policy: Policy, response: str, sampling: SamplingSettings, expected: str
) -> None:
    row = demonstrations(policy, "good cat .", response, sampling)[0]
    assert policy.tokenizer.decode(row.response) == expected
    assert policy.tokenizer.decode(row.prompt) == "good cat ."


def test_prompt_and_padding_are_out_of_the_loss(policy: Policy) -> None:
    rows = [demonstrations(policy, *pair, VARIABLE)[0] for pair in (("good cat .", "red"), ("bad", "red dog"))]
    batch = _collate(rows, policy.tokenizer.pad_token_id)
    red, dog, end = policy.tokenizer.convert_tokens_to_ids(["red", "dog", "<eos>"])
    assert batch["labels"].tolist() == [[-100, -100, -100, red, end], [-100, red, dog, end, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]


def test_it_learns_the_demonstrations(base: Path, tables: Tables, tmp_path: Path) -> None:
    rows = [demonstration_row(i, f"{word} .", "dog dog") for i, word in enumerate(["red", "green", "blue"] * 30)]
    path = write(tmp_path, "demonstrations", rows, DEMONSTRATIONS)
    spec = sft_spec(base, Tables(tables.text, tables.prompts, path, tables.preferences), tmp_path / "sft", VARIABLE)
    changed = spec.settings.changed(epochs=8, learning_rate=1e-2)
    result = train_sft(type(spec)(spec.model, path, spec.output, changed, VARIABLE, 3, spec.compute))
    assert result.metrics["validation_loss"] < 0.3 < result.metrics["initial_validation_loss"]
    assert len(result.curves["loss"]) == 40


def test_the_result_says_what_was_measured(sft_result: TrainingResult) -> None:
    assert {"train_loss", "initial_validation_loss", "validation_loss"} <= sft_result.metrics.keys()
    assert sft_result.metrics["demonstrations"] + sft_result.metrics["validation_demonstrations"] == 80


def test_the_same_seed_makes_the_same_weights(base: Path, tables: Tables, sft: Path, tmp_path: Path) -> None:
    again = train_sft(sft_spec(base, tables, tmp_path / "again")).folder
    assert folder_digest(again) == folder_digest(sft) != folder_digest(base)


def test_progress_counts_every_step(base: Path, tables: Tables, tmp_path: Path) -> None:
    seen: list[tuple[int, int, list[str]]] = []
    train_sft(sft_spec(base, tables, tmp_path / "m"), lambda step, total, **n: seen.append((step, total, list(n))))
    assert seen == [(step, 5, ["loss"]) for step in range(1, 6)]


def test_bad_input_is_a_user_error(base: Path, tables: Tables, tmp_path: Path) -> None:
    spec = sft_spec(base, tables, tmp_path / "sft")
    frame = pq.read_table(tables.demonstrations).to_pandas()
    frame[frame["split"] == "validation"].to_parquet(tmp_path / "no_train.parquet")
    frame.drop(columns="prompt").to_parquet(tmp_path / "no_prompt.parquet")
    (tmp_path / "text.parquet").write_text("not a table")
    cases = {
        "missing.parquet": "no such table",
        "no_train.parquet": "no row of split 'train'",
        "no_prompt.parquet": "column 'prompt' is missing",
        "text.parquet": "not a readable Parquet table",
    }
    for name, problem in cases.items():
        with pytest.raises(UserError, match=problem):
            train_sft(type(spec)(base, tmp_path / name, spec.output, spec.settings, FIXED))
    for settings in (spec.settings.changed(max_tokens=6), spec.settings.changed(max_tokens=25)):
        with pytest.raises(UserError, match=r"sft\.max_tokens"):
            train_sft(type(spec)(base, tables.demonstrations, spec.output, settings, FIXED))
    assert not spec.output.exists()


def test_the_checkpoint_is_on_disk_as_trained(sft: Path) -> None:
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in sft.iterdir()
    }
    assert load_policy(sft).model.config.vocab_size == len(load_policy(sft).tokenizer)


def test_adapters_are_merged_into_a_plain_checkpoint(base: Path, tables: Tables, sft: Path, tmp_path: Path) -> None:
    spec = sft_spec(base, tables, tmp_path / "sft")
    result = train_sft(replace(spec, settings=spec.settings.changed(lora=LoraSettings(rank=4), learning_rate=2e-2)))
    assert result.metrics["validation_loss"] < result.metrics["initial_validation_loss"]
    assert {file.name for file in result.folder.iterdir()} == {file.name for file in sft.iterdir()}
    trained, start = load_policy(result.folder).model.state_dict(), load_policy(base).model.state_dict()
    assert trained.keys() == start.keys()
    # What has no adapter stays as it was; what has one is changed.
    assert torch.equal(trained["transformer.wte.weight"], start["transformer.wte.weight"])
    assert not torch.equal(trained["transformer.h.0.mlp.c_fc.weight"], start["transformer.h.0.mlp.c_fc.weight"])
