"""Adapters that stay adapters: every stage from and to them, on one plain model."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from toy_language import COMPUTE, FIXED, Tables, dpo_spec, reward_spec, sft_spec
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from typer.testing import CliRunner

from rlhf_dagster.cli.app import app
from rlhf_dagster.config.training import LoraSettings, PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.adapter_folders import adapter_base, write_base
from rlhf_dagster.lineage.manifest import write_manifest
from rlhf_dagster.lineage.model_folders import folder_digest, holds_adapters, require_checkpoint
from rlhf_dagster.lineage.models import Checkpoint, ModelStore
from rlhf_dagster.storage.base import Store
from rlhf_dagster.storage.known import open_store
from rlhf_dagster.training.dpo.train import train_dpo
from rlhf_dagster.training.input_sizes import parameters_of, shape_of
from rlhf_dagster.training.models.policies import load_policy, load_tokenizer
from rlhf_dagster.training.ppo.opening.setup import prepare_ppo
from rlhf_dagster.training.ppo.train import train_ppo
from rlhf_dagster.training.reward.scores import score_responses
from rlhf_dagster.training.reward.train import train_reward_model
from rlhf_dagster.training.sampling.sample import response_log_probs, sample
from rlhf_dagster.training.scorers.merging import merge_folder
from rlhf_dagster.training.sft.train import train_sft
from rlhf_dagster.training.specs import PpoSpec, TrainingResult

MERGED = LoraSettings(rank=4)
STAY = MERGED.changed(merge=False)
IDS = torch.tensor([[5, 6, 7, 8, 6]])
SHORT = PpoSettings(updates=3, batch_size=16, learning_rate=3e-3, lora=STAY)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """A folder with the base model, as a loop has it."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(base, folder / "base")
    return folder


@pytest.fixture(scope="module")
def sft_adapters(models: Path, tables: Tables) -> TrainingResult:
    spec = sft_spec(models / "base", tables, models / "sft")
    return train_sft(replace(spec, settings=spec.settings.changed(lora=STAY)))


@pytest.fixture(scope="module")
def reward_adapters(models: Path, tables: Tables, sft_adapters: TrainingResult) -> TrainingResult:
    spec = reward_spec(sft_adapters.folder, tables, models / "reward")
    return train_reward_model(replace(spec, settings=spec.settings.changed(lora=STAY)))


def ppo_spec(models: Path, tables: Tables, output: Path, settings: PpoSettings = SHORT) -> PpoSpec:
    sft, reward = models / "sft", models / "reward"
    return PpoSpec(sft, sft, reward, tables.prompts, None, output, settings, FIXED, seed=1, compute=COMPUTE)


@pytest.fixture(scope="module")
def ppo_adapters(models: Path, tables: Tables, reward_adapters: TrainingResult) -> TrainingResult:
    return train_ppo(ppo_spec(models, tables, models / "ppo", SHORT.changed(value="separate")))


def test_sft_learns_what_it_learns_where_adapters_are_merged(
    models: Path, tables: Tables, sft_adapters: TrainingResult, tmp_path: Path
) -> None:
    spec = sft_spec(models / "base", tables, tmp_path / "merged")
    merged = train_sft(replace(spec, settings=spec.settings.changed(lora=MERGED)))
    assert sft_adapters.curves == merged.curves
    ours, plain = load_policy(sft_adapters.folder).model, load_policy(merged.folder).model
    torch.testing.assert_close(ours(IDS).logits, plain(IDS).logits, atol=1e-4, rtol=0)
    base = load_policy(models / "base").model
    assert not torch.allclose(ours(IDS).logits, base(IDS).logits, atol=1e-3)


def test_the_folder_has_no_plain_weights_and_peft_opens_it(models: Path, sft_adapters: TrainingResult) -> None:
    names = {path.name for path in sft_adapters.folder.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "base.json", "config.json"} <= names
    assert not any(name.startswith("model") for name in names)
    foreign = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(models / "base"), sft_adapters.folder)
    ours = load_policy(sft_adapters.folder).model
    torch.testing.assert_close(foreign.eval()(IDS).logits, ours(IDS).logits)


def test_the_same_training_gives_the_same_bytes(
    models: Path, tables: Tables, sft_adapters: TrainingResult, tmp_path: Path
) -> None:
    spec = sft_spec(models / "base", tables, tmp_path / "again")
    again = train_sft(replace(spec, settings=spec.settings.changed(lora=STAY)))
    assert folder_digest(again.folder) == folder_digest(sft_adapters.folder)


def test_the_chain_is_flat(models: Path, reward_adapters: TrainingResult, ppo_adapters: TrainingResult) -> None:
    digest = folder_digest(models / "base")
    folders = [models / "sft", reward_adapters.folder, ppo_adapters.folder, ppo_adapters.folder / "value_model"]
    assert {(adapter_base(folder).name, adapter_base(folder).digest) for folder in folders} == {("base", digest)}


def test_a_reward_model_begins_as_sft_and_scores(
    models: Path, tables: Tables, reward_adapters: TrainingResult, tmp_path: Path
) -> None:
    assert reward_adapters.metrics["reference_mean"] == pytest.approx(0, abs=1e-4)
    assert reward_adapters.metrics["accuracy_validation"] > 0.7
    scores = score_responses(reward_adapters.folder, ["red dog ."] * 2, ["good good", "bad bad"], FIXED)
    assert scores[0] > scores[1]


def test_ppo_starts_as_its_reference_and_moves(ppo_adapters: TrainingResult) -> None:
    assert ppo_adapters.curves["kl"][0] == pytest.approx(0, abs=1e-4)
    assert ppo_adapters.curves["ratio_first"] == pytest.approx([1.0] * 3, abs=1e-4)
    assert abs(ppo_adapters.curves["kl"][-1]) > 1e-4


def test_a_later_round_goes_on_from_policy_and_value_model(
    models: Path, tables: Tables, ppo_adapters: TrainingResult, tmp_path: Path
) -> None:
    spec = replace(
        ppo_spec(models, tables, tmp_path / "next", SHORT.changed(value="separate")), start=ppo_adapters.folder
    )
    setup = prepare_ppo(spec)
    saved, own = load_policy(ppo_adapters.folder).model, setup.policy.model
    torch.testing.assert_close(own(IDS).logits, saved(IDS).logits)
    assert train_ppo(spec).curves["kl"][0] > 1e-4


def test_everything_of_ppo_is_on_one_set_of_weights(
    models: Path, tables: Tables, reward_adapters: TrainingResult, tmp_path: Path
) -> None:
    setup = prepare_ppo(ppo_spec(models, tables, tmp_path / "ppo", SHORT.changed(value="separate")))
    tensors = {tensor for part in parts_of(setup) for tensor in part.parameters()}
    plain = AutoModelForCausalLM.from_pretrained(models / "base").num_parameters()
    adapters = sum(tensor.numel() for tensor in tensors if tensor.shape[0] in (1, 4) or tensor.shape[-1] == 4)
    assert sum(tensor.numel() for tensor in tensors) - adapters == plain
    trained = [tensor for tensor in tensors if tensor.requires_grad]
    assert {id(tensor) for tensor in trained} == {id(tensor) for tensor in setup.policy.trained().values()}


def parts_of(setup) -> list[torch.nn.Module]:
    scored = setup.episodes.score.__closure__
    models = [cell.cell_contents for cell in scored if isinstance(cell.cell_contents, torch.nn.Module)]
    return [setup.policy, setup.episodes.reference, *models]


def test_dpo_from_adapters_and_from_a_plain_model(models: Path, tables: Tables, sft: Path, tmp_path: Path) -> None:
    spec = dpo_spec(models / "sft", tables, tmp_path / "dpo")
    result = train_dpo(replace(spec, settings=spec.settings.changed(lora=STAY, epochs=1)))
    assert result.curves["loss"][0] == pytest.approx(0.6931, abs=1e-3)
    assert result.metrics["accuracy_train"] > 0.6
    assert adapter_base(result.folder).name == "base"
    plain = replace(dpo_spec(sft, tables, tmp_path / "plain"), settings=spec.settings.changed(lora=STAY, epochs=1))
    assert adapter_base(train_dpo(plain).folder).name == sft.name


def test_they_are_merged_by_a_later_stage_that_merges(models: Path, tables: Tables, tmp_path: Path) -> None:
    spec = dpo_spec(models / "sft", tables, tmp_path / "merged")
    result = train_dpo(replace(spec, settings=spec.settings.changed(lora=MERGED, epochs=1)))
    AutoModelForCausalLM.from_pretrained(result.folder)
    stay = replace(spec, settings=spec.settings.changed(lora=STAY, epochs=1), output=tmp_path / "stay")
    ours = load_policy(train_dpo(stay).folder).model
    torch.testing.assert_close(load_policy(result.folder).model(IDS).logits, ours(IDS).logits, atol=1e-4, rtol=0)


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "the base is gone": (lambda models: shutil.rmtree(models / "base"), "neither beside it nor where"),
    "another base": (lambda models: edit(models / "base/config.json"), "is not that model as it was"),
    "half of the adapters": (lambda models: halve(models / "sft/adapter_model.safetensors"), "cannot be opened"),
    "no json": (lambda models: (models / "sft/base.json").write_text("{"), "not valid JSON"),
    "a larger rank": (lambda models: larger_rank(models / "sft/adapter_config.json"), "another shape"),
}


def edit(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"note": 1}))


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def larger_rank(file: Path) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | {"r": 5}))


@pytest.mark.parametrize("name", WRONG)
def test_what_is_damaged_is_one_sentence(name: str, models: Path, sft_adapters: TrainingResult, tmp_path: Path) -> None:
    damage, said = WRONG[name]
    copied = tmp_path / "models"
    shutil.copytree(models, copied)
    (copied / "sft/base_folder.json").unlink()
    load_policy(copied / "sft")
    damage(copied)
    with pytest.raises(UserError, match=said):
        load_policy(copied / "sft")


def test_the_base_is_found_where_it_was(models: Path, sft_adapters: TrainingResult, tmp_path: Path) -> None:
    shutil.copytree(sft_adapters.folder, tmp_path / "elsewhere")
    load_policy(tmp_path / "elsewhere")
    assert folder_digest(tmp_path / "elsewhere") == folder_digest(sft_adapters.folder)
    (tmp_path / "elsewhere/base_folder.json").unlink()
    assert folder_digest(tmp_path / "elsewhere") == folder_digest(sft_adapters.folder)
    with pytest.raises(UserError, match="neither beside it"):
        load_policy(tmp_path / "elsewhere")


REFUSED = {
    "rank": (STAY.changed(rank=2), r"have the rank 4 and `lora\.rank` is 2"),
    "alpha": (STAY.changed(alpha=1.0), r"have the alpha 16 and `lora\.alpha` is 1"),
    "targets": (STAY.changed(targets=["c_attn"]), r"have the targets null and `lora\.targets` is c_attn"),
    "all weights": (None, "train all weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_adapters_are_refused(
    name: str, models: Path, tables: Tables, reward_adapters: TrainingResult, tmp_path: Path
) -> None:
    lora, said = REFUSED[name]
    with pytest.raises(UserError, match=said):
        train_ppo(ppo_spec(models, tables, tmp_path / "ppo", SHORT.changed(lora=lora)))
    spec = dpo_spec(models / "sft", tables, tmp_path / "dpo")
    with pytest.raises(UserError, match=said):
        train_dpo(replace(spec, settings=spec.settings.changed(lora=lora)))
    spec = reward_spec(models / "sft", tables, tmp_path / "reward")
    with pytest.raises(UserError, match=said):
        train_reward_model(replace(spec, settings=spec.settings.changed(lora=lora)))


def test_merged_by_hand_it_is_the_same_policy_values_and_all(
    models: Path, ppo_adapters: TrainingResult, reward_adapters: TrainingResult, tmp_path: Path
) -> None:
    ours = load_policy(ppo_adapters.folder).model(IDS).logits
    assert merge_folder(ppo_adapters.folder, tmp_path / "ppo") == "GPT2LMHeadModel"
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "ppo")
    torch.testing.assert_close(plain(IDS).logits, ours, atol=1e-4, rtol=0)
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "ppo/value_model")
    merge_folder(reward_adapters.folder, tmp_path / "reward")
    asked = (["red dog ."] * 2, ["good good", "bad bad"], FIXED)
    theirs = score_responses(tmp_path / "reward", *asked)
    assert theirs == pytest.approx(score_responses(reward_adapters.folder, *asked), abs=1e-4)
    for wrong, said in ((models / "base", "no adapters of ours"), (ppo_adapters.folder, "is there already")):
        with pytest.raises(UserError, match=said):
            merge_folder(wrong, tmp_path / "ppo")


def test_what_is_read_without_torch_knows_them(models: Path, sft_adapters: TrainingResult) -> None:
    assert parameters_of(sft_adapters.folder) == parameters_of(models / "base") > 0
    assert shape_of(sft_adapters.folder) == shape_of(models / "base")
    with pytest.raises(UserError, match="rlhf merge"):
        require_checkpoint(sft_adapters.folder)


def test_check_model_opens_them(sft_adapters: TrainingResult) -> None:
    result = CliRunner().invoke(app, ["check-model", str(sft_adapters.folder)])
    assert result.exit_code == 0, result.output
    assert "on base; trainings go on with them" in result.output


def test_a_model_without_a_padding_row_gets_one_that_is_nobody_s(tables: Tables, tmp_path: Path, base: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), load_tokenizer(base)
    tokenizer.pad_token = tokenizer.eos_token
    model.save_pretrained(tmp_path / "unpadded")
    tokenizer.save_pretrained(tmp_path / "unpadded")
    spec = sft_spec(tmp_path / "unpadded", tables, tmp_path / "sft")
    result = train_sft(replace(spec, settings=spec.settings.changed(lora=STAY)))
    opened, rows = load_policy(result.folder), model.config.vocab_size
    assert len(opened.model.get_input_embeddings().weight) == opened.tokenizer.pad_token_id + 1 > rows
    merged = train_sft(replace(spec, settings=spec.settings.changed(lora=MERGED), output=tmp_path / "merged"))
    there = load_policy(merged.folder).model(IDS).logits[..., :rows]
    torch.testing.assert_close(opened.model(IDS).logits[..., :rows], there, atol=1e-4, rtol=0)


def test_a_loop_s_store_keeps_them_with_their_base(
    models: Path, sft_adapters: TrainingResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHF_CACHE", str(tmp_path / "cache"))
    store = open_store("memory://adapters")
    kept = [keep(store, folder, tmp_path) for folder in (models / "base", sft_adapters.folder)]
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    torch.testing.assert_close(
        load_policy(kept[1].folder).model(IDS).logits, load_policy(sft_adapters.folder).model(IDS).logits
    )
    store.delete(kept[0].path)
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UserError, match=r"the model under the adapters .+ is gone"):
        _ = kept[1].folder


def keep(store: Store, folder: Path, work: Path) -> Checkpoint:
    """Keep a copy of a model in a loop's store; its adapters belong to the base that is kept there."""
    models, copied = ModelStore(store, work), work / "copied"
    shutil.copytree(folder, copied)
    if holds_adapters(copied):
        name = next(key.split("/")[1] for key in store.list("models"))
        write_base(copied, folder.parent / "base", replace(adapter_base(copied), name=name))
    write_manifest(copied, kind="sft")
    checkpoint = models.identify(copied, "sft")
    models.keep(copied, checkpoint)
    return checkpoint


def test_samples_are_those_of_the_trained_policy(models: Path, sft_adapters: TrainingResult) -> None:
    """Log-probs that sampling records with a cache are those of a forward pass with the same adapters."""
    policy = load_policy(sft_adapters.folder)
    drawn = sample(policy, ["red dog .", "good"], FIXED, 3)
    again = response_log_probs(sft_adapters.folder, ["red dog .", "good"], [one.token_ids for one in drawn], FIXED)
    assert [one.log_probs for one in drawn] == [pytest.approx(row, abs=1e-4) for row in again]
