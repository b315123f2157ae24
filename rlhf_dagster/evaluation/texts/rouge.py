"""ROUGE: how many words of good responses a response uses (Lin 2004), by the package `rouge-score`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlhf_dagster.common.intervals import Rate, mean_of_shares
from rlhf_dagster.common.words import bare_words

if TYPE_CHECKING:
    from nltk.stem.porter import PorterStemmer

ROUGE_KINDS = ("rouge1", "rouge2", "rougeL")
"""Overlap of words, of word pairs, and of the longest common subsequence of words."""


def rouge(references: Sequence[Sequence[str]], texts: Sequence[str]) -> dict[str, Rate]:
    """Mean F1 of each of :data:`ROUGE_KINDS`, with its 95% interval over responses (:func:`rouge_scores`).

    A response without a reference is left out; the result is empty where all are.
    """
    scores = [found for found in rouge_scores(references, texts) if found]
    return {kind: mean_of_shares([found[kind] for found in scores]) for kind in ROUGE_KINDS} if scores else {}


def rouge_scores(references: Sequence[Sequence[str]], texts: Sequence[str]) -> list[dict[str, float]]:
    """F1 of each of :data:`ROUGE_KINDS`, of each response; empty for one without a reference.

    ``references[i]`` are good responses to the prompt that ``texts[i]`` answers: the one that is closest counts. Words
    are stemmed (Porter), as the papers do. English text gives what the package gives by itself. Its own tokenizer drops
    every character but a to z and digits, so that it finds nothing in most other languages; words here are those of
    :func:`~rlhf_dagster.common.words.bare_words`.
    """
    scorer = _scorer()
    found = [scorer.score_multi(given, text) if given else {} for given, text in zip(references, texts, strict=True)]
    return [{kind: one[kind].fmeasure for kind in ROUGE_KINDS if one} for one in found]


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
