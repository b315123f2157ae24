"""The documents on which the alignment tax is measured."""

import pandas as pd
import pytest

from rlhf_dagster.evaluation.held_out_text import MIN_TOKENS, held_out_documents, too_few_tokens


def texts(**splits: list[str]) -> pd.DataFrame:
    rows = [(f"{split}-{n}", text, split) for split, given in splits.items() for n, text in enumerate(given)]
    return pd.DataFrame(rows, columns=["text_id", "text", "split"])


def demonstrations(*pairs: tuple[str, str], split: str = "train") -> pd.DataFrame:
    return pd.DataFrame([(*pair, split) for pair in pairs], columns=["prompt", "response", "split"])


PROMPT, RESPONSE = "the film was long and", "dull , but the music was good ."
NONE = demonstrations()
OTHER = "a text that nobody has seen before"


def test_documents_of_validation_or_else_of_test_are_read() -> None:
    assert held_out_documents(texts(train=["a"], validation=["v", " "], test=["t"]), NONE).documents == ["v"]
    assert held_out_documents(texts(train=["a"], test=["t"]), NONE).documents == ["t"]
    nothing = held_out_documents(texts(train=["a"]), NONE)
    assert nothing.documents == []
    assert nothing.unmeasured == "The alignment tax is not measured: no pretraining text is held out."


@pytest.mark.parametrize(
    "document",
    [
        f"{PROMPT}\n{RESPONSE}",
        f"{PROMPT} {RESPONSE}",
        f"Before it .\n\n{PROMPT}\n\n{RESPONSE}\nAfter it .",
        "was long and dull , but",
    ],
    ids=["as the loop writes it", "in one line", "within a longer text", "a part of it"],
)
def test_what_sft_was_trained_on_is_not_measured_on(document: str) -> None:
    text, shown = texts(validation=[document, OTHER]), demonstrations((PROMPT, RESPONSE))
    assert held_out_documents(text, shown).documents == [OTHER]
    assert held_out_documents(text, shown).unmeasured == ""
    held_out = demonstrations((PROMPT, RESPONSE), split="validation")
    assert held_out_documents(text, held_out).documents == [document, OTHER]


def test_a_text_with_a_few_words_in_common_is_another_text() -> None:
    near = "the film was long and dull , but nobody cared ."
    found = held_out_documents(texts(validation=[near, "yes no"]), demonstrations((PROMPT, RESPONSE), ("so", "yes")))
    assert found.documents == [near, "yes no"]


def test_where_all_of_it_was_trained_on_the_sentence_says_what_to_give() -> None:
    found = held_out_documents(texts(validation=[f"{PROMPT}\n{RESPONSE}"]), demonstrations((PROMPT, RESPONSE)))
    assert found.documents == []
    assert found.unmeasured == (
        "The alignment tax is not measured: SFT was trained on all 1 texts held out; give text of its own in "
        "`data.pretraining_files` or `data.pretraining_dataset`."
    )


def test_too_few_tokens_are_a_sentence() -> None:
    assert "has 431 tokens, and 2,000 are needed" in too_few_tokens(431)
    assert MIN_TOKENS == 2000
