"""The figures of an evaluation as one JSON-able dict, which :mod:`rlhf_dagster.pages.report` makes a page."""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from rlhf_dagster.common.intervals import UNMEASURED, Rate, mean_interval
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.metrics import (
    copied_ngrams,
    distinct_n,
    distinct_responses,
    mean_sequence_kl,
    repetition,
    shared_ngrams,
)
from rlhf_dagster.evaluation.samples import ROLES, Scores, check_scores, responses_by_role
from rlhf_dagster.evaluation.texts.figures import NOTHING_KNOWN, KnownAbout, text_figures
from rlhf_dagster.evaluation.win_rate import (
    BEHAVIOUR,
    GOLD_JUDGE,
    PEOPLE,
    POLICY,
    REWARD_MODEL,
    SFT,
    WinRate,
    find_win_rate,
    win_rate,
)

JUDGES = (GOLD_JUDGE, *PEOPLE, REWARD_MODEL)
"""All judges, the most trustworthy first: the headline quotes the first that there is."""


def build_report(
    *,
    round_key: str,
    task: str,
    completions: pd.DataFrame,
    scores: Scores,
    judged: Sequence[WinRate] = (),
    reward_accuracy: Mapping[str, Any] | None = None,
    label_quality: Mapping[str, Any] | None = None,
    labels: Mapping[str, Any] | None = None,
    training: Mapping[str, Mapping[str, Any]] | None = None,
    warnings: Sequence[str] = (),
    alignment_tax: Mapping[str, Any] | None = None,
    reward_drift: Mapping[str, Any] | None = None,
    unmeasured: Mapping[str, str] | None = None,
    known: KnownAbout = NOTHING_KNOWN,
) -> dict[str, Any]:
    """All figures of a round's evaluation; the result holds only what JSON can hold, None for a missing number.

    - ``completions``: see :func:`samples.responses_by_role`; the policies' ids are read from it.
    - ``scores``: what the scalar judges gave, the reward model at least.
    - ``judged``: win rates from judgments of pairs.
    - ``reward_accuracy``: see :func:`reward_accuracy.reward_accuracy`.
    - ``label_quality``: the summary of labeling.quality, with the annotators' ``agreement`` and ``alpha``, and the
      ``machines`` that labelled beside them; of imported labels, the figures of the ``policies`` that they name.
    - ``labels``: counts of ``comparisons``, ``labels``, ``usable``, ``annotators``, ``skipped``, ``quarantined``, and
      ``by_round``, a list of the same with ``round``. Without ``labels``: the counts in ``label_quality``.
    - ``training``: each stage's final metrics.
    - ``alignment_tax`` and ``reward_drift``: see :mod:`perplexity` and :mod:`reward_drift`.
    - ``unmeasured``: by the gate's rule, the sentence why its figure could not be measured.
    - ``known``: what is known about the prompts: references, source texts, facts.
    """
    quality = label_quality or {}
    rows = responses_by_role(completions)
    check_scores(scores, len(rows[POLICY]))
    ids = {role: _policy_id(frame, role) for role, frame in rows.items()}
    rates = [
        win_rate(given[POLICY], given[against], judge, against, characters_longer(rows[POLICY], rows[against]))
        for judge, given in scores.items()
        for against in (SFT, BEHAVIOUR)
    ]
    ordered = sorted([*rates, *judged], key=lambda rate: (-JUDGES.index(rate.judge), rate.against != SFT))
    report = {
        "round": round_key,
        "task": task,
        "policy_id": ids[POLICY],
        "behaviour_policy": ids[BEHAVIOUR],
        "policies": {role: policy_figures(ids[role], rows[role], scores, role, known) for role in ROLES},
        "win_rates": [rate.as_dict() for rate in ordered],
        "reward_model": {
            **(reward_accuracy or {"splits": {}}),
            "agreement": (quality.get("agreement") or {}) | {"alpha": (quality.get("alpha") or {}).get("value")},
            **({"machines": list(quality["machines"])} if quality.get("machines") else {}),
        },
        "labels": dict(labels or {count: quality[count] for count in LABEL_COUNTS if count in quality}),
        **({"judged_policies": dict(quality["policies"])} if quality.get("policies") else {}),
        "training": {stage: dict(metrics) for stage, metrics in (training or {}).items()},
        "warnings": [*warnings, *_disagreements(ordered, ids[BEHAVIOUR] == ids[SFT])],
        "alignment_tax": dict(alignment_tax) if alignment_tax else None,
        "reward_drift": dict(reward_drift) if reward_drift else None,
        "unmeasured": dict(unmeasured or {}),
    }
    return jsonable(report | {"arms": [], "headline": headline(report)})


def headline(report: Mapping[str, Any]) -> str:
    """One sentence: the win rate against SFT by the most trustworthy judge, its interval, and the KL spent."""
    name, kl = report["policy_id"], report["policies"][POLICY]["kl"]
    spent = "" if kl["value"] is None else f", at {kl['value']:.1f} nats of KL"
    rate = find_win_rate([rate for rate in report["win_rates"] if rate["n"]], JUDGES, SFT)
    if rate is None:
        return f"{name} has not been judged against SFT{spent}."
    unit = "judgments" if rate["judge"] in PEOPLE else "prompts"
    verdict = "is not clearly better or worse than SFT: preferred on"
    if rate["low"] > 0.5:
        verdict = "beats SFT on"
    elif rate["high"] < 0.5:
        verdict = "is worse than SFT: preferred on only"
    return (
        f"{name} {verdict} {rate['value']:.0%} of {rate['n']:,} {unit} by the {rate['judge']} "
        f"(95% interval {100 * rate['low']:.0f}–{100 * rate['high']:.0f}%){spent}."
    )


def jsonable(value: Any) -> Any:
    """``value`` with plain Python numbers, lists and dicts throughout, and None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bool | Integral):
        return value if isinstance(value, bool) else int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, Sequence):
        return [jsonable(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _policy_id(rows: pd.DataFrame, role: str) -> str:
    ids = sorted(rows["policy_id"].unique())
    if len(ids) > 1:
        raise UserError(f"The responses of {role} come from several policies ({', '.join(ids)}); sample them from one.")
    return str(ids[0])


def policy_figures(
    policy_id: str, rows: pd.DataFrame, scores: Scores, role: str, known: KnownAbout = NOTHING_KNOWN
) -> dict[str, Any]:
    """What the responses of one role are like: KL to SFT, length, diversity, what they say, each judge's scores."""
    texts = rows["text"].tolist()
    return {
        "policy_id": policy_id,
        "n": len(texts),
        "kl": _kl(rows).as_dict(),
        "length": float(rows["token_ids"].map(len).mean()),
        "distinct": distinct_responses(texts),
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "repetition": repetition(texts),
        "shared_trigrams": shared_ngrams(texts),
        "copied_trigrams": copied_ngrams(rows["prompt"].tolist(), texts),
        **text_figures(rows, known),
        "scores": {judge: mean_interval(given[role]).as_dict() for judge, given in scores.items()},
    }


def characters_longer(own: pd.DataFrame, other: pd.DataFrame) -> np.ndarray:
    """By how many characters the responses of one role are longer than those of another to the same prompts."""
    return (own["text"].str.len() - other["text"].str.len()).to_numpy(dtype=np.float64)


def _kl(rows: pd.DataFrame) -> Rate:
    """The KL to SFT; NaN where SFT's log-probs are not known for every response."""
    pairs = list(zip(rows["log_probs"], rows["reference_log_probs"], strict=True))
    if any(reference is None or len(reference) != len(own) for own, reference in pairs):
        return UNMEASURED
    return mean_sequence_kl([own for own, _ in pairs], [reference for _, reference in pairs])


def _disagreements(rates: Sequence[WinRate], behaviour_is_sft: bool) -> list[str]:
    """A sentence for each judge that finds the policy worse where the reward model finds it better."""
    trained_on = {rate.against: rate for rate in rates if rate.judge == REWARD_MODEL and rate.low > 0.5}
    names = {SFT: "SFT", BEHAVIOUR: "the behaviour policy"}
    return [
        f"By the reward model the policy beats {names[rate.against]} on {trained_on[rate.against].value:.0%}, "
        f"by the {rate.judge} on only {rate.value:.0%}: the policy exploits the reward model's errors "
        "(over-optimisation); spend less KL or collect labels on this policy's responses."
        for rate in rates
        if rate.against in trained_on and rate.high < 0.5 and not (behaviour_is_sft and rate.against == BEHAVIOUR)
    ]


LABEL_COUNTS = ("comparisons", "labels", "usable", "undecided", "annotators", "skipped", "quarantined")
