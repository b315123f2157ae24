"""Reward and value models of many architectures, tiny and random, against plain transformers on one row at a time."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from zoo.make import make_tiny, tiny_model
from zoo.models import ZOO
from zoo.shrink import small_config

from rlhf_dagster.config.training import LoraSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.lora import add_lora, merge_lora
from rlhf_dagster.training.models.policies import load_model, save_model
from rlhf_dagster.training.ppo.policy import response_values
from rlhf_dagster.training.reward.heads import draw_heads
from rlhf_dagster.training.reward.scores import load_reward_model, score_heads
from rlhf_dagster.training.scorers.sequence_scorer import (
    AutoSequenceScorer,
    last_real,
    reward_model_refusal,
    scorer_class,
    trunk_states,
)
from rlhf_dagster.training.texts.tokens import PaddedBatch, pad

EXACT = ("gpt2", "llama", "opt-350m", "gpt_neox", "jamba")
"""Transformers has a classifier that is trunk and linear head."""
OWN = (
    *("granite", "cohere", "cohere2", "olmoe", "codegen", "lfm2", "llama4_text", "glm4_moe", "gemma3n_text"),
    *("mamba", "falcon_h1", "xglm", "bart", "bert", "roberta", "electra", "modernbert-decoder", "rwkv"),
)
OTHERS = sorted(set(ZOO) - {*EXACT, *OWN})
TEXTS = ["ba be bi bo bu da de", "fa", "<pad> ba <pad> fe"]
"""Rows of several lengths; the id of the padding within a text is a token like any other."""
DOCS = Path(__file__).parents[2] / "docs" / "training.md"


def scorer_of(name: str, folder: Path, heads: int = 2) -> Path:
    """The reward model of a tiny model, with heads that were drawn and not trained."""
    sft = make_tiny(name, folder / "sft")
    options = {"num_labels": heads, "score_bias": [0.5, -2.0][:heads], "score_max_tokens": 16, "pad_token_id": 0}
    model = load_model(AutoSequenceScorer, sft, new=["score.weight"], **options)
    torch.manual_seed(1)
    draw_heads(model)
    (folder / "reward").mkdir()
    save_model(model, AutoTokenizer.from_pretrained(sft), folder / "reward")
    return folder / "reward"


def ten_lines(folder: Path, text: str) -> Tensor:
    """Scores [H] as the documentation computes them."""
    (code,) = re.findall(r"```python\n(from pathlib.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, Any] = {"folder": folder, "text": text}
    with torch.no_grad():
        exec(code, names)
    return names["scores"]


def batch_of(tokenizer: Any, side: str) -> PaddedBatch:
    return pad(tokenizer(TEXTS, add_special_tokens=False).input_ids, tokenizer.pad_token_id, side)


def require_plain_scores(folder: Path) -> None:
    """The folder's reward model gives the scores of the ten lines, however rows are padded."""
    plain = torch.stack([ten_lines(folder, text) for text in TEXTS])
    opened = load_reward_model(folder)
    # Ten times what they may differ by.
    assert plain.std(dim=0).min() > 2e-3
    for side in ("left", "right"):
        with torch.no_grad():
            scores = score_heads(opened.model, batch_of(opened.tokenizer, side))
        torch.testing.assert_close(scores, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [*EXACT, *OWN])
def test_scores_are_those_of_plain_transformers(name: str, tmp_path: Path) -> None:
    folder = scorer_of(name, tmp_path)
    require_plain_scores(folder)
    assert (load_reward_model(folder).model.config.architectures[0].endswith("ForSequenceScoring")) == (name in OWN)


@pytest.mark.long
@pytest.mark.parametrize("name", OTHERS)
def test_every_other_architecture_has_a_reward_model_or_a_sentence(name: str, tmp_path: Path) -> None:
    try:
        causal = load_model(AutoModelForCausalLM, make_tiny(name, tmp_path / "policy"))
    except UserError:
        return
    refusal = reward_model_refusal(causal)
    if refusal:
        with pytest.raises(UserError, match=re.escape(refusal)):
            scorer_of(name, tmp_path)
    else:
        require_plain_scores(scorer_of(name, tmp_path))


@pytest.mark.parametrize("name", EXACT)
def test_where_transformers_has_the_classifier_it_opens_the_reward_model(name: str, tmp_path: Path) -> None:
    folder = scorer_of(name, tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)(TEXTS[0], add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        plain = model(ids).logits[0] + torch.tensor(model.config.score_bias)
    torch.testing.assert_close(plain, ten_lines(folder, TEXTS[0]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["granite", "bart", "mamba", "electra", "gpt2"])
def test_a_saved_reward_model_opens_as_the_same_one(name: str, tmp_path: Path) -> None:
    first = load_reward_model(scorer_of(name, tmp_path))
    save_model(first.model, first.tokenizer, tmp_path / "again")
    again = load_reward_model(tmp_path / "again")
    weights = first.model.state_dict()
    assert dict.fromkeys(weights, True) == {
        name: torch.equal(weights[name], tensor) for name, tensor in again.model.state_dict().items()
    }
    assert (again.model.config.num_labels, again.model.config.score_bias) == (2, [0.5, -2.0])
    assert not any(name.startswith(("lm_head", "cls")) for name in weights)


@pytest.mark.parametrize(
    ("name", "targets"), [("granite", None), ("bart", None), ("mamba", ["in_proj", "x_proj"]), ("glm4_moe", None)]
)
def test_adapters_begin_as_no_change_and_merge_into_the_scores(
    name: str, targets: list[str] | None, tmp_path: Path
) -> None:
    opened = load_reward_model(scorer_of(name, tmp_path))
    batch = batch_of(opened.tokenizer, "right")
    torch.manual_seed(2)
    with torch.no_grad():
        before = score_heads(opened.model, batch)
        adapted = add_lora(opened.model, LoraSettings(rank=2, targets=targets), keep=["score"])
        torch.testing.assert_close(score_heads(adapted, batch), before)  # type: ignore[arg-type]
        for weight in (weight for name, weight in adapted.named_parameters() if weight.requires_grad):
            weight.add_(torch.randn_like(weight) * 0.2)
        changed = score_heads(adapted, batch)  # type: ignore[arg-type]
        assert (changed - before).abs().min() > 1e-3
        merged = merge_lora(adapted)
        torch.testing.assert_close(score_heads(merged, batch), changed, atol=1e-4, rtol=1e-4)
    save_model(merged, opened.tokenizer, tmp_path / "merged")
    require_plain_scores(tmp_path / "merged")


@pytest.mark.parametrize("name", ["granite", "bart", "mamba", "opt-350m", "electra"])
def test_values_are_scores_of_the_text_so_far(name: str, tmp_path: Path) -> None:
    opened = load_reward_model(scorer_of(name, tmp_path))
    prompts, responses = [[5, 6, 7, 8], [9]], [[10, 11, 12], [13, 14, 15]]
    left = pad(prompts, 0, "left")
    batch = PaddedBatch(
        torch.cat([left.input_ids, torch.tensor(responses)], dim=1),
        torch.cat([left.attention_mask, torch.ones(2, 3, dtype=torch.long)], dim=1),
    )
    with torch.no_grad():
        values = response_values(opened.model, batch, 3)
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
            for step in range(3):
                ids = torch.tensor([prompt + response[:step]])
                alone = score_heads(opened.model, PaddedBatch(ids, torch.ones_like(ids))).mean()
                torch.testing.assert_close(values[row, step], alone, atol=1e-4, rtol=1e-4)


def test_the_last_real_token_is_found_on_either_side() -> None:
    masks = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1]])
    assert last_real(masks).tolist() == [1, 3, 2, 3]


def test_states_stand_where_their_tokens_do(tmp_path: Path) -> None:
    opened = load_reward_model(scorer_of("bart", tmp_path))
    left, right = batch_of(opened.tokenizer, "left"), batch_of(opened.tokenizer, "right")
    with torch.no_grad():
        moved, plain = trunk_states(opened.model, left), trunk_states(opened.model, right)
    torch.testing.assert_close(moved[left.attention_mask.bool()], plain[right.attention_mask.bool()])


class Silent(torch.nn.Module):
    """A trunk that gives no state for each token."""

    def forward(self, input_ids: Tensor, **others: Any) -> Any:
        return type("Pooled", (), {"last_hidden_state": torch.zeros(len(input_ids), 32)})


def trunk_exchanged(name: str, trunk: torch.nn.Module) -> PreTrainedModel:
    model = tiny_model(name)
    setattr(model, model.base_model_prefix, trunk)
    return model


def test_what_has_no_reward_model_is_told_in_one_sentence() -> None:
    assert reward_model_refusal(tiny_model("granite")) == ""
    begins = "No reward model can be made from GraniteForCausalLM: its trunk "
    silent = reward_model_refusal(trunk_exchanged("granite", Silent()))
    assert silent == begins + "gives no states of width 32 for each token."
    broken = reward_model_refusal(trunk_exchanged("granite", torch.nn.Linear(2, 2)))
    assert broken.startswith(begins + "does not read token ids alone (")
    with pytest.raises(UserError, match="no causal language model of type `t5`"):
        scorer_class(small_config("t5"))


def test_making_a_class_draws_no_random_numbers() -> None:
    before = torch.random.get_rng_state()
    scorer_class(small_config("granite"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_reward_model_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="saved as GraniteForSequenceScoring, which predicts no next token"):
        load_model(AutoModelForCausalLM, scorer_of("granite", tmp_path))


def test_what_is_drawn_after_a_head_is_the_same_on_every_device(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_tiny("llama", tmp_path))
    drawn = []
    for device in ("cpu", "meta"):
        torch.manual_seed(3)
        AutoSequenceScorer.from_causal(model.to(device), small_scorer_config(model))
        drawn.append(torch.rand(4))
    assert torch.equal(*drawn)


def small_scorer_config(model: PreTrainedModel) -> Any:
    config = model.config
    config.update({"num_labels": 2, "score_bias": 0.0, "score_max_tokens": 16, "pad_token_id": 0})
    return config
