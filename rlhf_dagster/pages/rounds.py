"""All rounds of a loop as one self-contained HTML page: inline style, pictures as data, no script, no outside link."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from rlhf_dagster.lineage.registry import ChampionRecord
from rlhf_dagster.lineage.stop_cord import Stop
from rlhf_dagster.pages.plots import RoundCurve, data_uri, round_curves
from rlhf_dagster.pages.report import count, decimals, interval, percent

ShownRate = Mapping[str, Any]
"""``value``, ``low``, ``high`` and ``n``; win rates also name their ``judge``."""
RoundVerdict = Literal["champion", "promoted", "rolled_back", "refused", "waiting", "overtaken", "unknown"]
VERDICTS: dict[RoundVerdict, str] = {
    "champion": "Champion",
    "promoted": "Promoted",
    "rolled_back": "Rolled back",
    "refused": "Refused",
    "waiting": "In progress",
    "overtaken": "Overtaken",
    "unknown": "Unknown",
}


@dataclass(frozen=True)
class RoundRow:
    """One round; None stands for a figure that does not exist (yet)."""

    round: str
    number: int
    verdict: RoundVerdict
    because: Sequence[str] = ()
    """Sentences: what was decided when and by whom, why the policy was refused, or what the round waits for."""
    report: str | None = None
    """Address of the round's report, relative to the page."""
    sampled: str | None = None
    """The policy whose responses were labelled."""
    policy: str | None = None
    """The policy that was trained."""
    comparisons: int | None = None
    labels: int | None = None
    annotators: int | None = None
    machine: int | None = None
    """Usable labels by machines."""
    left_out: int | None = None
    """Usable labels that the newest data set has left out."""
    accuracy: ShownRate | None = None
    """The reward model's accuracy on labels that it was not trained on."""
    accuracy_on: str = ""
    """Which labels these are, in words."""
    length_baseline: ShownRate | None = None
    """The accuracy of always taking the longest response."""
    brevity_baseline: ShownRate | None = None
    """The same of the shortest."""
    agreement: ShownRate | None = None
    against_champion: ShownRate | None = None
    """The policy's win rate against the policy that the round sampled from, the champion of that time."""
    against_sft: ShownRate | None = None
    kl: ShownRate | None = None


@dataclass(frozen=True)
class AnnotatorRow:
    """One annotator, over the rounds that the page shows in full."""

    annotator: str
    rounds: int
    """Number of these rounds in which the annotator worked."""
    latest: str
    """The newest of these rounds, which ``competence`` and ``review`` are about."""
    labels: int
    agreement: ShownRate | None = None
    gold: ShownRate | None = None
    first_position: ShownRate | None = None
    """How often the first response shown was chosen; ``chance`` is the share without a preference for a side."""
    competence: float | None = None
    review: str = ""


@dataclass(frozen=True)
class WaitingRound:
    """A round that is not decided: whom it waits for, and how many of the comparisons asked now are answered."""

    sentence: str
    done: int | None = None
    wanted: int | None = None
    reasons: Sequence[str] = ()


@dataclass(frozen=True)
class RoundsPage:
    """Everything the page shows; rounds and champions are newest first."""

    loop: str
    made: datetime
    stop: Stop | None = None
    problems: Sequence[str] = ()
    """What kept figures from being read, such as a label server that is down."""
    waiting: Sequence[WaitingRound] = ()
    running: Sequence[str] = ()
    champions: Sequence[ChampionRecord] = ()
    champions_left_out: int = 0
    """How many changes of the champion came before those in ``champions``."""
    rounds: Sequence[RoundRow] = ()
    """The newest rounds, in full."""
    earlier: Sequence[RoundRow] = ()
    """All other rounds, of which the page shows verdict and policy."""
    annotators: Sequence[AnnotatorRow] = ()
    machines: Sequence[AnnotatorRow] = ()
    """Machines that label, whose ``agreement`` is with people."""
    next_steps: Sequence[tuple[str, str]] = ()
    """What a reader may do now, and the command that does it."""


def render_rounds(page: RoundsPage) -> str:
    """The page as HTML. Every text of the loop (names, ids, reasons, sentences) is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("rlhf_dagster.pages", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"pct": percent, "num": decimals, "count": count, "span": interval, "day": day}
    judge, measured_on = _newest(page.rounds)
    curves = _curves(page.rounds, judge, measured_on)
    return environment.get_template("rounds.html.j2").render(
        page=page,
        verdicts=VERDICTS,
        picture=data_uri(round_curves(curves)) if curves else None,
        panels=len(curves),
        pictured=", ".join(curve.title for curve in curves),
        pictured_judge=judge,
        judges=_distinct(
            rate["judge"] for row in page.rounds for rate in (row.against_champion, row.against_sft) if rate
        ),
        measured_on=_distinct(row.accuracy_on for row in page.rounds if row.accuracy),
    )


def day(stamp: str) -> str:
    """``2026-11-21 01:24``, in UTC, of an ISO 8601 stamp; the text itself where it is none."""
    try:
        return f"{datetime.fromisoformat(stamp).astimezone(UTC):%Y-%m-%d %H:%M}"
    except (TypeError, ValueError):
        return str(stamp)


def _newest(rounds: Sequence[RoundRow]) -> tuple[str, str]:
    """The judge of the newest win rate against SFT, and what the newest reward model was measured on."""
    judge = next((row.against_sft["judge"] for row in rounds if row.against_sft), "")
    return judge, next((row.accuracy_on for row in rounds if row.accuracy), "")


def _curves(rounds: Sequence[RoundRow], judge: str, measured_on: str) -> list[RoundCurve]:
    """Comparable figures that several rounds have: win rates by one judge, accuracies on one kind of labels."""
    rows = rounds[::-1]
    accuracy = [(row.number, row.accuracy) for row in rows if row.accuracy and row.accuracy_on == measured_on]
    rates = [(row.number, rate) for row in rows if (rate := row.against_sft) and rate["judge"] == judge]
    curves = [
        RoundCurve("Reward-model accuracy", accuracy),
        RoundCurve("Agreement of annotators", [(row.number, row.agreement) for row in rows if row.agreement]),
        RoundCurve("Win rate against SFT", rates, reference=0.5),
        RoundCurve("KL to SFT (nats per response)", [(row.number, row.kl) for row in rows if row.kl], share=False),
    ]
    return [curve for curve in curves if len(curve.points) > 1]


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
