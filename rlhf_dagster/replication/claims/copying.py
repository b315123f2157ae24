"""C3: summarisers that learn from preferences copy, and skip the preamble (Ziegler et al. 2019)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlhf_dagster.common.intervals import Rate
from rlhf_dagster.evaluation.texts.copying import copied_start
from rlhf_dagster.replication.base import Criterion, Measured, Results, Size, Variant
from rlhf_dagster.replication.charts import draw_bars, label_axes, new_chart
from rlhf_dagster.replication.claims.figures import in_percent, planted
from rlhf_dagster.replication.claims.summary_arms import (
    BOTH,
    FOUR,
    RL,
    SUPERVISED,
    UNTRAINED,
    four_policies,
    prepared,
    rl_alone,
    sft_and_rl,
)
from rlhf_dagster.replication.estimates.differences import difference_of_rates
from rlhf_dagster.replication.measures.answers import VariantAnswers, text_rate
from rlhf_dagster.replication.verdicts import across_seeds, must_exceed, must_stay_below
from rlhf_dagster.tasks.summaries import SUMMARIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COPYING_FIGURES = ("copied_sentences", "novel_1", "novel_2", "novel_3", "novel_4", "lcs_bigrams")
MOSTLY = 0.5
"""Share of copied sentences that RL alone must exceed; the paper has 71% on TL;DR and 97.5% on CNN/Daily Mail."""
HARDLY = 0.2
"""The same that SFT must stay below; the paper has 3.1% and 16.4%."""
PREAMBLE_COPIED = 0.05
"""Share of posts with a preamble whose summary may begin with it; the paper has 0.2% and 1.4%."""
OPENINGS = ("no preamble", "preamble")


class Copying:
    name = "C3"
    title = "Summarisers learn to copy, and to skip the preamble"
    source = "Ziegler et al. 2019, section 3.2"
    paper = (
        "Sentences that are not in the text, on TL;DR: zero-shot 96.3%, RL 29.0%, supervised 96.9%, both 94.0%. RL "
        "begins by copying the beginning on 28.3% of posts, and on 0.2% of those that begin with a preamble."
    )
    seeds_for_one = 4

    def variants(self, size: Size) -> Sequence[Variant]:
        return (prepared(size), rl_alone(size), sft_and_rl(size))

    def measure(self, results: Results, size: Size) -> Measured:
        policies = four_policies(results, size)
        copying = {name: _copying(answers) for name, answers in policies.items()}
        begun = {name: _starts(answers) for name, answers in policies.items()}
        copied = {name: found["copied_sentences"] for name, found in copying.items()}
        return {
            "copying": {name: _as_dicts(found) for name, found in copying.items()},
            "starts": {name: _as_dicts(found) for name, found in begun.items()},
            "rl_over_zero_shot": difference_of_rates(copied[RL], copied[UNTRAINED]).as_dict(),
            "skipped": difference_of_rates(*(begun[RL][opening] for opening in OPENINGS)).as_dict(),
        }

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        alone, sft = (across_seeds(figures, "copying", name, "copied_sentences") for name in (RL, SUPERVISED))
        more, skipped = across_seeds(figures, "rl_over_zero_shot"), across_seeds(figures, "skipped")
        begun = across_seeds(figures, "starts", RL, OPENINGS[1])
        return (
            must_exceed("RL alone copies most of its sentences", alone, MOSTLY, percent=True),
            must_exceed("It copies more than the zero-shot model", more, 0.0, percent=True),
            must_stay_below("SFT hardly copies any", sft, HARDLY, percent=True),
            must_exceed("RL alone copies the beginning more often without a preamble", skipped, 0.0, percent=True),
            must_stay_below("It hardly ever copies a preamble", begun, PREAMBLE_COPIED, percent=True),
        )

    def plot(self, figures: Sequence[Measured]) -> "Figure":
        figure, (sentences, starts) = new_chart(2)
        draw_bars(sentences, FOUR, [across_seeds(figures, "copying", name, "copied_sentences") for name in FOUR])
        label_axes(sentences, "Sentences copied from the post", percent=True)
        bars = [(name, opening) for name in (UNTRAINED, RL) for opening in OPENINGS]
        names = [f"{name},\n{opening}" for name, opening in bars]
        draw_bars(starts, names, [across_seeds(figures, "starts", *bar) for bar in bars])
        label_axes(starts, "Begins as the post begins", percent=True)
        return figure

    def summary(self, figures: Sequence[Measured]) -> str:
        alone, sft, both = (
            across_seeds(figures, "copying", name, "copied_sentences") for name in (RL, SUPERVISED, BOTH)
        )
        without, begun = (across_seeds(figures, "starts", RL, opening) for opening in OPENINGS)
        return (
            f"RL alone copies {in_percent(alone)} of its sentences, SFT {in_percent(sft)}, both together "
            f"{in_percent(both)}. RL alone begins as the post does on {in_percent(without)} of posts without a "
            f"preamble and {in_percent(begun)} of those with one."
        )

    def supporting(self) -> Sequence[Measured]:
        return [_made_up(alone=0.8, zero_shot=0.3, begun=(0.25, 0.01))]

    def contrary(self) -> Sequence[Measured]:
        return [_made_up(alone=0.2, zero_shot=0.3, begun=(0.1, 0.3))]


def _copying(answers: VariantAnswers) -> dict[str, Rate]:
    words = answers.words()
    return {name: text_rate(words, "copying", name) for name in COPYING_FIGURES}


def _starts(answers: VariantAnswers) -> dict[str, Rate]:
    """How often a summary begins as its post does, of posts without and with a preamble."""
    prompts, texts = answers.rows["prompt"].tolist(), answers.rows["text"].tolist()
    pairs: dict[str, list[tuple[str, str]]] = {opening: [] for opening in OPENINGS}
    for prompt, text in zip(prompts, texts, strict=True):
        pairs[OPENINGS[SUMMARIES.has_preamble(prompt)]].append((SUMMARIES.source(prompt), text))
    return {
        opening: copied_start([source for source, _ in found], [text for _, text in found])
        for opening, found in pairs.items()
    }


def _as_dicts(rates: Mapping[str, Rate]) -> dict[str, Any]:
    return {name: rate.as_dict() for name, rate in rates.items()}


def _made_up(alone: float, zero_shot: float, begun: tuple[float, float]) -> Measured:
    copied = {UNTRAINED: zero_shot, RL: alone, SUPERVISED: 0.05, BOTH: 0.1}
    row = {OPENINGS[0]: planted(begun[0], 0.02), OPENINGS[1]: planted(begun[1], 0.02)}
    return {
        "copying": {name: {figure: planted(share) for figure in COPYING_FIGURES} for name, share in copied.items()},
        "starts": dict.fromkeys(FOUR, row),
        "rl_over_zero_shot": planted(alone - zero_shot),
        "skipped": planted(begun[0] - begun[1]),
    }
