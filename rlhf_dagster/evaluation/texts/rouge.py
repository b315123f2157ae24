"""ROUGE: how many words of good responses a response uses (Lin 2004), by the package `rouge-score`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlhf_dagster.common.intervals import Rate, mean_interval
from rlhf_dagster.common.words import bare_words

if TYPE_CHECKING:
    from nltk.stem.porter import PorterStemmer

ROUGE_KINDS = ("rouge1", "rouge2", "rougeL")
"""Overlap of words, of word pairs, and of the longest common subsequence of words."""


def rouge(references: Sequence[Sequence[str]], texts: Sequence[str]) -> dict[str, Rate]:
    """Mean F1 of each of :data:`ROUGE_KINDS`, with its 95% t interval over responses.

    ``references[i]`` are good responses to the prompt that ``texts[i]`` answers: the one that is closest counts, and a
    response without any is left out; the result is empty where all are. Words are stemmed (Porter), as the papers do.
    English text gives what the package gives by itself. Its own tokenizer drops every character but a to z and digits,
    so that it finds nothing in most other languages; words here are those of
    :func:`~rlhf_dagster.common.words.bare_words`.
    """
    pairs = [(given, text) for given, text in zip(references, texts, strict=True) if given]
    if not pairs:
        return {}
    scorer = _scorer()
    scores = [scorer.score_multi(given, text) for given, text in pairs]
    return {kind: mean_interval([one[kind].fmeasure for one in scores]) for kind in ROUGE_KINDS}


class RougeWords:
    """Cuts text for `rouge-score`: :func:`bare_words`, those of English stemmed where they have more than 3 letters."""

    def __init__(self, stemmer: "PorterStemmer"):
        self.stemmer = stemmer

    def tokenize(self, text: str) -> list[str]:
        return [self.stemmer.stem(word) if len(word) > 3 and word.isascii() else word for word in bare_words(text)]


def _scorer() -> Any:
    from nltk.stem.porter import PorterStemmer
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE_KINDS), tokenizer=RougeWords(PorterStemmer()))
