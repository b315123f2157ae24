"""C6: the KL keeps the policy where the reward model knows; without it the proxy rises and the gold score falls."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_dagster.common.intervals import Rate, mean_interval
from rlhf_dagster.evaluation.win_rate import POLICY, REWARD_MODEL, SFT
from rlhf_dagster.replication.base import Criterion, Measured, Results, Size, Variant
from rlhf_dagster.replication.charts import draw_line, label_axes, new_chart, place_legend
from rlhf_dagster.replication.claims.arms import (
    BEST_OF_SFT,
    FEW_COMPARISONS,
    KL_SWEEP,
    SOME_COMPARISONS,
    at_kl,
    labelled,
)
from rlhf_dagster.replication.claims.figures import along, in_digits, planted
from rlhf_dagster.replication.estimates.differences import difference_of_rates
from rlhf_dagster.replication.estimates.overoptimisation import fit_over_prompts
from rlhf_dagster.replication.estimates.trends import fall_after_peak
from rlhf_dagster.replication.measures.answers import answers_of, on_same_prompts
from rlhf_dagster.replication.measures.rounds import round_figures
from rlhf_dagster.replication.verdicts import across_seeds, must_exceed, rate_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SWEPT_LABELS: Mapping[Size, Sequence[int]] = {
    "quick": (FEW_COMPARISONS, SOME_COMPARISONS),
    "full": (FEW_COMPARISONS, SOME_COMPARISONS, 2500),
}
EXPLAINED = 0.5
"""Share of the variance of the gold scores along the sweep that the law must explain at least."""


class OverOptimisation:
    name = "C6"
    title = "The KL keeps the policy where the reward model knows"
    source = "Ziegler et al. 2019, section 2; Gao et al. 2022, section 3"
    paper = (
        "Without a KL penalty the reward model's score rises on while the gold score falls; the gold score follows "
        "d(a - b log d), where d is the square root of the KL. Best-of-n spends less KL."
    )
    seeds_for_one = 1

    def variants(self, size: Size) -> Sequence[Variant]:
        swept = [at_kl(labels, coefficient) for labels in SWEPT_LABELS[size] for coefficient in KL_SWEEP[size]]
        return (labelled(SWEPT_LABELS[size][0]), *swept)

    def measure(self, results: Results, size: Size) -> Measured:
        return {
            "coefficients": list(KL_SWEEP[size]),
            "sweeps": {str(labels): _sweep(results, labels, KL_SWEEP[size]) for labels in SWEPT_LABELS[size]},
            "best_of_n": results.probe(labelled(SWEPT_LABELS[size][0]), BEST_OF_SFT.name),
        }

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        few = next(iter(figures[0]["sweeps"]))
        fall, rise, explained = (across_seeds(figures, "sweeps", few, name) for name in ("fall", "rise", "r_squared"))
        return (
            must_exceed(f"With {few} comparisons and no KL penalty the gold score is below its best", fall, 0.0),
            must_exceed("Meanwhile the reward model's score has risen", rise, 0.0),
            must_exceed("d(a - b log d) explains the gold scores of the sweep (R²)", explained, EXPLAINED),
        )

    def plot(self, figures: Sequence[Measured]) -> "Figure":
        figure, (gold, proxy) = new_chart(2)
        for series, labels in enumerate(figures[0]["sweeps"]):
            distances = [rate.value**0.5 for rate in along(figures, "sweeps", labels, "kl")]
            for panel, name in ((gold, "gold"), (proxy, "proxy")):
                draw_line(
                    panel, distances, along(figures, "sweeps", labels, name), f"{labels} comparisons", series=series
                )
        best = [kl**0.5 for kl in figures[0]["best_of_n"]["kl"]]
        draw_line(gold, best, along(figures, "best_of_n", "gold"), "best of n", series=4)
        draw_line(proxy, best, along(figures, "best_of_n", "proxy"), "best of n", series=4)
        label_axes(gold, "Gold score over SFT", "square root of the KL (nats)")
        label_axes(proxy, "Reward model's score over SFT", "square root of the KL (nats)")
        place_legend(gold)
        return figure

    def summary(self, figures: Sequence[Measured]) -> str:
        few = next(iter(figures[0]["sweeps"]))
        fall, rise, explained = (across_seeds(figures, "sweeps", few, name) for name in ("fall", "rise", "r_squared"))
        return (
            f"With {few} comparisons and no penalty the gold score ends {in_digits(fall)} below its best, while the "
            f"reward model's is {in_digits(rise)} higher; the law explains {in_digits(explained)} of the variance."
        )

    def supporting(self) -> Sequence[Measured]:
        return [_made_up([1.1, 1.4, 0.9, 0.1], [1.0, 1.7, 2.3, 2.9], fall=1.3, rise=1.2, r_squared=0.9)]

    def contrary(self) -> Sequence[Measured]:
        return [_made_up([0.6, 1.1, 1.5, 1.9], [1.0, 1.7, 2.3, 2.9], fall=-0.2, rise=1.2, r_squared=0.9)]


def _sweep(results: Results, labels: int, coefficients: Sequence[float]) -> dict[str, Any]:
    """Figures along the coefficients, which fall, so that the KL rises; gold scores are those over SFT."""
    loops = [results.loop(at_kl(labels, coefficient)) for coefficient in coefficients]
    sft, *policies = on_same_prompts(answers_of(loops[0], SFT), *(answers_of(loop, POLICY) for loop in loops))
    gold, nats = np.array([one.gold for one in policies]), np.array([one.nats for one in policies])
    proxies = [_score(round_figures(loop, "eval_report")) for loop in loops]
    fitted = fit_over_prompts(nats, gold, sft.gold)
    return {
        "kl": [policy.kl().as_dict() for policy in policies],
        "gold": [mean_interval(scores - sft.gold).as_dict() for scores in gold],
        "proxy": [rate.as_dict() for rate in proxies],
        "fall": fall_after_peak(gold).as_dict(),
        "rise": difference_of_rates(proxies[-1], proxies[_best_but_last(gold)]).as_dict(),
        "a": fitted["a"],
        "b": fitted["b"],
        "r_squared": fitted["r_squared"],
    }


def _best_but_last(gold: np.ndarray) -> int:
    """The place with the best mean gold score, the last one aside; shape [K, n]."""
    return int(gold[:-1].mean(axis=1).argmax())


def _score(report: Mapping[str, Any]) -> Rate:
    """The reward model's mean score of the policy; that of SFT is 0."""
    return rate_of(report["policies"][POLICY]["scores"][REWARD_MODEL])


def _made_up(gold: Sequence[float], proxy: Sequence[float], *, fall: float, rise: float, r_squared: float) -> Measured:
    sweep = {
        "kl": list(map(planted, (2.0, 7.0, 18.0, 40.0))),
        "gold": list(map(planted, gold)),
        "proxy": list(map(planted, proxy)),
        "fall": planted(fall, 0.1),
        "rise": planted(rise, 0.1),
        "a": planted(0.9),
        "b": planted(0.3),
        "r_squared": planted(r_squared),
    }
    best = {"n": [1, 4, 16], "kl": [0.0, 0.64, 1.84], "gold": list(map(planted, (0.0, 0.7, 1.1)))}
    return {
        "coefficients": [0.3, 0.1, 0.03, 0.0],
        "sweeps": {"250": sweep},
        "best_of_n": best | {"proxy": list(map(planted, (0.0, 0.9, 1.5)))},
    }
