"""Checks of a round's labels, by the figures of `label_quality`."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

from rlhf_dagster.common.intervals import share_with_interval
from rlhf_dagster.labeling.quality.review import MIN_FOR_REVIEW
from rlhf_dagster.labeling.store import LabelStoreUnavailable
from rlhf_dagster.loop.checks.outcome import CheckOutcome, NotMadeYet, noticed, well
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.left_out import preference_notices
from rlhf_dagster.loop.labels import read_quarantine

_Rate = Mapping[str, Any] | None


def people_agree(loop: LoopFolder, round_key: str) -> CheckOutcome:
    """Whether people who judged the same comparisons agree beyond chance.

    By Krippendorff's alpha, 0 by chance and 1 for full agreement. It warns where alpha is known to be below
    `checks.min_alpha`.
    """
    alpha, least = _summary(loop, round_key)["alpha"], loop.config.checks.min_alpha
    if not _is_known(alpha):
        return well("No comparison was judged by two people, so that their agreement is not known.")
    said = f"Alpha is {_interval(alpha, '.2f')} on {alpha['n']:,} comparisons that several people judged"
    if alpha["n"] < MIN_FOR_REVIEW:
        return well(f"{said}, too few to tell.", **_of(alpha))
    if least is not None and alpha["high"] < least:
        return noticed(f"{said}: below {least:g} (`checks.min_alpha`). Talk about the instructions.", **_of(alpha))
    return well(f"{said}.", **_of(alpha))


def gold_answers_are_right(loop: LoopFolder, round_key: str) -> CheckOutcome:
    """Whether people give the answers that are known.

    It warns where their share of right answers is known to be below `checks.min_gold_accuracy`.
    """
    gold, least = _summary(loop, round_key)["gold"], loop.config.checks.min_gold_accuracy
    if not _is_known(gold):
        return well("No gold question was answered (`labeling.gold_share`).")
    said = f"{_interval(gold)} of {gold['n']:,} gold questions were answered right"
    if least is not None and gold["high"] < least:
        return noticed(f"{said}: below {least:.0%} (`checks.min_gold_accuracy`).", **_of(gold))
    return well(f"{said}.", **_of(gold))


def no_side_is_preferred(loop: LoopFolder, round_key: str) -> CheckOutcome:
    """Whether people choose by what they read, and not by where it stands.

    Orders are drawn at random, so that the response shown first is the chosen one as often as chance says.
    """
    first, most = _summary(loop, round_key)["first_position"], loop.config.checks.max_position_bias
    chance = (first or {}).get("chance")
    if chance is None or not _is_known(first):
        return well("No label says in which order the responses were shown.")
    said = f"The response shown first was chosen in {_interval(first)} of {first['n']:,} labels (chance: {chance:.0%})"
    if most is not None and (first["low"] > chance + most or first["high"] < chance - most):
        return noticed(f"{said}: further from chance than {most:.0%} (`checks.max_position_bias`).", **_of(first))
    return well(f"{said}.", **_of(first))


def annotators_are_steady(loop: LoopFolder, round_key: str) -> CheckOutcome:
    """Whether people judge as in the rounds before.

    The same question is asked in each, an SFT response against a demonstration (`labeling.drift_share`); it warns where
    the answers' intervals do not overlap.
    """
    now = _summary(loop, round_key)["drift"]
    before = [_summary(loop, key)["drift"] for key in loop.rounds_with("label_quality", before=round_key)]
    known = [rate for rate in before if rate and _is_known(rate)]
    if not _is_known(now) or not known:
        return well("No earlier round asked the same question (`labeling.drift_share`).")
    earlier = share_with_interval(
        round(sum(rate["value"] * rate["n"] for rate in known)), sum(rate["n"] for rate in known)
    )
    assert earlier is not None  # noqa: S101  # known rates have answers
    said = f"Demonstrations are preferred to SFT in {_interval(now)}, in the rounds before in {_interval(earlier)}"
    apart = now["low"] > earlier["high"] or now["high"] < earlier["low"]
    figures = {"now": now["value"], "before": earlier["value"]}
    return (noticed if apart else well)(f"{said}{': people judge otherwise now.' if apart else '.'}", **figures)


def few_are_quarantined(loop: LoopFolder, round_key: str) -> CheckOutcome:
    """Whether annotations can be read.

    What cannot is quarantined with its reason, and trains nothing.
    """
    summary, most = _summary(loop, round_key), loop.config.checks.max_quarantined
    count = len(read_quarantine(loop, round_key, "train"))
    share = count / max(count + summary["labels"], 1)
    said = f"{count:,} of {count + summary['labels']:,} annotations ({share:.1%}) cannot be read"
    if most is not None and share > most:
        reason = next(iter(summary["quarantined"]), "")
        why = f" Most often: {reason}" if reason else ""
        return noticed(f"{said}, more than {most:.1%} (`checks.max_quarantined`).{why}", quarantined=count, share=share)
    return well(f"{said}.", quarantined=count, share=share)


def labels_are_fresh(loop: LoopFolder, round_key: str) -> CheckOutcome:
    """Whether the round's labels are all read, and were not given too long ago.

    Run by itself, it asks the label store what has come in since.
    """
    quality, most = _quality(loop, round_key), loop.config.checks.max_label_age_days
    said, new = _come_in_since(loop, round_key, (quality.get("labels_read") or {}).get("position", 0))
    age = _age_of_newest(loop, round_key)
    days = None if age is None else age / timedelta(days=1)
    if days is not None and most is not None and days > most:
        said.append(f"The newest label is {days:,.0f} days old, more than {most:g} (`checks.max_label_age_days`).")
    if said:
        return CheckOutcome(False, " ".join(said), {"new_labels": new, "newest_days": days})
    when = "" if days is None else f", the newest {days:,.1f} days old"
    return well(f"All usable labels of the round are read{when}.", new_labels=new, newest_days=days)


def labels_fill_splits(loop: LoopFolder, round_key: str) -> CheckOutcome:
    """Whether labels are kept from training, to say how well the reward model predicts people."""
    frame = loop.table("preference_dataset", round_key, ["split"])
    if frame is None:
        raise NotMadeYet("preference_dataset", round_key)
    sizes = {f"{split}_labels": float(count) for split, count in frame["split"].value_counts().items()}
    notices = preference_notices(loop.config, frame)
    return CheckOutcome(not notices, " ".join(notices) or "Labels are in every split that the settings want.", sizes)


def _come_in_since(loop: LoopFolder, round_key: str, position: int) -> tuple[list[str], float | None]:
    """A sentence about labels that were not read, if any, and how many they are."""
    try:
        new = loop.label_store.count(round_key, "train", since=position).new
    except LabelStoreUnavailable as error:
        return [f"Whether new labels have come in is not known: {error}"], None
    return [f"{new:,} usable labels have come in since; `train_round` takes them in."] if new else [], float(new)


def _age_of_newest(loop: LoopFolder, round_key: str) -> timedelta | None:
    labels = loop.table("preference_labels", round_key, ["updated_at"])
    if labels is None or labels.empty:
        return None
    return datetime.now(UTC) - pd.Timestamp(labels["updated_at"].max()).to_pydatetime()


def _summary(loop: LoopFolder, round_key: str) -> dict[str, Any]:
    summary: dict[str, Any] = _quality(loop, round_key)["summary"]
    return {name: summary.get(name) for name in ("alpha", "gold", "first_position", "drift")} | summary


def _quality(loop: LoopFolder, round_key: str) -> dict[str, Any]:
    found = loop.json("label_quality", round_key)
    if found is None:
        raise NotMadeYet("label_quality", round_key)
    return found


def _is_known(rate: _Rate) -> bool:
    return rate is not None and all(rate.get(name) is not None for name in ("value", "low", "high"))


def _of(rate: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: rate[name] for name in ("value", "low", "high", "n")}


def _interval(rate: Mapping[str, Any], form: str = ".0%") -> str:
    value, low, high = (format(rate[name], form) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
