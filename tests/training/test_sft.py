from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_language import FIXED, VARIABLE, Tables, demonstration_row, sft_spec, write

from rlhf_dagster.config.training import LoraSettings, SamplingSettings, SftSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import folder_digest, holds_adapters
from rlhf_dagster.records.schemas import DEMONSTRATIONS
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.sft.memory import sft_memory
from rlhf_dagster.training.sft.train import UNTAUGHT, Demonstrations, _collate, response_loss, train_sft
from rlhf_dagster.training.shuffled_batches import ShuffledBatches
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
        "text.parquet": "is damaged or no Parquet table",
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


def test_the_loss_is_that_of_logits_at_every_position(policy: Policy) -> None:
    rows = [demonstrations(policy, *pair, VARIABLE)[0] for pair in (("good cat .", "red"), ("bad", "red dog cat"))]
    batch = _collate(rows, policy.tokenizer.pad_token_id)
    logits = policy.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    torch.testing.assert_close(response_loss(policy.model, batch), expected)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=300), st.integers(1, 7), st.integers(0, 3))
def test_batches_of_similar_length_have_every_row_once(lengths: list[int], size: int, epoch: int) -> None:
    batches = ShuffledBatches(len(lengths), size, seed=0, lengths=lengths)
    batches.epoch = epoch
    drawn = list(batches)
    assert sorted(row for batch in drawn for row in batch) == list(range(len(lengths)))
    assert len(drawn) == len(batches)
    assert drawn == list(batches)


def test_batches_of_similar_length_are_shuffled_and_pad_less() -> None:
    lengths = [1 + index % 60 for index in range(960)]
    plain, alike = ShuffledBatches(960, 16, 0), ShuffledBatches(960, 16, 0, lengths)
    padded = [sum(16 * max(lengths[row] for row in batch) for batch in one) for one in (plain, alike)]
    assert padded[1] < 1.1 * sum(lengths) < 1.7 * sum(lengths) < padded[0]
    widths = [max(lengths[row] for row in batch) for batch in alike]
    assert widths != sorted(widths)


def test_buckets_train_on_the_same_rows_in_another_order(
    base: Path, tables: Tables, sft_result: TrainingResult, tmp_path: Path
) -> None:
    spec = sft_spec(base, tables, tmp_path / "sft")
    result = train_sft(replace(spec, settings=spec.settings.changed(length_buckets=True)))
    assert len(result.curves["loss"]) == len(sft_result.curves["loss"])
    assert result.curves["loss"] != sft_result.curves["loss"]
    assert result.metrics["train_loss"] == pytest.approx(sft_result.metrics["train_loss"], abs=0.1)


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


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4), LoraSettings(rank=4, merge=False)])
def test_without_epochs_the_checkpoint_is_the_base_model(
    base: Path, tables: Tables, sft: Path, tmp_path: Path, lora: LoraSettings | None
) -> None:
    spec, seen = sft_spec(base, tables, tmp_path / "sft"), []
    spec = replace(spec, settings=spec.settings.changed(epochs=0, lora=lora))
    result = train_sft(spec, lambda step, total, **numbers: seen.append(step))
    start, kept = load_policy(base), load_policy(result.folder)
    read = dict(start.tokenizer("good cat . red dog", return_tensors="pt"))
    assert torch.equal(kept.model(**read).logits, start.model(**read).logits)
    assert holds_adapters(result.folder) == (lora is not None and not lora.merge)
    # Sampling is that of the loop, as in any SFT checkpoint.
    assert (result.folder / "generation_config.json").is_file() or holds_adapters(result.folder)
    assert result.metrics["initial_validation_loss"] == result.metrics["validation_loss"]
    assert (seen, result.curves) == ([], {})
    assert result.warnings == [UNTAUGHT]


def test_without_epochs_no_memory_for_training_is_needed(base: Path, tables: Tables, tmp_path: Path) -> None:
    spec = sft_spec(base, tables, tmp_path / "sft")
    untaught = sft_memory(replace(spec, settings=spec.settings.changed(epochs=0)))
    assert untaught.optimizer == 0
    assert 0 < untaught.total < sft_memory(spec).total
