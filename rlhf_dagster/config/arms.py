"""Arms: the ways in which a round learns from its labels, side by side. What the loop knows of each stands in its row.

An arm that trains also needs settings of its name in the config, a stage (:mod:`rlhf_dagster.loop.trainings`) that runs
one of the trainings (:mod:`rlhf_dagster.compute.trainings`), and an asset.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """One way to learn from the labels."""

    role: str
    """Whom its responses stand for in evaluations; for arms beside the candidate also its name in the config."""
    title: str
    """Its name for people; ``{n}`` is replaced by `evaluation.best_of_n`."""
    kind: str = ""
    """Kind of the policies that it registers; empty for an arm that trains none."""
    promotable: bool = False
    """Whether the gate may make its policy the champion."""
    headline: tuple[str, ...] = ()
    """Metadata of its asset that the terminal shows when it is made."""

    @property
    def asset(self) -> str:
        """The asset that is its policy; empty for an arm that trains none."""
        return f"{self.kind}_policy" if self.kind else ""


PPO = Arm("policy", "PPO", "ppo", promotable=True, headline=("model_id", "reward", "kl"))
DPO = Arm("dpo", "DPO", "dpo", headline=("model_id", "accuracy_validation", "reward_margin_validation"))
BEST_OF_N = Arm("best_of_n", "Best of {n}")
"""Of n samples of the SFT policy the one that the reward model likes best: a policy without a training."""

ARMS = (PPO, DPO, BEST_OF_N)
"""All arms, in the order in which reports show them."""
(CANDIDATE,) = (arm for arm in ARMS if arm.promotable)
"""The one arm that every round trains, and whose policy the gate judges; policies of the others are refused."""
TRAINED_BESIDE = {arm.role: arm for arm in ARMS if arm.asset and arm is not CANDIDATE}
"""By name, the arms that `arms` in the config can ask for."""


def arm_of(kind: str) -> Arm | None:
    """The arm that registers policies of a kind; None for kinds that no arm makes, such as ``sft``."""
    return next((arm for arm in ARMS if kind and arm.kind == kind), None)
