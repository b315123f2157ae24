"""Tokens, generation settings and configs of foreign models, from opening to what is saved."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_models import CONFIGS, SMALL, WORDS, make_checkpoint, make_words
from toy_language import COMPUTE, VARIABLE, Tables, sft_spec
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from rlhf_dagster.config.training import BaseModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.training.checkpoints.saving import write_model
from rlhf_dagster.training.input_sizes import parameters_of
from rlhf_dagster.training.models.log_probs import decoding_of, policy_log_softmax
from rlhf_dagster.training.models.policies import load_policy, save_policy
from rlhf_dagster.training.pretraining.base_model import load_base_model
from rlhf_dagster.training.sampling.sample import sample
from rlhf_dagster.training.sft.train import train_sft


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint("llama", tmp_path / "model")


def base_of(folder: Path) -> Path:
    return load_base_model(BaseModelSettings(source="folder", name=str(folder)), folder.with_name("base")).folder


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_architecture_opens_as_the_numbers_that_transformers_reads(kind: str, tmp_path: Path) -> None:
    folder, ids = make_checkpoint(kind, tmp_path / "model"), torch.arange(6)[None]
    expected = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
    base = base_of(folder)
    for opened in (load_policy(base, COMPUTE).model, AutoModelForCausalLM.from_pretrained(base).eval()):
        torch.testing.assert_close(opened(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert parameters_of(base) == parameters_of(folder) == opened.num_parameters()


def in_place_of_its_tokenizer(folder: Path, name: str, content: str) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("notes.txt", "", r"there is no tokenizer; put the model's tokenizer files beside its weights"),
        ("tokenizer_config.json", '{"tokenizer_class": "GPT2Tokenizer"}', r"the tokenizer has no vocabulary"),
        ("tokenizer_config.json", '{"tokenizer_class": "LlamaTokenizer"}', r"the tokenizer has no vocabulary"),
        (
            "tokenizer_config.json",
            '{"tokenizer_class": "BartphoTokenizer"}',
            r"cannot be opened \(Bartpho.+ SentencePiece",
        ),
        ("tokenizer_config.json", "{", r"the tokenizer cannot be opened \(.+\); save it with a tokenizer.json"),
        ("tokenizer.json", "{", r"the tokenizer cannot be opened \(.+\); save it with a tokenizer.json"),
        ("tokenizer.json", "", r"the tokenizer cannot be opened \(.+\); save it with a tokenizer.json"),
        ("tokenizer.model", "nothing", r"the tokenizer cannot be opened \(.+\); save it with a tokenizer.json"),
        (
            "tokenizer_config.json",
            '{"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", null]}}',
            r"the tokenizer cannot be opened \(.+custom code",
        ),
    ],
)
def test_a_tokenizer_that_does_not_open_is_refused(name: str, content: str, sentence: str, folder: Path) -> None:
    in_place_of_its_tokenizer(folder, name, content)
    with pytest.raises(UserError, match=sentence) as refused:
        base_of(folder)
    assert "\n" not in str(refused.value)


def test_a_class_that_nobody_knows_is_no_matter_beside_a_tokenizer_json(folder: Path) -> None:
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "NoSuchTokenizer"}))
    assert load_policy(base_of(folder), COMPUTE).tokenizer("a b")["input_ids"] == [3, 4]


def test_no_end_of_text_is_refused(folder: Path) -> None:
    tokenizer = make_words()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"no end-of-text token; set `eos_token` in tokenizer_config.json"):
        base_of(folder)


def test_added_tokens_without_a_row_are_refused_and_padding_gets_one(folder: Path) -> None:
    tokenizer = make_words(pad_token="<eos>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"'<\|im_end\|>' \(id 8\).+only 8 rows.+never learned what they mean"):
        base_of(folder)
    alone = make_words()
    alone.add_tokens(["spare"])
    alone.add_special_tokens({"pad_token": "[PAD]"})
    alone.save_pretrained(folder)
    assert alone.pad_token_id == SMALL
    before = AutoModelForCausalLM.from_pretrained(folder)(torch.arange(5)[None]).logits
    policy = load_policy(base_of(folder), COMPUTE)
    assert policy.model.get_input_embeddings().num_embeddings == SMALL + 1
    torch.testing.assert_close(policy.model(torch.arange(5)[None]).logits[..., :SMALL], before)


def test_the_end_of_text_without_a_row_is_refused(folder: Path) -> None:
    tokenizer = make_words()
    tokenizer.add_tokens(["spare"])
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"has '<\|endoftext\|>' \(id 8\) and the embedding only 8 rows"):
        base_of(folder)


def test_another_models_tokenizer_is_refused(folder: Path, base: Path, tables: Tables, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    with pytest.raises(UserError, match=r"more tokens and the embedding only 8 rows, so it is another model's"):
        base_of(folder)
    with pytest.raises(UserError, match=r"so it is another model's tokenizer"):
        train_sft(sft_spec(folder, tables, tmp_path / "sft"))
    with pytest.raises(UserError, match=r"so it is another model's tokenizer"):
        load_policy(folder, COMPUTE)


def test_rows_without_a_token_are_never_drawn(folder: Path, tmp_path: Path) -> None:
    """The model would draw nothing else."""
    policy = load_policy(base_of(folder), COMPUTE)
    head = policy.model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(SMALL).index_fill(0, torch.tensor([len(WORDS)]), 50.0))
    decoding = decoding_of(policy.tokenizer, VARIABLE)
    assert (decoding.suppressed, decoding.vocabulary, decoding.never_drawn(SMALL)) == ((0, 2), 7, [0, 2, 7])
    assert policy_log_softmax(torch.zeros(SMALL), decoding).isinf().nonzero().flatten().tolist() == [0, 2, 7]
    drawn = {token for response in sample(policy, ["a b"] * 30, VARIABLE, seed=0) for token in response.token_ids}
    assert drawn <= {1, 3, 4, 5, 6}
    head.bias = None
    save_policy(policy, VARIABLE, tmp_path / "saved")
    assert GenerationConfig.from_pretrained(tmp_path / "saved").suppress_tokens == [0, 2, 7]


def test_ids_between_tokens_are_never_drawn_either() -> None:
    tokenizer = make_words()
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["model"]["vocab"]["z"] = 12
    tokenizer._tokenizer = type(tokenizer.backend_tokenizer).from_str(json.dumps(content))
    assert decoding_of(tokenizer, VARIABLE).never_drawn(15) == [0, 2, 7, 8, 9, 10, 11, 13, 14]


def test_the_generation_config_of_the_model_stays_but_for_padding(folder: Path) -> None:
    kept = {"do_sample": False, "temperature": 0.6, "eos_token_id": [1, 2], "bos_token_id": 1}
    (folder / "generation_config.json").write_text(json.dumps(kept))
    found = json.loads((base_of(folder) / "generation_config.json").read_text())
    assert {name: found[name] for name in kept} == kept
    assert found["pad_token_id"] == 0


def test_a_chat_template_in_a_file_of_its_own_is_kept(folder: Path) -> None:
    template = "{% for message in messages %}[{{ message.content }}]{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    assert load_policy(base_of(folder), COMPUTE).tokenizer.chat_template == template


@pytest.mark.parametrize("cached", [True, False])
def test_training_keeps_whether_plain_transformers_uses_a_cache(
    cached: bool, base: Path, tables: Tables, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "model"))
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_cache": cached}))
    trained = train_sft(sft_spec(folder, tables, tmp_path / "sft")).folder
    assert json.loads((trained / "config.json").read_text())["use_cache"] is cached


def test_the_same_base_is_made_again(folder: Path, tmp_path: Path) -> None:
    make_words(pad_token="<eos>").save_pretrained(folder)
    digests = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        digests.add(folder_digest(base_of(folder)))
    assert len(digests) == 1


def dropped(model: PreTrainedModel) -> None:
    """As an architecture does that leaves out of its checkpoints what it reads from them."""
    model._keys_to_ignore_on_save = ["model.norm.weight"]


def disturbed(model: PreTrainedModel) -> None:
    inner = model.state_dict
    model.state_dict = lambda *a, **k: (
        inner(*a, **k)
        if calls.append(0) or len(calls) > 1
        else {  # type: ignore
            name: weight + 1 for name, weight in inner().items()
        }
    )
    calls: list[int] = []


def shared(model: PreTrainedModel) -> None:
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (dropped, r"What transformers saved of a LlamaForCausalLM: the checkpoint lacks model.norm.weight"),
        (disturbed, r"What transformers saved of a LlamaForCausalLM has other numbers in"),
        (shared, r"(Transformers cannot save a LlamaForCausalLM|the checkpoint lacks model.layers)"),
    ],
)
@pytest.mark.parametrize("large", [False, True])
def test_what_would_not_open_as_the_same_model_is_not_saved(
    fault: Callable[[PreTrainedModel], None],
    sentence: str,
    large: bool,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    write_model(model, tmp_path / "good")
    fault(model)
    if large:
        monkeypatch.setattr("rlhf_dagster.training.checkpoints.saving.COMPARED", 0)
        if fault is disturbed:
            write_model(model, tmp_path / "unseen")
            return
    with pytest.raises(UserError, match=sentence):
        write_model(model, tmp_path / "saved")


def test_a_file_that_transformers_does_not_read_is_not_counted(folder: Path) -> None:
    expected = parameters_of(folder)
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    assert parameters_of(folder) == expected
