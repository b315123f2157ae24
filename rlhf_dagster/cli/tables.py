"""Tables for the terminal."""

from typing import Any

from rich.table import Table


def rounds_table(rows: list[dict[str, Any]]) -> Table:
    """The rounds of a loop, with intervals beside every rate."""
    table = Table(title="Rounds", title_justify="left", caption_justify="left")
    columns = (
        "round",
        "samples from",
        "comparisons",
        "labels",
        "reward model: accuracy on new people",
        "longest wins",
        "KL to SFT, nats",
        "preferred to SFT",
        "promoted",
    )
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        reward, policy = row["reward_model"] or {}, row["policy"] or {}
        win = policy.get("win_rate_vs_sft")
        table.add_row(
            row["round"],
            row["behaviour_policy"] or "-",
            f"{row['comparisons']:,}",
            f"{row['labels']:,}",
            _rate(reward.get("held_out_annotators") or reward.get("accuracy")),
            _rate(reward.get("length_baseline")),
            f"{policy['kl']:.1f}" if policy else "-",
            f"{_rate(win)}, {win['judge']}" if win else "-",
            "yes" if row["promoted"] else "no" + (f": {row['reasons'][0]}" if row["reasons"] else ""),
        )
    return table


def _rate(rate: dict[str, Any] | None) -> str:
    return f"{rate['value']:.1%} ({rate['low']:.0%} to {rate['high']:.0%}, n={rate['n']:,})" if rate else "-"
