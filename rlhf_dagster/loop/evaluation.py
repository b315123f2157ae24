"""Judging a round's policy: by the reward model, by annotators, and by the gold judge where the task has one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from rlhf_dagster.config.training import ComputeSettings, SamplingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.gate import GateDecision, gate, rules_as_dicts
from rlhf_dagster.evaluation.held_out_text import MIN_TOKENS, HeldOutText, too_few_tokens
from rlhf_dagster.evaluation.perplexity import AlignmentTax, alignment_tax
from rlhf_dagster.evaluation.report import build_report
from rlhf_dagster.evaluation.reward_accuracy import reward_accuracy
from rlhf_dagster.evaluation.reward_drift import drift_scores, reward_drift
from rlhf_dagster.evaluation.samples import ROLES, Scores, choose_samples, responses_by_role
from rlhf_dagster.evaluation.standing import before_people
from rlhf_dagster.evaluation.win_rate import (
    ANNOTATORS,
    BEHAVIOUR,
    GOLD_JUDGE,
    POLICY,
    REWARD_MODEL,
    SFT,
    SIMULATED_ANNOTATORS,
    WinRate,
    win_rate_from_labels,
)
from rlhf_dagster.labeling.parse import usable_labels
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.lineage.model_folders import tokenizer_digest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.candidate import Candidate
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.halves import half_checkpoints
from rlhf_dagster.loop.inference.reward_scores import ScoredTogether, scores_of
from rlhf_dagster.loop.labels import counts_behind, read_labels
from rlhf_dagster.loop.measuring.known_about import known_about
from rlhf_dagster.loop.measuring.simulated import simulated_judgments
from rlhf_dagster.pages.markdown import report_markdown
from rlhf_dagster.pages.report import render_report
from rlhf_dagster.records.chats import prompts_of
from rlhf_dagster.records.tables import records

MEASURED_TRAIN_COMPARISONS = 1024


@dataclass(frozen=True)
class EvaluatedRound:
    """The figures of a round's report, its page as HTML, and what matters of it as Markdown."""

    report: dict[str, Any]
    page: str
    markdown: str


def measure_reward_model(loop: LoopFolder, reward_model: Checkpoint, preferences: pd.DataFrame) -> dict[str, Any]:
    """Accuracy by split and, on labels not trained on, by annotator, round and more; beside length baseline and chance.

    Probabilities are computed from the scores before normalisation, as the reward model was trained to give them.
    """
    scale = read_manifest(reward_model.folder)["metrics"].get("score_scale", 1.0)
    measured = _measured(preferences)
    scores = _of_compared(reward_model.folder, measured, lambda answers: scores_of(loop, reward_model, [answers])[0])
    return reward_accuracy(measured, scores, scale)


def label_accuracy(
    reward_model: Path, preferences: pd.DataFrame, sampling: SamplingSettings, compute: ComputeSettings, scale: float
) -> dict[str, Any]:
    """:func:`~rlhf_dagster.evaluation.reward_accuracy.reward_accuracy` of a reward model's folder.

    Of the split `train` the first 1,024 comparisons are measured: they only show how far the model has learned them by
    heart, and scoring all of them takes as long as a third of an epoch of training.
    """
    measured = _measured(preferences)
    return reward_accuracy(measured, scores_of_compared(reward_model, measured, sampling, compute), scale)


def _measured(preferences: pd.DataFrame) -> pd.DataFrame:
    """All labels that were not trained on, and the beginning of those that were."""
    train = preferences.loc[preferences["split"] == "train", "comparison_id"]
    left_out = preferences["comparison_id"].isin(train.unique()[MEASURED_TRAIN_COMPARISONS:])
    return preferences[~(left_out & (preferences["split"] == "train"))].reset_index(drop=True)


def scores_of_compared(
    reward_model: Path, preferences: pd.DataFrame, sampling: SamplingSettings, compute: ComputeSettings
) -> list[list[float]]:
    """Scores of the responses that each row of PREFERENCES compares, by the reward model in a folder.

    Several labels of one comparison have the same responses, which are scored once.
    """
    from rlhf_dagster.training.reward.scores import score_responses

    def score(answers: ScoredTogether) -> Iterable[float]:
        return score_responses(reward_model, answers.prompts, answers.texts, sampling, compute, answers.drawn)

    return _of_compared(reward_model, preferences, score)


def _of_compared(
    reward_model: Path, preferences: pd.DataFrame, score: Callable[[ScoredTogether], Iterable[float]]
) -> list[list[float]]:
    """What ``score`` says of the responses that each row compares; those of one comparison are scored once."""
    from rlhf_dagster.training.models.responses import own_ids

    keys = [(key, *texts) for key, texts in zip(preferences["comparison_id"], preferences["responses"], strict=True)]
    own, rows = tokenizer_digest(reward_model), preferences[~pd.Series(keys, index=preferences.index).duplicated()]
    responses = [list(texts) for texts in rows["responses"]]
    answers = ScoredTogether(
        [prompt for prompt, texts in zip(prompts_of(rows), responses, strict=True) for _ in texts],
        [text for texts in responses for text in texts],
        [ids for row in records(rows) for ids in own_ids(row, own)],
    )
    flat = iter(score(answers))
    scores = {key: list(islice(flat, len(key) - 1)) for key in dict.fromkeys(keys)}
    return [scores[key] for key in keys]


def judge_scores(
    loop: LoopFolder, completions: pd.DataFrame, reward_model: Checkpoint, roles: Sequence[str] = ROLES
) -> Scores:
    """``{judge: {role: scores}}`` of the judges that give a number, in the order of :func:`responses_by_role`."""
    scores = {REWARD_MODEL: role_scores(loop, completions, reward_model, roles)}
    if loop.config.has_task:
        gold, rows = loop.task.gold_score, responses_by_role(completions, roles)
        scores[GOLD_JUDGE] = {role: list(map(gold, rows[role]["prompt"], rows[role]["text"])) for role in roles}
    return scores


def role_scores(
    loop: LoopFolder, completions: pd.DataFrame, reward_model: Checkpoint, roles: Sequence[str]
) -> dict[str, list[float]]:
    """A reward model's scores of the responses of each role, in the order of :func:`responses_by_role`."""
    from rlhf_dagster.training.models.responses import completion_ids

    rows, own = responses_by_role(completions, roles), tokenizer_digest(reward_model.folder)
    answers = [
        ScoredTogether(prompts_of(found), found["text"].tolist(), [completion_ids(row, own) for row in records(found)])
        for found in (rows[role] for role in roles)
    ]
    scores = scores_of(loop, reward_model, answers)
    return {role: found.tolist() for role, found in zip(roles, scores, strict=True)}


@dataclass(frozen=True)
class Alarms:
    """What only the gate's alarms need; ``unmeasured`` says by rule why a figure is missing."""

    alignment_tax: dict[str, Any] | None
    reward_drift: dict[str, Any] | None
    unmeasured: dict[str, str]


def measure_alarms(
    loop: LoopFolder,
    completions: pd.DataFrame,
    scores: Scores,
    *,
    policy: Checkpoint,
    sft: Checkpoint,
    held_out: HeldOutText,
    halves: dict[str, Any],
) -> Alarms:
    """The alignment tax, and how far reward models trained on other labels agree about the policy."""
    models, unmeasured, drift, tax = half_checkpoints(loop, halves), {}, None, None
    if models:
        by_half = [role_scores(loop, completions, model, (POLICY, SFT)) for model in models]
        drift = reward_drift(drift_scores(scores[REWARD_MODEL], by_half)).as_dict()
    else:
        unmeasured["max_reward_drift"] = halves["unmeasured"]
    found = measured_tax(loop, policy, sft, held_out)
    if isinstance(found, str):
        unmeasured["max_perplexity_ratio"] = found
    else:
        tax = found.as_dict()
    return Alarms(tax, drift, unmeasured)


def measured_tax(loop: LoopFolder, policy: Checkpoint, sft: Checkpoint, held_out: HeldOutText) -> AlignmentTax | str:
    """The alignment tax, or the sentence why it could not be measured."""
    if held_out.unmeasured:
        return held_out.unmeasured
    tax = alignment_tax(policy.folder, sft.folder, held_out.documents, loop.config.compute)
    return tax if tax.tokens >= MIN_TOKENS else too_few_tokens(tax.tokens)


def simulated_win_rates(loop: LoopFolder, completions: pd.DataFrame, round_key: str) -> list[WinRate]:
    """Win rates by the task's simulated annotators, one of whom judges each pair; empty for a loop without a task."""
    if not loop.config.has_task:
        return []
    seed = loop.config.stage_seed("simulated_win_rates", round_key)
    ids = policy_ids(completions)
    pairs = [(ids[POLICY], other) for other in dict.fromkeys([ids[SFT], ids[BEHAVIOUR]])]
    responses = completions.drop_duplicates("completion_id")
    labels, comparisons = simulated_judgments(loop.annotators(), responses, pairs, round_key, seed)
    return _win_rates(labels, comparisons, ids, SIMULATED_ANNOTATORS)


def evaluate_round(
    loop: LoopFolder,
    manifest: dict[str, str],
    completions: pd.DataFrame,
    reward_model: Checkpoint,
    candidate: Candidate,
    accuracy: dict[str, Any],
    quality: dict[str, Any],
    *,
    sft: Checkpoint,
    held_out: HeldOutText,
    halves: dict[str, Any],
    arms: Sequence[dict[str, Any]] = (),
    choice: dict[str, Any] | None = None,
) -> EvaluatedRound:
    """The report's figures, and its page.

    ``halves`` is :meth:`~halves.RewardModelHalves.as_dict`, ``arms`` what :func:`~arms.beside.measure_arms` gives,
    ``choice`` what :func:`~arms.choice.choose_policy` gives, where an arm was chosen. Raises UserError where the
    completions are those of another policy than the round's candidate.
    """
    round_key, policy = manifest["round"], candidate.policy
    _require_responses_of(policy, completions, round_key)
    trained = {"sft_checkpoint": sft, "reward_model": reward_model, candidate.arm.asset: policy}
    scores = judge_scores(loop, completions, reward_model)
    alarms = measure_alarms(loop, completions, scores, policy=policy, sft=sft, held_out=held_out, halves=halves)
    manifests = {stage: read_manifest(model.folder) for stage, model in trained.items()}
    report = build_report(
        round_key=round_key,
        task=loop.config.name,
        completions=completions,
        scores=scores,
        judged=simulated_win_rates(loop, completions, round_key),
        reward_accuracy=accuracy,
        label_quality=quality["summary"],
        labels=counts_behind(loop, round_key),
        training={stage: training["metrics"] for stage, training in manifests.items()},
        warnings=[warning for training in manifests.values() for warning in training["warnings"]],
        alignment_tax=alarms.alignment_tax,
        reward_drift=alarms.reward_drift,
        unmeasured=alarms.unmeasured,
        known=known_about(loop, completions),
    )
    early = decide(loop, report, None)
    report |= {"arms": list(arms), "labels_read": quality.get("labels_read"), "rules": rules_as_dicts(early.rules)}
    report |= {"choice": choice} if choice else {}
    samples = choose_samples(completions, scores, loop.config.stage_seed("samples", round_key))
    standing = before_people(policy.model_id, early.passed, loop.config.evaluation.asks_people, report["rules"])
    page = render_report(report, samples, manifests[candidate.arm.asset]["curves"], standing)
    return EvaluatedRound(report, page, report_markdown(report, samples, standing))


def _require_responses_of(policy: Checkpoint, completions: pd.DataFrame, round_key: str) -> None:
    asked = policy_ids(completions)[POLICY]
    if asked != policy.model_id:
        raise UserError(
            f"evaluation_completions of {round_key} has responses of {asked}, and {policy.model_id} is to be judged; "
            "make evaluation_completions again first."
        )


def read_human_evaluation(
    loop: LoopFolder, round_key: str, completions: pd.DataFrame, comparisons: pd.DataFrame
) -> dict[str, Any]:
    """Win rates of the new policy by the annotators' A/B judgments of ``comparisons`` that have arrived."""
    labels, quarantined = read_labels(loop, round_key, "evaluation")
    labels = labels[labels["comparison_id"].isin(comparisons["comparison_id"])]
    judge = SIMULATED_ANNOTATORS if loop.config.label_store.simulated_annotators else ANNOTATORS
    ids = policy_ids(completions)
    rates = [rate.as_dict() for rate in _win_rates(labels, comparisons, ids, judge) if rate.n]
    return {
        "round": round_key,
        "policy_id": ids[POLICY],
        "win_rates": rates,
        "comparisons": len(comparisons),
        "judgments": len(usable_labels(labels)),
        "quarantined": quarantined,
    }


def decide(loop: LoopFolder, report: dict[str, Any], human: dict[str, Any] | None) -> GateDecision:
    """The gate's decision on a report.

    The blocking check asks with ``human=None``, before people judge; ``promotion`` asks with the people's judgments.
    Judgments of an earlier policy of the round do not count.
    """
    if human is None or not loop.config.evaluation.asks_people:
        return gate(report, None, loop.config.gate, human_required=False)
    about_this = human.get("policy_id") == report["policy_id"]
    return gate(report, human if about_this else None, loop.config.gate, human_required=True)


def policy_ids(completions: pd.DataFrame) -> dict[str, str]:
    """The policy behind each role."""
    return {str(role): rows["policy_id"].iloc[0] for role, rows in completions.groupby("role")}


def _win_rates(labels: pd.DataFrame, comparisons: pd.DataFrame, ids: dict[str, str], judge: str) -> list[WinRate]:
    """The policy's win rates against SFT and the behaviour policy, which are one policy in the first round."""
    return [
        win_rate_from_labels(labels, comparisons, ids[POLICY], ids[role], judge=judge, against=role)
        for role in (SFT, BEHAVIOUR)
    ]
