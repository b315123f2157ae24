"""The text on which the alignment tax is measured: held out, and nothing that SFT was trained on."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from rlhf_dagster.common.words import words
from rlhf_dagster.evaluation.perplexity import DOCUMENTS

MIN_TOKENS = 2_000
"""Tokens that the alignment tax needs: on fewer, a few rare words decide it."""
_BEGINNING = 5
"""Words that two texts share before they are compared; a shorter demonstration says nothing about where it is from."""


@dataclass(frozen=True)
class HeldOutText:
    """Documents to measure on, or none and a sentence that says why."""

    documents: list[str]
    unmeasured: str = ""


def held_out_documents(pretraining_text: pd.DataFrame, demonstrations: pd.DataFrame) -> HeldOutText:
    """Documents of the validation split or, where it is empty, the test split; the same documents for every policy.

    Those that hold a demonstration SFT was trained on, or stand in one, are left out: a policy that has learned them
    by heart, or forgotten them, says nothing about its language. The tables have the columns of PRETRAINING_TEXT and
    DEMONSTRATIONS.
    """
    frame = pretraining_text.sort_values("text_id")
    by_split = [frame.loc[frame["split"] == split, "text"] for split in ("validation", "test")]
    held_out = next((texts for texts in by_split if len(texts)), by_split[0])
    documents = held_out[held_out.str.strip() != ""].head(DOCUMENTS).tolist()
    if not documents:
        return HeldOutText([], f"{_NOT_MEASURED} no pretraining text is held out.")
    seen = _seen(documents, _trained_texts(demonstrations))
    unseen = [document for document in documents if document not in seen]
    if not unseen:
        return HeldOutText([], f"{_NOT_MEASURED} SFT was trained on all {len(documents):,} texts held out; {_REMEDY}.")
    return HeldOutText(unseen)


def too_few_tokens(found: int) -> str:
    """Why the alignment tax is not measured on ``found`` tokens."""
    return f"{_NOT_MEASURED} the text held out has {found:,} tokens, and {MIN_TOKENS:,} are needed; {_REMEDY}."


_NOT_MEASURED = "The alignment tax is not measured:"
_REMEDY = "give text of its own in `data.pretraining_files` or `data.pretraining_dataset`"


def _trained_texts(demonstrations: pd.DataFrame) -> list[str]:
    """Prompt and response of each demonstration that is trained on, with one space between words."""
    trained = demonstrations[demonstrations["split"] == "train"]
    pairs = zip(trained["prompt"], trained["response"], strict=True)
    return [_plain(f"{prompt} {response}") for prompt, response in pairs]


def _seen(documents: Sequence[str], trained: Sequence[str]) -> set[str]:
    """The documents that hold one of the texts ``trained`` or stand in one."""
    by_beginning = defaultdict(list)
    for text in trained:
        if beginning := next(_windows(text), None):
            by_beginning[beginning].append(text)
    everything = "\0".join(trained)
    return {
        document
        for document in documents
        for plain in [_plain(document)]
        if plain in everything or any(text in plain for window in _windows(plain) for text in by_beginning[window])
    }


def _plain(text: str) -> str:
    return " ".join(words(text))


def _windows(plain: str) -> Iterator[tuple[str, ...]]:
    """Every few words in a row."""
    said = plain.split()
    return (tuple(said[start : start + _BEGINNING]) for start in range(len(said) - _BEGINNING + 1))
