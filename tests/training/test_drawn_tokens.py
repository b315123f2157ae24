"""Tokens trained on are the tokens sampled: through the tables of a loop, for tokenizers of every kind."""

import random
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from small_tokenizers import all_kinds, chat_kinds, saved
from toy_language import Tables, reward_spec
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.config.training import SamplingSettings, SftSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.labeling.dataset import build_preferences, snapshot_hash
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.forms import result_of
from rlhf_dagster.labeling.parse import labels_table
from rlhf_dagster.labeling.store import Submission
from rlhf_dagster.lineage.model_folders import tokenizer_digest
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.schemas import COMPLETIONS, PREFERENCES, table
from rlhf_dagster.records.tables import read_table, records
from rlhf_dagster.training.dpo.pairs import encode_comparisons
from rlhf_dagster.training.models.policies import Policy
from rlhf_dagster.training.reward.labels import check_labels, encode_labels
from rlhf_dagster.training.reward.terms import merge_labels
from rlhf_dagster.training.sampling.sample import sample
from rlhf_dagster.training.sft.train import Demonstrations
from rlhf_dagster.training.texts.tokens import TokenIds, decode_responses, encode_prompts, encode_responses

KINDS = all_kinds() | chat_kinds()
LOSSLESS = ["byte-level BPE", "byte-level BPE with bos", "two tokens before", "bytes, in Python", *chat_kinds()]
"""Tokenizers that can spell every text."""
PROMPTS = ["The quick", "hello world ", "日本", "a small user:\n"]
PER_PROMPT = 4
SAMPLING = SamplingSettings(prompt_tokens=40, response_tokens=10, fixed_length=False)
SETTINGS = LabelingSettings(comparisons_per_round=100, validation=0.0, held_out_annotators=0.0)
CUT = ["the dog 😀", "文章 👍🏽", "così 日本語"]
"""Texts whose last character has several bytes."""


def drawn_ids(tokenizer: PreTrainedTokenizerBase, rng: random.Random) -> TokenIds:
    """Any tokens that can be drawn, with an end or cut at the limit; in one of three, the tokens of a cut text."""
    never = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ordinary = [token for token in range(len(tokenizer)) if token not in never]
    if rng.random() < 1 / 3:
        written = encode_responses(tokenizer, [rng.choice(CUT)], add_end=False)[0][:-1]
        if written:
            return written[: SAMPLING.response_tokens]
    ids = [rng.choice(ordinary) for _ in range(rng.randint(1, SAMPLING.response_tokens))]
    return [*ids[:-1], tokenizer.eos_token_id] if rng.random() < 1 / 2 else ids


def completions(tokenizer: PreTrainedTokenizerBase, tokenizer_id: str) -> pd.DataFrame:
    rng, rows = random.Random(0), []
    for number, prompt in enumerate(PROMPTS):
        drawn = [drawn_ids(tokenizer, rng) for _ in range(PER_PROMPT)]
        asked = encode_prompts(tokenizer, [prompt] * PER_PROMPT, SAMPLING.prompt_tokens)
        for index, (ids, text) in enumerate(zip(drawn, decode_responses(tokenizer, asked, drawn), strict=True)):
            identity = {"completion_id": f"{number}/{index}", "prompt_id": str(number), "prompt": prompt}
            told = {"policy_id": "sft", "index": index, "text": text, "token_ids": ids, "tokenizer": tokenizer_id}
            rows.append(dict.fromkeys(COMPLETIONS.names) | identity | told)
    return table(rows, COMPLETIONS).to_pandas()


def labelled(completions: pd.DataFrame, folder: Path) -> Path:
    """The preferences of one annotator, who takes the first response shown, as a file."""
    store = EmbeddedLabelStore(folder / "labels.sqlite")
    store.send(build_comparisons(completions, SETTINGS, "round-0001", seed=0))
    comparisons = store.comparisons("round-0001", "train")
    judged = [
        Submission(row["comparison_id"], "ann-01", result_of([1, *[2] * (len(row["responses"]) - 1)], row["kind"]))
        for row in records(comparisons)
    ]
    store.submit_many(judged)
    labels, _ = labels_table(store.read("round-0001", "train")[0], comparisons, SETTINGS)
    frame, _ = build_preferences(labels, comparisons, SETTINGS, seed=0)
    file = folder / "preferences.parquet"
    file.write_bytes(to_parquet(table(frame, PREFERENCES)))
    return file


def expected(preferences: pd.DataFrame, drawn: pd.DataFrame) -> list[list[TokenIds]]:
    """The ids drawn for the responses of each row, found by prompt and text among the completions."""
    by_text = {}
    for row in records(drawn):
        by_text.setdefault((row["prompt"], row["text"].strip()), [int(token) for token in row["token_ids"]])
    return [[by_text[row["prompt"], text.strip()] for text in row["responses"]] for row in records(preferences)]


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_tokens_trained_on_are_those_sampled(name: str, fixed: bool, tables: Tables, tmp_path: Path) -> None:
    tokenizer, sampling = KINDS[name], SAMPLING.changed(fixed_length=fixed)
    sft = saved(tokenizer, tmp_path / "sft")
    drawn = completions(tokenizer, tokenizer_digest(sft))
    frame = read_table(labelled(drawn, tmp_path), PREFERENCES)
    spec = replace(reward_spec(sft, tables, tmp_path / "reward"), sampling=sampling)
    spec = replace(spec, settings=spec.settings.changed(max_tokens=64))
    check_labels(frame, spec.preferences)
    labels = encode_labels(merge_labels(frame), tokenizer, spec)
    comparisons = encode_comparisons(frame, tokenizer, sampling, tokenizer_id=tokenizer_digest(sft))
    end = tokenizer.eos_token_id
    assert len(labels) == len(comparisons) == len(frame) >= len(PROMPTS)
    for row, label, comparison, ids in zip(records(frame), labels, comparisons, expected(frame, drawn), strict=True):
        prompt = encode_prompts(tokenizer, [row["prompt"]], SAMPLING.prompt_tokens)[0]
        bodies = [one[:-1] if one[-1] == end else one for one in ids]
        assert comparison.prompt == prompt
        assert comparison.responses == (bodies if fixed else ids)
        assert label.sequences == [prompt + body + ([] if fixed else [end]) for body in bodies]


def test_their_texts_alone_would_be_other_tokens(tmp_path: Path) -> None:
    """What the tables carry is needed: of every kind of tokenizer but the one of words, texts are other tokens."""
    for name in ("byte-level BPE", "Metaspace BPE with bos", "Unigram", "WordPiece", "Gemma"):
        tokenizer = KINDS[name]
        drawn = completions(tokenizer, "")
        read = encode_responses(tokenizer, drawn["text"].tolist(), add_end=False, prompts=drawn["prompt"].tolist())
        sampled = [list(ids) for ids in drawn["token_ids"]]
        assert sum(ours != theirs for ours, theirs in zip(read, sampled, strict=True)) > len(drawn) / 4, name


@pytest.mark.parametrize("name", KINDS)
def test_ids_of_another_tokenizer_are_not_read(name: str, tables: Tables, tmp_path: Path) -> None:
    tokenizer, sft = KINDS[name], saved(KINDS[name], tmp_path / "sft")
    frame = read_table(labelled(completions(tokenizer, "another"), tmp_path), PREFERENCES)
    assert frame["token_ids"].notna().all()
    spec = replace(reward_spec(sft, tables, tmp_path / "reward"), sampling=SAMPLING)
    spec = replace(spec, settings=spec.settings.changed(max_tokens=200))
    by_text = frame.assign(token_ids=None, tokenizers=None)
    ours, texts = (encode_labels(merge_labels(rows), tokenizer, spec) for rows in (frame, by_text))
    assert [label.sequences for label in ours] == [label.sequences for label in texts]
    pairs = [
        encode_comparisons(rows, tokenizer, SAMPLING, tokenizer_id=tokenizer_digest(sft)) for rows in (frame, by_text)
    ]
    assert [one.responses for one in pairs[0]] == [one.responses for one in pairs[1]]


@pytest.mark.parametrize("name", KINDS)
def test_people_see_no_half_characters(name: str) -> None:
    tokenizer = KINDS[name]
    shown = completions(tokenizer, "")["text"]
    assert not shown.str.contains("\ufffd").any()
    for text in CUT:
        prompt = encode_prompts(tokenizer, ["The quick "], 40)
        ids = encode_responses(tokenizer, [text], add_end=False, prompts=["The quick "])[0]
        before = ""
        for length in range(len(ids)):
            [seen] = decode_responses(tokenizer, prompt, [ids[:length]])
            assert "\ufffd" not in seen
            assert "\u25a1" not in seen
            if name in LOSSLESS:
                assert text.startswith(seen)
                assert seen.startswith(before)  # nothing that was whole is lost with the half character
                before = seen


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_response_completes_the_character_that_its_prompt_was_cut_in(name: str) -> None:
    tokenizer = KINDS[name]
    whole = encode_prompts(tokenizer, ["the dog 😀"], 60)[0]
    rest = encode_responses(tokenizer, ["!"], add_end=False, prompts=["x"])[0]
    for cut in (1, 2):
        prompt, response = whole[:-cut], whole[-cut:] + rest
        before = tokenizer.decode(prompt, skip_special_tokens=True).rstrip("\ufffd")
        assert before + decode_responses(tokenizer, [prompt], [response])[0] == "the dog 😀!"


PAIRS = [
    ("The quick", "brown fox"),
    ("The quick", " brown fox"),
    ("The quick ", "dog"),
    ("hello\n", "the dog\n and"),
    ("日本", "語の 😀"),
    ("", "the fox"),
    ("ne'", "  più così 👍🏽"),
]


@pytest.mark.parametrize("name", [*LOSSLESS, "Metaspace BPE with bos", "Metaspace by a normaliser"])
def test_prompt_and_response_are_decoded_to_what_they_were(name: str) -> None:
    tokenizer = KINDS[name]
    for prompt, response in PAIRS:
        asked = encode_prompts(tokenizer, [prompt], 60)[0]
        ids = encode_responses(tokenizer, [response], add_end=False, prompts=[prompt])[0]
        assert tokenizer.decode(asked + ids, skip_special_tokens=True) == prompt + response
        assert decode_responses(tokenizer, [asked], [ids]) == [response]


@pytest.mark.parametrize("name", ["byte-level BPE with a prefix space", "Unigram"])
def test_no_space_comes_between_prompt_and_response(name: str) -> None:
    """Also where a tokenizer cannot spell the prompt itself."""
    tokenizer = KINDS[name]
    for prompt, response in (("The quick", "brown fox"), ("The quick", " brown fox"), ("hello", ", the dog")):
        asked = encode_prompts(tokenizer, [prompt], 60)[0]
        ids = encode_responses(tokenizer, [response], add_end=False, prompts=[prompt])[0]
        assert tokenizer.decode(asked + ids, skip_special_tokens=True).lstrip() == prompt + response
        assert decode_responses(tokenizer, [asked], [ids]) == [response]


BEFORE = {
    "byte-level BPE": [],
    "byte-level BPE with bos": ["<|begin|>"],
    "Metaspace BPE with bos": ["<s>"],
    "Unigram": ["</s>"],
    "two tokens before": ["[gMASK]", "<sop>"],
    "WordPiece": ["[CLS]"],
    "WordLevel": [],
    "bytes, in Python": [],
    "Gemma": ["<bos>"],
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_prompt_begins_as_the_tokenizer_begins_a_text(name: str) -> None:
    tokenizer = KINDS[name]
    before = tokenizer.convert_tokens_to_ids(BEFORE[name])
    whole, empty = encode_prompts(tokenizer, ["the quick fox", ""], 60)
    plain = tokenizer("the quick fox", add_special_tokens=False)["input_ids"]
    assert whole == before + plain
    assert empty == (before or [tokenizer.eos_token_id])
    cut = encode_prompts(tokenizer, ["the quick fox"], len(before) + 2)[0]
    assert cut == before + plain[-2:]
    if before:
        with pytest.raises(UserError, match=f"the tokenizer puts {len(before)} before each prompt; raise it"):
            encode_prompts(tokenizer, ["the"], len(before))


@pytest.mark.parametrize("name", ["Metaspace by a normaliser", "byte-level BPE with bos", "Gemma"])
def test_samples_of_a_model(name: str) -> None:
    """Texts are those after the prompt, and ids are what the model drew."""
    tokenizer = KINDS[name]
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2)
    policy = Policy(GPT2LMHeadModel(config).eval(), tokenizer)
    prompts = ["The quick", "hello world ", "a small user"]
    samples = sample(policy, prompts, SAMPLING, seed=0, samples_per_prompt=2)
    asked = [ids for ids in encode_prompts(tokenizer, prompts, SAMPLING.prompt_tokens) for _ in range(2)]
    for drawn, prompt, text in zip(samples, asked, [text for text in prompts for _ in range(2)], strict=True):
        assert drawn.text == decode_responses(tokenizer, [prompt], [drawn.token_ids])[0]
        together = tokenizer.decode(prompt + drawn.token_ids, skip_special_tokens=True).rstrip("\ufffd")
        assert (text + drawn.text).startswith(together.replace("\ufffd", "\u25a1"))
        assert len(text + drawn.text) - len(together) <= len(drawn.token_ids)


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_response_that_becomes_a_demonstration_goes_on_after_its_prompt(name: str) -> None:
    tokenizer = KINDS[name]
    drawn = completions(tokenizer, "")
    frame = pd.DataFrame({"prompt": drawn["prompt"], "response": drawn["text"]})
    for row, learned in zip(
        records(frame), Demonstrations(frame, tokenizer, SftSettings(max_tokens=400), SAMPLING).rows, strict=True
    ):
        assert learned.response[-1] == tokenizer.eos_token_id
        together = tokenizer.decode(learned.prompt + learned.response[:-1], skip_special_tokens=True)
        assert together == row["prompt"] + row["response"]


def test_a_snapshot_is_the_same_with_tokens_or_without(tmp_path: Path) -> None:
    """A data set that version 0.1 hashed is found again."""
    frame = read_table(labelled(completions(KINDS["Gemma"], "x"), tmp_path), PREFERENCES)
    assert snapshot_hash(frame) == snapshot_hash(frame.drop(columns=["token_ids", "tokenizers"]))


def test_a_table_whose_ids_are_of_other_responses_is_refused(tmp_path: Path) -> None:
    file = labelled(completions(KINDS["Gemma"], "x"), tmp_path)
    frame = read_table(file, PREFERENCES)
    frame["token_ids"] = [ids[:-1] for ids in frame["token_ids"]]
    with pytest.raises(UserError, match="needs token ids and a tokenizer for each response, or none"):
        check_labels(frame, file)
