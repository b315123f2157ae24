from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_language import COMPUTE, TINY, Tables, dpo_spec, sft_spec
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from rlhf_dagster.config.training import BaseModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.lineage.weight_files import tensors_of, weight_files
from rlhf_dagster.training.dpo.train import train_dpo
from rlhf_dagster.training.models.policies import PAD, load_policy
from rlhf_dagster.training.pretraining.base_model import load_base_model
from rlhf_dagster.training.pretraining.tiny_model import make_tokenizer
from rlhf_dagster.training.sft.train import train_sft


@pytest.fixture
def unpadded(tmp_path: Path) -> Path:
    """A model like GPT-2: one special token, which is its padding token too, and dropout."""
    backend = make_tokenizer(["a b c d"], TINY.changed(tokenizer="bpe", vocabulary=260)).backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>")
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=16, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


def test_a_padding_token_of_its_own_is_added_and_nothing_else_changes(unpadded: Path, tmp_path: Path) -> None:
    load_base_model(BaseModelSettings(source="folder", name=str(unpadded)), tmp_path / "base")
    policy = load_policy(tmp_path / "base", COMPUTE)
    assert policy.tokenizer.pad_token_id not in (None, policy.tokenizer.eos_token_id)
    assert policy.model.config.pad_token_id == policy.tokenizer.pad_token_id
    before, after = AutoModelForCausalLM.from_pretrained(unpadded).eval(), policy.model
    ids = AutoTokenizer.from_pretrained(unpadded)("a b c", return_tensors="pt")["input_ids"]
    size = before.config.vocab_size
    torch.testing.assert_close(after(ids).logits[..., :size], before(ids).logits)


def test_dropout_is_off_even_in_training_mode(unpadded: Path, tmp_path: Path) -> None:
    load_base_model(BaseModelSettings(source="folder", name=str(unpadded)), tmp_path / "base")
    model = load_policy(tmp_path / "base", COMPUTE).model.train()
    ids = torch.arange(8)[None]
    torch.testing.assert_close(model(ids).logits, model(ids).logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"source": "folder", "name": "/no/such/folder"}, "no such model folder"),
        ({"source": "hub", "name": "nobody/nothing"}, "nobody/nothing"),
        ({"source": "hub"}, "base_model.name is empty"),
    ],
)
def test_a_missing_model_is_a_user_error(settings: dict, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=problem):
        load_base_model(BaseModelSettings(**settings), tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_a_checkpoint_without_some_weights_is_a_user_error(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(base).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("transformer.ln_f.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks transformer.ln_f.weight"):
        load_policy(tmp_path, COMPUTE)


def test_damaged_weights_are_a_user_error(base: Path, tmp_path: Path) -> None:
    for file in base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: 100 if file.suffix == ".safetensors" else None])
    with pytest.raises(UserError, match="cannot be opened"):
        load_policy(tmp_path, COMPUTE)


@pytest.mark.parametrize("padding", ["end-of-text", "none"])
def test_sft_takes_a_model_without_a_padding_token_and_later_stages_do_not(
    unpadded: Path, tables: Tables, padding: str, tmp_path: Path
) -> None:
    if padding == "none":
        tokenizer = AutoTokenizer.from_pretrained(unpadded)
        tokenizer.pad_token = None
        tokenizer.save_pretrained(unpadded)
    spec = sft_spec(unpadded, tables, tmp_path / "sft")
    torch.manual_seed(1)
    first = train_sft(spec)
    torch.manual_seed(2)
    assert folder_digest(train_sft(replace(spec, output=tmp_path / "again")).folder) == folder_digest(first.folder)
    policy = load_policy(first.folder, COMPUTE)
    assert policy.tokenizer.pad_token == PAD
    assert policy.model.get_input_embeddings().weight.shape[0] == len(policy.tokenizer)
    with pytest.raises(UserError, match=r"(has no padding token|pads with end-of-text), .+ made from this one by SFT"):
        train_dpo(dpo_spec(unpadded, tables, tmp_path / "dpo"))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_a_base_model_of_16_bits_stays_one_and_no_number_changes(
    kind: str, tied: bool, unpadded: Path, tmp_path: Path
) -> None:
    config = GPT2Config.from_pretrained(unpadded, tie_word_embeddings=tied)
    GPT2LMHeadModel(config).to(getattr(torch, kind)).save_pretrained(unpadded)
    load_base_model(BaseModelSettings(source="folder", name=str(unpadded)), tmp_path / "base")
    assert kinds_in(tmp_path / "base") == {{"bfloat16": "BF16", "float16": "F16"}[kind]}
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert plain.dtype == getattr(torch, kind)
    before = AutoModelForCausalLM.from_pretrained(unpadded, dtype=torch.float32).state_dict()
    opened = load_policy(tmp_path / "base", COMPUTE).model
    assert {weight.dtype for weight in opened.parameters()} == {torch.float32}
    after, size = opened.state_dict(), config.vocab_size
    assert {name: weight[: len(before[name])].equal(before[name]) for name, weight in after.items()} == dict.fromkeys(
        before, True
    )
    assert len(after["transformer.wte.weight"]) == size + 1


def test_what_is_trained_in_float32_is_not_rounded_to_the_16_bits_of_its_base(
    tables: Tables, unpadded: Path, tmp_path: Path
) -> None:
    GPT2LMHeadModel(GPT2Config.from_pretrained(unpadded)).to(torch.bfloat16).save_pretrained(unpadded)
    load_base_model(BaseModelSettings(source="folder", name=str(unpadded)), tmp_path / "base")
    train_sft(sft_spec(tmp_path / "base", tables, tmp_path / "sft"))
    assert kinds_in(tmp_path / "sft") == {"F32"}


def kinds_in(folder: Path) -> set[str]:
    return {tensor.dtype for file in weight_files(folder) for tensor in tensors_of(file).values()}
