"""C10: mixing pretraining text into PPO pays the alignment tax, and more KL does not (InstructGPT)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_dagster.common.intervals import Rate, mean_interval
from rlhf_dagster.evaluation.win_rate import SFT
from rlhf_dagster.replication.base import Criterion, Measured, Results, Size, Variant
from rlhf_dagster.replication.charts import draw_line, label_axes, new_chart, place_legend
from rlhf_dagster.replication.claims.arms import (
    KL_SWEEP,
    PRETRAINING_COEFFICIENTS,
    STUDIED,
    TAXED,
    WORDS_AT_THE_END,
    at_kl,
    with_pretraining_text,
)
from rlhf_dagster.replication.claims.figures import along, between, in_digits, in_percent, planted
from rlhf_dagster.replication.estimates.differences import difference_of_rates, paired_difference
from rlhf_dagster.replication.measures.answers import answers_of, on_same_prompts
from rlhf_dagster.replication.measures.reports import tax_of
from rlhf_dagster.replication.verdicts import CLEAR_GOLD, across_seeds, must_exceed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AT_START = Rate(0.0, 0.0, 0.0, 1)
"""What SFT gains over itself."""


class TaxOfAlignment:
    name = "C10"
    title = "PPO-ptx pays the alignment tax, more KL does not"
    source = "InstructGPT (Ouyang et al. 2022), section 4.2 and appendix E"
    paper = (
        "PPO loses on public language tasks; mixing pretraining text into its updates makes up for most of it, while a "
        "KL coefficient of up to a hundred times as much costs reward and never does."
    )
    seeds_for_one = 4

    def variants(self, size: Size) -> Sequence[Variant]:
        return (*_with_more_kl(size), *_with_text(size))

    def measure(self, results: Results, size: Size) -> Measured:
        loops = [results.loop(variant) for variant in _with_more_kl(size)]
        mixed = [results.loop(variant) for variant in _with_text(size)]
        sft, *policies = on_same_prompts(answers_of(mixed[0], SFT), *map(answers_of, [*loops, *mixed]))
        policies, with_text = policies[: len(loops)], policies[len(loops) :]
        taxes, text_taxes = [tax_of(loop) for loop in loops], [tax_of(loop) for loop in mixed]
        # SFT is where more KL leads in the end: no tax, and nothing gained.
        gold = np.array([*(policy.gold for policy in policies), sft.gold])
        at_same_tax = between([*(tax.value for tax in taxes), 1.0], gold, text_taxes[0].value)
        return {
            "taxes": [tax.as_dict() for tax in taxes],
            "gold": [mean_interval(policy.gold - sft.gold).as_dict() for policy in policies],
            "ptx": {
                "taxes": [tax.as_dict() for tax in text_taxes],
                "gold": [mean_interval(policy.gold - sft.gold).as_dict() for policy in with_text],
            },
            "saved": difference_of_rates(taxes[0], text_taxes[0]).as_dict(),
            "ahead": paired_difference(with_text[0].gold, at_same_tax).as_dict(),
            "last_words": _last_words(results, size),
        }

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        taxed, saved, ahead = across_seeds(figures, "taxes", 0), *(across_seeds(figures, n) for n in ("saved", "ahead"))
        return (
            must_exceed("PPO makes held-out text more perplexing than SFT does (ratio)", taxed, 1.0),
            must_exceed("Pretraining text in its updates makes up for some of that", saved, 0.0),
            must_exceed("As much KL as makes up for the same costs more gold score", ahead, 0.0, clear=CLEAR_GOLD),
        )

    def plot(self, figures: Sequence[Measured]) -> "Figure":
        figure, (panel,) = new_chart()
        draw_line(
            panel, [rate.value for rate in along(figures, "taxes")], along(figures, "gold"), "PPO, more and more KL"
        )
        text_taxes, gold = along(figures, "ptx", "taxes"), along(figures, "ptx", "gold")
        draw_line(panel, [tax.value for tax in text_taxes], gold, "PPO-ptx", series=1, style="points")
        draw_line(panel, [1.0], [AT_START], "SFT", series=4, style="points")
        label_axes(panel, "Gold score over SFT", "perplexity on held-out text over SFT's")
        place_legend(panel)
        return figure

    def summary(self, figures: Sequence[Measured]) -> str:
        tax, mixed = across_seeds(figures, "taxes", 0), across_seeds(figures, "ptx", "taxes", 0)
        before, after, sft = (across_seeds(figures, "last_words", name) for name in ("ppo", "ptx", "sft"))
        return (
            f"PPO's perplexity on held-out text is {in_digits(tax)} times SFT's, with pretraining text mixed in "
            f"{in_digits(mixed)}; the last word of a text is found by {in_percent(before)} and {in_percent(after)} "
            f"(SFT {in_percent(sft)}). At the same perplexity its gold score is "
            f"{in_digits(across_seeds(figures, 'ahead'))} over that of PPO with more KL."
        )

    def supporting(self) -> Sequence[Measured]:
        return [_made_up(saved=0.2, ahead=0.3)]

    def contrary(self) -> Sequence[Measured]:
        return [_made_up(saved=0.2, ahead=-0.4)]


def _with_more_kl(size: Size) -> list[Variant]:
    """PPO without pretraining text, the one that it is compared with first, then with more and more KL."""
    return [at_kl(STUDIED[size], coefficient) for coefficient in sorted(KL_SWEEP[size]) if coefficient >= TAXED]


def _with_text(size: Size) -> list[Variant]:
    """PPO-ptx, the one that is judged first."""
    return [with_pretraining_text(size, coefficient) for coefficient in PRETRAINING_COEFFICIENTS[size]]


def _last_words(results: Results, size: Size) -> dict[str, Any]:
    """The share of held-out texts whose last word is found, by policy."""
    mixed, plain = (
        results.probe(with_pretraining_text(size), WORDS_AT_THE_END.name),
        results.probe(at_kl(STUDIED[size], TAXED), WORDS_AT_THE_END.name),
    )
    return {"sft": mixed["sft"], "ppo": plain["policy"], "ptx": mixed["policy"]}


def _made_up(saved: float, ahead: float) -> Measured:
    return {
        "taxes": list(map(planted, (1.35, 1.2, 1.05))),
        "gold": list(map(planted, (1.6, 1.2, 0.5))),
        "ptx": {"taxes": [planted(1.15)], "gold": [planted(1.4)]},
        "saved": planted(saved),
        "ahead": planted(ahead, 0.1),
        "last_words": {"sft": planted(0.3), "ppo": planted(0.25), "ptx": planted(0.29)},
    }
