"""Checkpoints that are damaged, foreign or no causal language model: each is refused, in a sentence that says why."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from loops import assert_one_sentence, rlhf_here
from safetensors.torch import load_file, save_file
from small_models import SMALL, make_checkpoint
from toy_language import COMPUTE, Tables, dpo_spec, sft_spec
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaForSequenceClassification,
    LlamaModel,
    T5Config,
    ViTConfig,
)

from rlhf_dagster.config.training import BaseModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.dpo.train import train_dpo
from rlhf_dagster.training.models.policies import load_policy
from rlhf_dagster.training.pretraining.base_model import load_base_model
from rlhf_dagster.training.sft.train import train_sft

Damage = Callable[[Path], object]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 16\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with a head of its own."""
    return make_checkpoint("llama", tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def renamed(rename: Callable[[str], str]) -> Damage:
    return lambda folder: rewritten(folder, lambda weights: {rename(name): weights[name] for name in weights})


def rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def without(*ends: str) -> Damage:
    return lambda folder: rewritten(folder, lambda found: {n: w for n, w in found.items() if not n.endswith(ends)})


def added(**more: torch.Tensor) -> Damage:
    return lambda folder: rewritten(
        folder, lambda weights: weights | {name.replace("__", "."): more[name] for name in more}
    )


def changed(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    return lambda folder: rewritten(folder, lambda weights: weights | {name: change(weights[name])})


def configured(file: str = "config.json", **values: Any) -> Damage:
    def damage(folder: Path) -> None:
        content = json.loads((folder / file).read_text()) | values
        (folder / file).write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return damage


def nested(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def chained(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


def written(name: str, content: str) -> Damage:
    return lambda folder: (folder / name).write_text(content)


def only(*names: str) -> Damage:
    """The weights are gone, and there are other files in their place."""

    def damage(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        for name in names:
            (folder / name).write_bytes(b"something")

    return damage


def adapters_alone(folder: Path) -> None:
    only("adapter_model.safetensors", "adapter_config.json")(folder)
    (folder / "config.json").unlink()


def in_shards(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="4KB")


def a_shard_short(folder: Path) -> None:
    in_shards(folder)
    next(folder.glob("model-00002*")).unlink()


def shards_without_index(folder: Path) -> None:
    in_shards(folder)
    (folder / "model.safetensors.index.json").unlink()


def index_of_another(folder: Path) -> None:
    in_shards(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-0", "other-0"))


def index_without_map(folder: Path) -> None:
    in_shards(folder)
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}}')


def two_sets(folder: Path) -> None:
    kept = (folder / "model.safetensors").read_bytes()
    in_shards(folder)
    (folder / "model.safetensors").write_bytes(kept)


def cut_off(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])


def header_alone(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{")


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"weights")


def saved(model: Any) -> Damage:
    """Another model in the place of this one, beside its tokenizer."""

    def damage(folder: Path) -> None:
        torch.manual_seed(0)
        model(AutoConfig.from_pretrained(folder)).save_pretrained(folder)

    return damage


def of_config(config: Any) -> Damage:
    return config.save_pretrained


BERT = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=SMALL)
GPT2 = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=SMALL, bos_token_id=1, eos_token_id=1)
CASES: dict[str, tuple[Damage, str]] = {
    "wrapped for data parallelism": (
        renamed("module.{}".format),
        r"names of its weights have 'module.' in them, as module.+ save the model itself",
    ),
    "compiled": (renamed("_orig_mod.{}".format), r"have '_orig_mod.' in them.+ save the model itself"),
    "a peft model": (renamed("base_model.model.{}".format), r"have 'base_model.model.' in them"),
    "checkpointed layers": (
        renamed(lambda name: name.replace(".mlp.", "._checkpoint_wrapped_module.mlp.")),
        r"have '_checkpoint_wrapped_module.' in them",
    ),
    "part of a larger model": (renamed("policy.{}".format), r"begin with 'policy.', .+ save them without it"),
    "without a layer": (
        without("layers.1.mlp.up_proj.weight"),
        r"lacks model.layers.1.mlp.up_proj.weight; it is damaged or of another kind of model than LlamaForCausalLM",
    ),
    "without its head": (without("lm_head.weight"), r"lacks lm_head.weight, so it has no language-model head"),
    "a reward model": (
        saved(LlamaForSequenceClassification),
        r"was saved as LlamaForSequenceClassification, which predicts no next token; give a causal language model",
    ),
    "a trunk": (saved(LlamaModel), r"lacks lm_head.weight, so it has no language-model head; give the causal"),
    "another shape": (
        configured(intermediate_size=64),
        r"model.layers.0.mlp.down_proj.weight is 16 x 32 in its weights and 16 x 64 by config.json",
    ),
    "more layers than its config": (
        configured(num_hidden_layers=1),
        r"has model.layers.1.input_layernorm.weight and 8 more, which LlamaForCausalLM would leave out by config.json",
    ),
    "biases that its config leaves out": (
        added(model__layers__0__self_attn__q_proj__bias=torch.ones(16)),
        r"has model.layers.0.self_attn.q_proj.bias, which LlamaForCausalLM would leave out",
    ),
    "adapters that are not merged": (
        added(model__layers__0__self_attn__q_proj__lora_A__weight=torch.ones(2, 16)),
        r"has adapters \(.+lora_A.weight\) that are not merged; merge them",
    ),
    "another architecture's config": (
        of_config(GPT2),
        r"lacks transformer.+ and \d+ more and has .+ another kind of model than config.json's \(GPT2LMHeadModel\)",
    ),
    "a shard short": (a_shard_short, r"model-00002-of-\d+.safetensors is missing, though model.safetensors.index.json"),
    "shards without an index": (shards_without_index, r"model.safetensors.index.json is missing, without which"),
    "an index of other files": (index_of_another, r"other-00001-of-.+ is missing, though .+ names it"),
    "an index without a map": (index_without_map, r"index.json does not say in which file each tensor is"),
    "two sets of weights": (two_sets, r"two sets of weights, model.safetensors, which transformers reads"),
    "cut off": (cut_off, r"model.safetensors cannot be opened: it is cut off after \d+ of \d+ bytes"),
    "no header": (header_alone, r"model.safetensors cannot be opened: it does not begin as a safetensors file does"),
    "zero bytes of weights": (written("model.safetensors", ""), r"does not begin as a safetensors file does"),
    "GGUF alone": (only("model-q4.gguf"), r"only GGUF weights \(model-q4.gguf\), which are not read"),
    "pickled weights alone": (only("pytorch_model.bin"), r"only pickled weights \(pytorch_model.bin\)"),
    "the maker's own weights alone": (only("consolidated.safetensors"), r"under the names of their maker's own code"),
    "weights by another name": (only("weights.safetensors"), r"nothing names weights.safetensors"),
    "no weights": (only(), r"no .safetensors weights"),
    "weights that the config names": (
        configured(transformers_weights="gone.safetensors"),
        r"gone.safetensors is missing, though config.json names it",
    ),
    "adapters alone": (adapters_alone, r"adapter_config.json is that of adapters, .+ merge them into the model"),
    "adapters beside the model": (written("adapter_config.json", "{}"), r"adapter_config.json is that of adapters"),
    "NaN": (changed("model.norm.weight", lambda weight: weight * torch.nan), r"model.norm.weight has NaN or infinite"),
    "infinite": (changed("model.norm.weight", lambda weight: weight / 0), r"model.norm.weight has NaN or infinite"),
    "whole numbers": (
        changed("model.norm.weight", lambda weight: weight.to(torch.int8)),
        r"model.norm.weight \(I8\) holds no plain floating-point numbers",
    ),
    "eight bits without a scale": (
        changed("lm_head.weight", lambda weight: weight.to(torch.float8_e4m3fn)),
        r"lm_head.weight \(F8_E4M3\) holds no plain floating-point numbers",
    ),
    "an empty folder": (emptied, r"not a model checkpoint, config.json is missing"),
    "no folder": (shutil.rmtree, r"no such model folder"),
    "a file": (a_file, r"is a file; give the Hugging Face model folder that it is in"),
    "zero bytes of config": (written("config.json", ""), r"config.json is empty or no JSON object"),
    "half a config": (written("config.json", '{"model_type": "lla'), r"config.json is empty or no JSON object"),
    "a config of numbers": (configured(hidden_size="wide"), r"the config cannot be opened \(.*hidden_size.*str"),
    "heads that do not divide": (configured(num_attention_heads=3), r"cannot be opened \(.+\); "),
    "no head at all": (configured(num_attention_heads=0), r"cannot be opened \(.+\); "),
    "config without a type": (configured(model_type=None), r"config.json names no model_type"),
    "a config nested too deeply": (written("config.json", nested(100_000)), r"config.json is empty or no JSON object"),
    "a tokenizer nested too deeply": (
        written("tokenizer.json", nested(100_000)),
        r"the tokenizer cannot be opened \(maximum recursion depth",
    ),
    "a hundred thousand layers": (
        configured(num_hidden_layers=100_000),
        r"num_hidden_layers 100,000, and a model with",
    ),
    "more experts than there can be": (
        configured(num_local_experts=10**6),
        r"num_local_experts 1,000,000, and a model",
    ),
    "a hundred million words": (configured(vocab_size=10**8), r"describes a model of [\d,]+ numbers, and the weights"),
    "a million wide": (configured(hidden_size=2**20), r"describes a model of [\d,]+ numbers, and the weights have"),
    "a kernel of somebody": (
        configured(attn_implementation="evil/kernel"),
        r"`attn_implementation` compute by evil/kernel, code that is fetched from elsewhere and never run here",
    ),
    "a kernel of somebody's inside": (
        configured(text_config={"_experts_implementation": {"": "eager", "moe": "evil/kernel"}}),
        r"`_experts_implementation` compute by evil/kernel",
    ),
    "weights elsewhere": (configured(transformers_weights="../other.safetensors"), r"no file of this folder"),
    "weights of the system": (configured(transformers_weights="/etc/passwd"), r"no file of this folder"),
    "shards elsewhere": (
        chained(in_shards, written("model.safetensors.index.json", '{"weight_map": {"a": "../../other.safetensors"}}')),
        r"model.safetensors.index.json names '../../other.safetensors', which is no file of this folder",
    ),
    "a type of the future": (
        configured(model_type="llama9"),
        r"the model_type is llama9, which transformers .+ does not know",
    ),
    "code of its own": (
        configured(model_type="mine", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"}),
        r"\(mine\) brings code of its own, which is never run here",
    ),
    "pointers": (written("model.safetensors", POINTER), r"only Git LFS's pointer .+ `git lfs pull`"),
    "a pointer for the config": (written("config.json", POINTER), r"config.json is only Git LFS's pointer"),
    "a pointer for the tokenizer": (written("tokenizer.json", POINTER), r"tokenizer.json is only Git LFS's pointer"),
    "BERT": (of_config(BERT), r"\(bert, `is_decoder: false`\) reads texts from both sides and predicts no next token"),
    "an encoder with a decoder": (of_config(T5Config()), r"\(t5\) is an encoder with a decoder"),
    "images": (of_config(ViTConfig()), r"no causal language model of the type vit"),
    **{
        f"quantised by {method}": (
            configured(quantization_config={"quant_method": method, "bits": 4}),
            rf"weights are quantised \({method}\), so that they cannot be trained; give the model that it",
        )
        for method in ("gptq", "awq", "bitsandbytes", "compressed-tensors", "fp8", "mxfp4")
    },
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_open_whole_is_refused_in_its_sentence(case: str, folder: Path, tmp_path: Path) -> None:
    damage, sentence = CASES[case]
    damage(folder)
    with pytest.raises(UserError, match=sentence) as refused:
        load_base_model(BaseModelSettings(source="folder", name=str(folder)), tmp_path / "base")
    said = str(refused.value)
    assert said.startswith(str(folder))
    assert "\n" not in said
    assert said.endswith(".")
    assert not (tmp_path / "base").exists()


def test_the_same_checkpoint_undamaged_is_taken(folder: Path, tmp_path: Path) -> None:
    load_base_model(BaseModelSettings(source="folder", name=str(folder)), tmp_path / "base")


def test_a_classifier_with_a_tied_head_is_no_policy(tmp_path: Path) -> None:
    """Its head would be the embedding, and nothing would lack."""
    folder = make_checkpoint("gpt2", tmp_path)
    GPT2ForSequenceClassification.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(UserError, match="saved as GPT2ForSequenceClassification"):
        load_base_model(BaseModelSettings(source="folder", name=str(folder)), tmp_path / "base")
    configured(architectures=None)(folder)
    with pytest.raises(UserError, match=r"has score.weight, which GPT2LMHeadModel would leave out"):
        load_base_model(BaseModelSettings(source="folder", name=str(folder)), tmp_path / "base")


def test_a_masked_language_model_of_berts_kin_is_refused_with_its_weights(tmp_path: Path) -> None:
    folder = make_checkpoint("llama", tmp_path)
    BertForMaskedLM(BERT).save_pretrained(folder)
    with pytest.raises(UserError, match="reads texts from both sides"):
        load_base_model(BaseModelSettings(source="folder", name=str(folder)), tmp_path / "base")


@pytest.mark.parametrize("case", ["wrapped for data parallelism", "without a layer", "two sets of weights", "NaN"])
def test_every_stage_refuses_as_the_base_model_does(case: str, folder: Path, tables: Tables, tmp_path: Path) -> None:
    damage, sentence = CASES[case]
    damage(folder)
    for train, spec in ((train_sft, sft_spec), (train_dpo, dpo_spec)):
        with pytest.raises(UserError, match=sentence):
            train(spec(folder, tables, tmp_path / "out"))  # type: ignore[arg-type]


def test_the_command_ends_with_its_sentence(folder: Path, tables: Tables, tmp_path: Path) -> None:
    damage, _ = CASES["compiled"]
    damage(folder)
    spec: dict[str, object] = {
        "model": str(folder),
        "demonstrations": str(tables.demonstrations),
        "output": str(tmp_path / "out"),
    }
    # Within the context, which is looked at first.
    spec |= {"settings": {"max_tokens": 16}, "sampling": {"prompt_tokens": 8, "response_tokens": 8}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    assert_one_sentence(rlhf_here("train", "sft", tmp_path / "spec.yaml"), "have '_orig_mod.' in them")
    assert not (tmp_path / "out").exists()


def doubled(name: str) -> str:
    return f"model.{name}"


def lacking(name: str) -> str:
    return name.removeprefix("model.")


@pytest.mark.parametrize(
    "harmless",
    [
        renamed(doubled),
        renamed(lacking),
        written("consolidated.safetensors", "the same weights in another format"),
        in_shards,
        added(model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4)),
        added(v_head__summary__weight=torch.ones(1, 16)),
        configured(auto_map={"AutoModelForCausalLM": "modeling_llama.Mine"}),
    ],
    ids=["model. twice", "no model.", "another format", "shards", "old buffers", "trl's value head", "own code known"],
)
def test_what_looks_odd_and_means_the_same_opens_as_the_same_numbers(
    harmless: Damage, whole: Path, folder: Path, tmp_path: Path
) -> None:
    harmless(folder)
    load_base_model(BaseModelSettings(source="folder", name=str(folder)), tmp_path / "base")
    ids = torch.arange(6)[None]
    expected = AutoModelForCausalLM.from_pretrained(whole)(ids).logits
    torch.testing.assert_close(load_policy(tmp_path / "base", COMPUTE).model(ids).logits, expected)


def test_no_code_of_a_folder_is_run(folder: Path, tmp_path: Path) -> None:
    """Wherever transformers would look for some: a model's, a tokenizer's, and a way to generate."""
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    classes = {
        "AutoConfig": "own.Own",
        "AutoModelForCausalLM": "own.Own",
        "AutoTokenizer": ["own.Own", "own.Own"],
        "AutoModelForSequenceClassification": "own.Own",
    }
    configured(auto_map=classes)(folder)
    configured("tokenizer_config.json", auto_map=classes)(folder)
    configured("generation_config.json", custom_generate="own", auto_map=classes)(folder)
    for name in ("own.py", "custom_generate/generate.py", "__init__.py", "modeling_llama.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{code}class Own: pass\ndef generate(model, **options): pass\n")
    base = load_base_model(BaseModelSettings(source="folder", name=str(folder)), tmp_path / "base").folder
    policy = load_policy(base, COMPUTE)
    policy.model.generate(torch.arange(4)[None], max_new_tokens=2)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "a/b.jinja"])
@pytest.mark.parametrize("what", ["a pipe", "a device", "a folder", "long"])
def test_a_file_that_would_be_read_for_ever_is_refused(
    what: str, name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    if what == "long":
        monkeypatch.setenv("RLHF_LIMIT_MODEL_TEXT_MIB", "1")
        file.write_bytes(b"{" + bytes(1 << 20))
    elif what == "a pipe":
        os.mkfifo(file)
    else:
        file.symlink_to({"a device": "/dev/zero", "a folder": tmp_path}[what])
    said = (
        "more than 1 MiB, which no model's has.+RLHF_LIMIT_MODEL_TEXT_MIB" if what == "long" else f"{what}, not a file"
    )
    with pytest.raises(UserError, match=rf"{name}: .*{said}"):
        load_base_model(BaseModelSettings(source="folder", name=str(folder)), tmp_path / "base")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_another_precision_open_as_they_are(dtype: torch.dtype, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    AutoTokenizer.from_pretrained(whole).save_pretrained(folder)
    saved_model = AutoModelForCausalLM.from_pretrained(whole, dtype=dtype)
    saved_model.save_pretrained(folder)
    load_base_model(BaseModelSettings(source="folder", name=str(folder)), tmp_path / "base")
    opened = load_policy(tmp_path / "base", COMPUTE).model
    assert opened.dtype == torch.float32
    for name, weight in saved_model.state_dict().items():
        assert torch.equal(opened.state_dict()[name], weight.float())
