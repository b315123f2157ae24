"""Arms: the ways in which a round learns from its labels, side by side. What the loop knows of each stands in its row.

An arm that trains also needs settings of its name in the config, a stage (:mod:`rlhf_dagster.loop.trainings`) that runs
one of the trainings (:mod:`rlhf_dagster.compute.trainings`), and an asset (:mod:`rlhf_dagster.assets.policy`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """One way to learn from the labels."""

    name: str
    """Its name in the config, and whom its responses stand for in evaluations where another arm's policy is judged."""
    title: str
    """Its name for people; ``{n}`` is replaced by `evaluation.best_of_n`."""
    headline: tuple[str, ...] = ()
    """Metadata of its asset that the terminal shows when it is made."""
    trains: bool = True
    """Whether it makes a policy of its own, which may be promoted."""

    @property
    def kind(self) -> str:
        """Kind of the policies that it registers; empty for an arm that trains none."""
        return self.name if self.trains else ""

    @property
    def asset(self) -> str:
        """The asset that is its policy; empty for an arm that trains none."""
        return f"{self.kind}_policy" if self.kind else ""


PPO = Arm("ppo", "PPO", ("model_id", "reward", "kl"))
RLOO = Arm("rloo", "RLOO", ("model_id", "reward", "kl"))
GRPO = Arm("grpo", "GRPO", ("model_id", "reward", "kl"))
DPO = Arm("dpo", "DPO", ("model_id", "accuracy_validation", "reward_margin_validation"))
BEST_OF_N_SFT = Arm("best_of_n_sft", "Best-of-n SFT", ("model_id", "train_loss", "reward_of_best"))
BEST_OF_N = Arm("best_of_n", "Best of {n}", trains=False)
"""Of n samples of the SFT policy the one that the reward model likes best: a policy without a training."""

ARMS = (PPO, RLOO, GRPO, DPO, BEST_OF_N_SFT, BEST_OF_N)
"""All arms, in the order in which reports show them."""
TRAINED = {arm.name: arm for arm in ARMS if arm.trains}
"""By name, the arms that `arms` and `release.arm` in the config can ask for."""


def arm_of(kind: str) -> Arm | None:
    """The arm that registers policies of a kind; None for kinds that no arm makes, such as ``sft``."""
    return TRAINED.get(kind)
