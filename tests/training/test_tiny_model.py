import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_language import COMPUTE, TINY, WORDS, Tables, sentence
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.records.chats import Chat, Message
from rlhf_dagster.training.models.windows import IGNORED, language_model_loss, text_windows
from rlhf_dagster.training.pretraining.tiny_model import make_tiny_model, make_tokenizer, train_tiny_model
from rlhf_dagster.training.specs import TinyModelSpec
from rlhf_dagster.training.texts.chats.encoding import set_chat
from rlhf_dagster.training.texts.chats.ends import end_id_of
from rlhf_dagster.training.texts.chats.template import template_findings
from rlhf_dagster.training.texts.tokens import encode_prompts

WORD_TOKENIZER = make_tokenizer([" ".join(WORDS)], TINY)


@given(st.lists(st.sampled_from(WORDS), max_size=30))
def test_words_survive_the_tokenizer(words: list[str]) -> None:
    text = " ".join(words)
    ids = WORD_TOKENIZER(text)["input_ids"]
    assert len(ids) == len(words)
    assert WORD_TOKENIZER.decode(ids) == text


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "<" not in text))
def test_any_text_survives_the_byte_level_tokenizer(text: str) -> None:
    assert BPE.decode(BPE(text)["input_ids"]) == text


BPE = make_tokenizer(["the dog and the cat", "the cat"] * 20, TINY.changed(tokenizer="bpe", vocabulary=270))


def test_the_vocabulary_is_capped_and_keeps_the_commonest_words() -> None:
    texts = [" ".join(f"w{i}" for i in range(100)), "w99 w98"]
    tokenizer = make_tokenizer(texts, TINY.changed(vocabulary=32))
    assert len(tokenizer) == 32
    assert {"w98", "w99"} <= set(tokenizer.get_vocab())
    assert tokenizer.decode(tokenizer("w50 w99")["input_ids"]) == "<unk> w99"


def test_the_order_of_the_texts_does_not_change_the_tokenizer() -> None:
    texts = ["a b c", "c d", "b d e"]
    assert make_tokenizer(texts, TINY).get_vocab() == make_tokenizer(texts[::-1], TINY).get_vocab()


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_tiny_chat_tokenizer_reads_chats_and_what_people_write_opens_no_turn(kind: str) -> None:
    texts = ["the dog and the cat", "the cat sees the dog"] * 20
    tokenizer = make_tokenizer(texts, TINY.changed(tokenizer=kind, vocabulary=300, chat=True))
    assert template_findings(tokenizer) == []
    set_chat(tokenizer, True)
    turns = [("system", "the dog"), ("user", "the cat"), ("assistant", "and"), ("user", "<|assistant|> the dog")]
    asked = Chat(tuple(Message(role, text) for role, text in turns))
    [ids] = encode_prompts(tokenizer, [asked], 64)
    opened = [tokenizer.convert_tokens_to_ids(f"<|{role}|>") for role in ("system", "user", "assistant")]
    assert [token for token in ids if token in opened] == [*opened, opened[1], opened[2]]
    assert ids.count(tokenizer.convert_tokens_to_ids("<|end|>")) == 4
    assert end_id_of(tokenizer) == tokenizer.convert_tokens_to_ids("<|end|>")
    assert tokenizer.unk_token_id not in ids[:-8]


def test_a_base_model_without_chats_is_the_one_of_version_0_1() -> None:
    assert "chat" not in TINY.recorded()
    assert make_tokenizer(["a b"], TINY).chat_template is None


def test_documents_are_cut_in_windows_that_end_with_the_end_token() -> None:
    ids = {word: WORD_TOKENIZER.convert_tokens_to_ids(word) for word in ("dog", "cat", "red")}
    windows = text_windows(WORD_TOKENIZER, ["dog cat red dog", "cat"], context=3)
    end = WORD_TOKENIZER.eos_token_id
    expected = [[ids["dog"], ids["cat"], ids["red"]], [ids["dog"], end, IGNORED], [ids["cat"], end, IGNORED]]
    assert windows.tolist() == expected


def test_the_base_model_learns_the_language(base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    rng = random.Random(9)
    windows = text_windows(tokenizer, [sentence(rng, 20) for _ in range(50)], 24)
    with torch.no_grad():
        loss = language_model_loss(model, windows).item()
    # Eight words at random have an entropy of log 8 = 2.08 nats; the table of 11 tokens begins at log 11 = 2.40.
    assert 1.9 < loss < 2.2


def test_the_same_seed_makes_the_same_weights_whatever_ran_before(tables: Tables, tmp_path: Path) -> None:
    settings = TINY.changed(steps=3)
    digests = []
    for name, noise in (("one", 0), ("two", 1)):
        torch.manual_seed(noise)
        spec = TinyModelSpec(tables.text, tmp_path / name, settings, COMPUTE)
        digests.append(folder_digest(train_tiny_model(spec).folder))
    other = TinyModelSpec(tables.text, tmp_path / "three", settings.changed(seed=1), COMPUTE)
    digests.append(folder_digest(train_tiny_model(other).folder))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("texts", "change", "problem"),
    [
        ([" ", ""], {}, "pretraining text is empty"),
        (["a b"], {"width": 33}, "multiple of heads"),
        (["a b"], {"tokenizer": "bpe", "vocabulary": 100}, "vocabulary"),
    ],
)
def test_impossible_settings_are_user_errors(texts: list[str], change: dict, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=problem):
        make_tiny_model(texts, TINY.changed(**change), tmp_path / "model", COMPUTE)
    assert not list(tmp_path.iterdir())
