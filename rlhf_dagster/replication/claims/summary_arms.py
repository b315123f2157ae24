"""The loops of the summaries task that several claims share, so that each is run once."""

from collections.abc import Mapping
from typing import Any

from rlhf_dagster.config.base import overlaid
from rlhf_dagster.evaluation.win_rate import SFT
from rlhf_dagster.replication.base import Results, Size, Variant
from rlhf_dagster.replication.claims.arms import OPEN_GATE, TEST_PROMPTS
from rlhf_dagster.replication.measures.answers import VariantAnswers, answers_of, on_same_prompts

SUMMARY_TASK = "summaries"
HEURISTIC, CHECKING = "heuristic", "checking"
"""Kinds of people: who goes by the looks of a summary, as the paper's did, and who reads the text beside it."""
SUMMARIES_COMPARED: Mapping[Size, int] = {"quick": 800, "full": 3000}
SUMMARY_UPDATES: Mapping[Size, int] = {"quick": 60, "full": 120}
"""Of PPO."""
SUMMARY_NATS: Mapping[Size, float | None] = {"quick": None, "full": 3.0}
"""KL to which policies are steered, for the reason of :data:`~rlhf_dagster.replication.claims.arms.NATS`."""
UNTRAINED, RL, SUPERVISED, BOTH = "zero-shot", "RL", "SFT", "SFT + RL"
"""The four policies of the paper."""
FOUR = (UNTRAINED, RL, SUPERVISED, BOTH)


def prepared(size: Size) -> Variant:
    """Data, base model and SFT, with which all others begin."""
    return Variant(_named("prepared", size), SUMMARY_TASK, _settings(size), until="sft_checkpoint")


def rl_alone(size: Size) -> Variant:
    """PPO from the base model as it is, on the labels of people who go by heuristics."""
    return _variant("rl-alone", size, {"sft": {"epochs": 0}} | _labelled_by(HEURISTIC), prepared(size), "base_model")


def rl_checked(size: Size) -> Variant:
    """The same samples, labelled by people who check what a summary says."""
    return _variant("rl-checked", size, {"sft": {"epochs": 0}} | _labelled_by(CHECKING), rl_alone(size), "completions")


def sft_and_rl(size: Size) -> Variant:
    """PPO from the SFT policy, on the labels of people who go by heuristics."""
    return _variant("sft-and-rl", size, _labelled_by(HEURISTIC), prepared(size), "sft_checkpoint")


def four_policies(results: Results, size: Size) -> dict[str, VariantAnswers]:
    """The responses of :data:`FOUR` to the same prompts. Of a loop without SFT, its SFT policy is the base model."""
    alone, both = results.loop(rl_alone(size)), results.loop(sft_and_rl(size))
    found = answers_of(alone, SFT), answers_of(alone), answers_of(both, SFT), answers_of(both)
    return dict(zip(FOUR, on_same_prompts(*found), strict=True))


def _variant(name: str, size: Size, settings: Mapping[str, Any], forks: Variant, after: str) -> Variant:
    steered = overlaid(_settings(size), {"ppo": {"kl_target": SUMMARY_NATS[size]}})
    return Variant(_named(name, size), SUMMARY_TASK, overlaid(steered, dict(settings)), forks=forks, after=after)


def _named(name: str, size: Size) -> str:
    return f"{SUMMARY_TASK}-{SUMMARIES_COMPARED[size]}-{name}"


def _settings(size: Size) -> dict[str, Any]:
    return {
        "labeling": {"comparisons_per_round": SUMMARIES_COMPARED[size]},
        "reward_model": {"accept_chance": True},
        "ppo": {"updates": SUMMARY_UPDATES[size]},
        "evaluation": {"prompts": TEST_PROMPTS, "human_judgments": 0},
        "gate": OPEN_GATE,
    }


def _labelled_by(kind: str) -> dict[str, Any]:
    return {"data": {"annotator_kind": kind}}
