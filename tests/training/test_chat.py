"""Prompts as turns of a chat: the template's own rendering, shortened prompts, and one reading in every stage."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from toy_language import FIXED, Tables, dpo_spec, reward_spec, sft_spec
from transformers import PreTrainedTokenizerBase

from rlhf_dagster.errors import UserError
from rlhf_dagster.training.dpo.train import train_dpo
from rlhf_dagster.training.models.policies import load_tokenizer
from rlhf_dagster.training.reward.scores import encode_pairs
from rlhf_dagster.training.reward.train import train_reward_model
from rlhf_dagster.training.sft.train import train_sft
from rlhf_dagster.training.specs import SftSpec
from rlhf_dagster.training.texts.chats.encoding import reads_chats, set_chat
from rlhf_dagster.training.texts.tokens import encode_prompts

# "dog" opens the user's turn, "cat" closes it, and "blue" opens the assistant's: the tiny vocabulary has all three.
TEMPLATE = (
    "{% for m in messages %}dog {{ m['content'] | trim }} cat{% endfor %}{% if add_generation_prompt %} blue{% endif %}"
)


@pytest.fixture
def tokenizer(base: Path) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture
def chat_spec(base: Path, tokenizer: PreTrainedTokenizerBase, tables: Tables, tmp_path: Path) -> SftSpec:
    """SFT of a base model whose tokenizer has a template, with chats."""
    folder = shutil.copytree(base, tmp_path / "base")
    tokenizer.save_pretrained(folder)
    spec = sft_spec(folder, tables, tmp_path / "sft")
    return replace(spec, settings=spec.settings.changed(chat=True))


def test_a_prompt_is_a_users_turn(tokenizer: PreTrainedTokenizerBase) -> None:
    plain = encode_prompts(tokenizer, ["red good"], 8)
    set_chat(tokenizer, True)
    [ids] = encode_prompts(tokenizer, ["red good"], 8)
    turn = [{"role": "user", "content": "red good"}]
    assert ids == tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(ids) == "dog red good cat blue"
    set_chat(tokenizer, False)
    assert encode_prompts(tokenizer, ["red good"], 8) == plain


@pytest.mark.parametrize(
    ("room", "expected"), [(6, "dog . red good cat blue"), (4, "dog good cat blue"), (3, "dog cat blue")]
)
def test_a_long_prompt_loses_its_beginning_and_the_template_stays(
    tokenizer: PreTrainedTokenizerBase, room: int, expected: str
) -> None:
    set_chat(tokenizer, True)
    [ids] = encode_prompts(tokenizer, ["green bad . red good"], room)
    assert tokenizer.decode(ids) == expected


def test_room_for_less_than_the_template_is_a_user_error(tokenizer: PreTrainedTokenizerBase) -> None:
    set_chat(tokenizer, True)
    with pytest.raises(UserError, match=r"sampling\.prompt_tokens is 2 and the chat template alone takes 3"):
        encode_prompts(tokenizer, ["red"], 2)


def test_every_model_made_from_the_checkpoint_reads_chats(chat_spec: SftSpec, tables: Tables, tmp_path: Path) -> None:
    sft = train_sft(chat_spec).folder
    reward, dpo = reward_spec(sft, tables, tmp_path / "reward"), dpo_spec(sft, tables, tmp_path / "dpo")
    short = reward.settings.changed(epochs=1, normalisation_samples=16)
    folders = [sft, train_reward_model(replace(reward, settings=short)).folder, train_dpo(dpo).folder]
    for folder in folders:
        tokenizer = load_tokenizer(folder)
        assert reads_chats(tokenizer)
        [ids] = encode_pairs(tokenizer, ["red"], ["good bad"], FIXED, 16)
        assert tokenizer.decode(ids) == "dog red cat blue good bad"


def test_plain_sft_of_a_chat_checkpoint_reads_plain_prompts(chat_spec: SftSpec) -> None:
    chats = train_sft(chat_spec).folder
    plain = replace(chat_spec, model=chats, settings=chat_spec.settings.changed(chat=False))
    assert not reads_chats(load_tokenizer(train_sft(plain).folder))


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('a system turn comes first') }}", "a system turn comes first"),
    ],
)
def test_a_template_that_cannot_be_used_is_a_user_error(
    tokenizer: PreTrainedTokenizerBase, template: str | None, problem: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=problem):
        set_chat(tokenizer, True)
    assert not reads_chats(tokenizer)
