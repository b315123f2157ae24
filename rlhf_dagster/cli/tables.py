"""Tables for the terminal."""

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table

from rlhf_dagster.loop.guards.left_out import left_out_sentences

TITLE = "Rounds: the reward model on people it never saw, the policy against SFT"


def rounds_table(rows: list[dict[str, Any]]) -> Table:
    """The rounds of a loop, with a 95% interval and the sample size beside every rate; fits 80 columns."""
    table = Table(title=TITLE, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in (
        "round",
        "compared\nlabels",
        "reward\nmodel",
        "longest,\nshortest\nwin",
        "people\nagree",
        "preferred\nto SFT",
    ):
        table.add_column(name, no_wrap=True)
    for name in ("KL\nnats", "promoted"):
        table.add_column(name, justify="right")
    for row in rows:
        reward, policy = row["reward_model"] or {}, row["policy"] or {}
        win = policy.get("win_rate_vs_sft")
        table.add_row(
            row["round"],
            f"{row['comparisons']:,}\n{row['labels']:,}{_by_machines(row)}",
            _rate(reward.get("held_out_annotators") or reward.get("accuracy")),
            _by_length(reward),
            _rate(reward.get("annotators_agreement")),
            f"{_rate(win)}\n{win['judge']}" if win else "-",
            f"{policy['kl']:.1f}" if policy else "-",
            "yes" if row["promoted"] else "no",
        )
    return table


def _by_machines(row: dict[str, Any]) -> str:
    """How many labels are by machines, on a line of its own where there are any."""
    return f"\n{row['labels_by_machines']:,} machine" if "labels_by_machines" in row else ""


def _by_length(reward: dict[str, Any]) -> str:
    """The accuracies of picking the longest and of picking the shortest response; older figures lack the second."""
    found = [reward.get(name) for name in ("length_baseline", "brevity_baseline")]
    return "\n".join(f"{rate['value']:.1%}" for rate in found if rate) or "-"


def why_not(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A sentence for each round that was judged and not promoted, and for each thing to look at."""
    for row in rows:
        yield from row.get("notices", [])
        if row["policy"] and not row["promoted"]:
            yield f"{row['round']} was not promoted: {' '.join(row['reasons'])}"


def what_is_left_out(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Sentences on what each round has not learned from."""
    for row in rows:
        yield from (f"{row['round']}: {sentence}" for sentence in left_out_sentences(row.get("left_out", {})))


def _rate(rate: dict[str, Any] | None) -> str:
    if not rate:
        return "-"
    return f"{rate['value']:.1%}\n{rate['low']:.0%}-{rate['high']:.0%}\nn={rate['n']:,}"
