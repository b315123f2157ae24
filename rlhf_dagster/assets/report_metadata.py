"""What the UI shows of an evaluation report."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from rlhf_dagster.assets.metadata import markdown_table, numbers, rate_cell, win_rates_table
from rlhf_dagster.evaluation.gate import alarm_names
from rlhf_dagster.evaluation.win_rate import POLICY

TEXT_NUMBERS = {
    "copied_sentences": ("copying", "copied_sentences"),
    "rouge_l": ("rouge", "rougeL"),
    "key_facts_covered": ("truthfulness", "covered"),
    "truthful": ("truthfulness", "truthful"),
}
"""By name in the UI, the figures of :func:`~rlhf_dagster.evaluation.texts.figures.text_figures`."""


def report_metadata(report: Mapping[str, Any]) -> dict[str, Any]:
    """Win rates, the other arms where there are any, the alarms, and every figure that the UI plots by round."""
    policy = report["policies"]["policy"]
    # The UI cuts off a name of more than 33 letters.
    rates = {f"vs_{rate['against']}_{rate['judge'].replace(' ', '_')}": rate["value"] for rate in report["win_rates"]}
    figures = {
        "kl_nats": policy["kl"]["value"],
        "mean_length_tokens": policy["length"],
        "distinct_share": policy["distinct"],
        "perplexity_ratio": (report["alignment_tax"] or {}).get("value"),
        "reward_drift": (report["reward_drift"] or {}).get("value"),
    }
    figures |= text_numbers(policy)
    arms = {"arms": arms_table(report["arms"])} if report["arms"] else {}
    choice = {"choice": report["choice"]["reason"]} if report.get("choice") else {}
    labelled = (report["labels"] or {}).get("by_round") or []
    return {
        "win_rates": win_rates_table(report["win_rates"]),
        "rounds": ", ".join(row["round"] for row in labelled),
        **choice,
        **arms,
        "alarms": ", ".join(alarm_names(report["rules"])) or "none",
        **numbers(rates | figures | _arm_rates(report["arms"])),
    }


def text_numbers(policy: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures of what a policy's responses say that the UI plots by round; reports of older versions have none."""
    return {
        name: ((policy.get(group) or {}).get(figure) or {}).get("value")
        for name, (group, figure) in TEXT_NUMBERS.items()
    }


def arms_table(arms: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """A line for each way to learn from the labels: win rates against SFT, and the KL to it in nats."""
    return markdown_table(
        [
            {
                "arm": arm["name"],
                **{f"vs SFT by the {rate['judge']}": rate_cell(rate) for rate in arm["win_rates"]},
                "KL": f"≤ {arm['kl_bound']:.2f}" if arm["kl_bound"] is not None else f"{arm['kl']['value']:.2f}",
            }
            for arm in arms
        ]
    )


def choice_table(contenders: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """A line for each policy that could be chosen: win rates against the champion, and the rules that it breaks."""
    return markdown_table(
        [
            {
                "arm": one["name"],
                **{f"vs champion by the {rate['judge']}": rate_cell(rate) for rate in one["win_rates"]},
                "breaks": ", ".join(one["breaks"]) or "nothing",
            }
            for one in contenders
        ]
    )


def _arm_rates(arms: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Win rates against SFT of the arms beside the policy, whose own win rates the report has already."""
    return {
        f"{arm['role']}_vs_{rate['judge'].replace(' ', '_')}": rate["value"]
        for arm in arms
        if arm["role"] != POLICY
        for rate in arm["win_rates"]
    }
