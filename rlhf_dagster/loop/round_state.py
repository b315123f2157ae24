"""Where each round stands, and whom it waits for, read from the loop's folder and its label store."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf_dagster.labeling.store import LabelCounts
from rlhf_dagster.loop.evaluation import decide
from rlhf_dagster.loop.folder import LoopFolder

Phase = Literal["opened", "labelling", "trained", "judging", "approval", "promoted", "refused", "closed"]
"""``opened``: nothing sent yet. ``labelling``: waits for labels, or for training on them. ``trained``: waits for the
decision. ``judging``: waits for A/B judgments. ``approval``: waits for a person. ``promoted`` and ``refused``: decided.
``closed``: a later round was promoted, and this one's labels count there."""
DECIDED: tuple[Phase, ...] = ("promoted", "refused", "closed")
Count = Callable[[str, str, int], LabelCounts]
"""Counts the labels of a round and a purpose, as :meth:`rlhf_dagster.labeling.store.LabelStore.count` does."""


@dataclass(frozen=True)
class RoundState:
    round: str
    phase: Phase
    labels: LabelCounts | None = None
    """Labels of the training comparisons; ``new`` counts those that no successful training has used. None for rounds
    that no training waits for."""
    judgments: LabelCounts | None = None
    """Judgments of the A/B comparisons, in the phase ``judging``."""
    policy: str | None = None
    reasons: list[str] = field(default_factory=list)
    """Why the policy was refused, or what stands in its way."""

    @property
    def decided(self) -> bool:
        return self.phase in DECIDED


def round_state(loop: LoopFolder, key: str, count: Count | None = None) -> RoundState:
    """The state of one round. The label store is asked only where something still depends on its answer.

    ``count`` is asked in its place.
    """
    newest = newest_promoted(loop)
    if key < newest:
        return RoundState(key, "closed")
    if not loop.has_table("preference_batch", key):
        return RoundState(key, "opened")
    report = loop.json("eval_report", key)
    if key == newest:
        return RoundState(key, "promoted", policy=report["policy_id"] if report else None)
    count = count or loop.label_store.count
    labels = count(key, "train", labels_used(report))
    if report is None:
        return RoundState(key, "labelling", labels)
    return _after_training(loop, key, report, labels, count)


def undecided_rounds(loop: LoopFolder, rounds: list[str]) -> list[RoundState]:
    """Rounds that automation may still have to do something for, oldest first.

    Those are the rounds after the newest promotion that have no decision, and the newest of all where its policy was
    refused: more labels may make a better one. Whatever came before has been overtaken.
    """
    newest = newest_promoted(loop)
    later = [key for key in sorted(rounds) if key > newest]
    states = [round_state(loop, key) for key in later if key == later[-1] or not _was_refused(loop, key)]
    return [state for state in states if state.phase != "promoted"]


def is_decided(loop: LoopFolder, key: str) -> bool:
    """Whether a round's policy was promoted or refused, or a later round's was promoted; asks no label store."""
    return key <= newest_promoted(loop) or _was_refused(loop, key)


def newest_promoted(loop: LoopFolder) -> str:
    """Key of the newest round whose policy became the champion by promotion; empty if there is none."""
    return loop.newest_promotion


def labels_used(report: dict[str, Any] | None) -> int:
    """Position in the ledger up to which the training behind a report has read the round's labels; 0 if no report."""
    return int(((report or {}).get("labels_read") or {}).get("position") or 0)


def waits_for(loop: LoopFolder, state: RoundState) -> str:
    """Who must do what now, in one sentence; empty for a round that is decided."""
    if state.phase == "opened":
        return f"{state.round} waits for collect_round, which samples the champion and sends comparisons."
    if state.phase == "labelling" and state.labels:
        return _waits_for_people(state.round, state.labels, "train_round", "comparisons")
    if state.phase == "trained":
        return (
            f"{state.round} waits for the end of train_round: {state.policy} is not decided on, nor sent to be judged. "
            "A run of it that failed is to be re-executed."
        )
    if state.phase == "judging" and state.judgments:
        return _waits_for_people(state.round, state.judgments, "release_round", "A/B comparisons")
    if state.phase == "approval":
        return (
            f"{state.round} waits for a person: rlhf promote {loop.option} --round {state.round} "
            '--by NAME --reason "..."'
        )
    return ""


def _waits_for_people(key: str, counts: LabelCounts, job: str, what: str) -> str:
    if counts.complete >= counts.comparisons:
        return f"{key} waits for {job}: all {counts.comparisons:,} {what} have their labels."
    missing = counts.comparisons - counts.complete
    return f"{key} waits for annotators: {missing:,} of {counts.comparisons:,} {what} still want labels."


def _after_training(
    loop: LoopFolder, key: str, report: dict[str, Any], labels: LabelCounts, count: Count
) -> RoundState:
    policy, decision = report["policy_id"], loop.decision(key)
    if decision is None:
        early = decide(loop, report, None)
        if not early.passed:
            return RoundState(key, "refused", labels, policy=policy, reasons=early.reasons)
        if not _is_sent(loop, key, policy):
            return RoundState(key, "trained", labels, policy=policy)
    elif decision["outcome"] != "not enough judgments":
        phase: Phase = "approval" if decision["outcome"] == "waiting for approval" else "refused"
        return RoundState(key, phase, labels, policy=policy, reasons=decision["reasons"])
    judgments = count(key, "evaluation", 0)
    reasons = decision["reasons"] if decision else []
    return RoundState(key, "judging", labels, judgments, policy, reasons)


def _is_sent(loop: LoopFolder, key: str, policy: str) -> bool:
    """Whether people were asked to judge this policy, and not only an earlier one of the round."""
    sent = loop.table("evaluation_batch", key, ["policy_ids"])
    return sent is not None and any(policy in list(ids) for ids in sent["policy_ids"])


def _was_refused(loop: LoopFolder, key: str) -> bool:
    """Whether the gate has said no to the round's newest policy; asks no label store."""
    report, decision = loop.json("eval_report", key), loop.decision(key)
    if report is None:
        return False
    if decision is not None:
        return bool(decision["outcome"] == "fail")
    return not decide(loop, report, None).passed
