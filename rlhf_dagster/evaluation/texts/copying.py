"""How much of a response is copied from the text that it is about: the figures of the papers on summaries.

A text is read as its bare words (:func:`~rlhf_dagster.common.words.bare_words`), so that neither case nor punctuation
hides a copy. Without a response every function raises ValueError, and so it does where there are not as many sources.
"""

import re
from collections.abc import Callable, Sequence

from rlhf_dagster.common.intervals import UNMEASURED, Rate, mean_of_shares, wilson
from rlhf_dagster.common.words import Gram, bare_words, ngrams

NOVEL = (1, 2, 3, 4)
"""Lengths of the n-grams that are looked for in the source."""
START_WORDS = 3
"""Words at the start of a response that are compared with the start of its source."""
_SENTENCE_ENDS = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？｡।॥።؟۔။།])|[\n\r]+")


def copying_figures(sources: Sequence[str], texts: Sequence[str]) -> dict[str, Rate]:
    """Every figure of this module, by name: ``texts[i]`` is a response, ``sources[i]`` the text that it is about."""
    novel = {f"novel_{n}": novel_ngrams(sources, texts, n) for n in NOVEL}
    return {
        "copied_sentences": copied_sentences(sources, texts),
        **novel,
        "lcs_bigrams": common_bigrams(sources, texts),
        "copied_start": copied_start(sources, texts),
    }


def sentences_in(text: str) -> list[list[str]]:
    """The sentences of a text, each as its bare words.

    A sentence ends at a line break, after a full stop, exclamation or question mark before white space, and after the
    full stops of scripts that put no space behind them. An abbreviation with a full stop ends one as well.
    """
    found = (bare_words(piece) for piece in _SENTENCE_ENDS.split(text))
    return [said for said in found if said]


def copied_sentences(sources: Sequence[str], texts: Sequence[str]) -> Rate:
    """Mean share of a response's sentences whose words stand in its source, in a row; with its 95% Wilson interval.

    Ziegler et al. 2019 (section 4.3) report one minus this, the sentences that are not in the source. A response
    without a word has no sentence, and is left out.
    """
    return _share(_values(sources, texts, _copied_sentences))


def novel_ngrams(sources: Sequence[str], texts: Sequence[str], n: int) -> Rate:
    """Mean share of a response's n-grams that do not stand in its source; with its 95% interval.

    See et al. 2017 (section 6.2) measure so how abstractive a summary is. Responses shorter than ``n`` are left out.
    """

    def share(source: list[str], text: str) -> float | None:
        known, grams = set(ngrams(source, n)), ngrams(bare_words(text), n)
        return sum(gram not in known for gram in grams) / len(grams) if grams else None

    return _mean(_values(sources, texts, share))


def common_bigrams(sources: Sequence[str], texts: Sequence[str]) -> Rate:
    """Mean over responses of the longest common subsequence of bigrams of response and source, over the response's.

    The measure of copying of Stiennon et al. 2020 (footnote 9); with its 95% interval. Responses of less than two
    words are left out.
    """

    def share(source: list[str], text: str) -> float | None:
        own = ngrams(bare_words(text), 2)
        return longest_common_subsequence(own, ngrams(source, 2)) / len(own) if own else None

    return _mean(_values(sources, texts, share))


def copied_start(sources: Sequence[str], texts: Sequence[str], n: int = START_WORDS) -> Rate:
    """Share of responses whose first ``n`` words are the first of their source; with its 95% Wilson interval.

    Ziegler et al. 2019 (section 4.3) find that policies trained on preferences begin by copying the beginning, and skip
    it where a preamble says nothing. Of a response that is shorter, all words count; one without a word is left out.
    """

    def starts(source: list[str], text: str) -> float | None:
        said = bare_words(text)[:n]
        return float(said == source[: len(said)]) if said else None

    return _share(_values(sources, texts, starts))


def longest_common_subsequence(one: Sequence[Gram], other: Sequence[Gram]) -> int:
    """Length of the longest sequence that both hold in its order, gaps allowed.

    With the bits of one integer for a row of the table (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"):
    a bit is 0 where the length grows.
    """
    places: dict[Gram, int] = {}
    for place, gram in enumerate(other):
        places[gram] = places.get(gram, 0) | 1 << place
    everywhere = (1 << len(other)) - 1
    row = everywhere
    for gram in one:
        met = row & places.get(gram, 0)
        row = ((row + met) | (row - met)) & everywhere
    return len(other) - row.bit_count()


def _copied_sentences(source: list[str], text: str) -> float | None:
    everything = _joined(source)
    found = [_joined(said) in everything for said in sentences_in(text)]
    return sum(found) / len(found) if found else None


def _joined(said: Sequence[str]) -> str:
    """Words as one text in which no word is part of another."""
    return "".join(f" {word} " for word in said)


def _values(
    sources: Sequence[str], texts: Sequence[str], figure: Callable[[list[str], str], float | None]
) -> list[float]:
    """A figure of each response that has it."""
    if not texts:
        raise ValueError("no responses to measure")
    found = [figure(bare_words(source), text) for source, text in zip(sources, texts, strict=True)]
    return [value for value in found if value is not None]


def _mean(values: Sequence[float]) -> Rate:
    return mean_of_shares(values) if values else UNMEASURED


def _share(values: Sequence[float]) -> Rate:
    """Where most responses copy all or nothing, a t interval would be too narrow, and of no width if all do."""
    return wilson(sum(values), len(values)) if values else UNMEASURED
