"""Settings of the arms whose advantages compare the responses to one prompt: PPO's, without values."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from rlhf_dagster.config.training import PpoSettings

SAMPLES_PER_PROMPT = 4


class GroupAdvantageSettings(PpoSettings):
    """PPO whose advantages are a prompt's rewards against each other."""

    estimator: ClassVar[str]
    """The one that the arm is for."""

    @model_validator(mode="after")
    def _is_the_arm_s_own(self) -> Self:
        if self.advantages != self.estimator:
            raise ValueError(
                f"the arm `{self.section}` has `advantages: {self.estimator}`; others are for `ppo.advantages`"
            )
        return self

    def as_ppo(self) -> PpoSettings:
        """The settings of the training that the arm runs."""
        return PpoSettings.model_validate(self.model_dump())


class RlooSettings(GroupAdvantageSettings):
    """The arm `rloo`: REINFORCE whose baseline is the mean reward of the prompt's other responses (Ahmadian et al.
    2024). Probability ratios are clipped as in PPO, which with one minibatch and one epoch they never are. Every other
    setting of `ppo` can be set here too, and is as there where it is not."""

    section: ClassVar[str] = "rloo"
    estimator: ClassVar[str] = "rloo"
    advantages: Literal["gae", "rloo", "group"] = "rloo"
    """Always `rloo`."""
    samples_per_prompt: int = Field(SAMPLES_PER_PROMPT, ge=1)
    """Responses to each prompt of an update; `batch_size` counts all of them (Ahmadian et al. 2024: 2 or 4)."""


class GrpoSettings(GroupAdvantageSettings):
    """The arm `grpo`: advantages are the rewards of a prompt's responses, scaled to mean 0 and deviation 1 (Shao et al.
    2024). There the KL is a term of the loss; here it is where `kl_penalty` says. Every other setting of `ppo` can be
    set here too, and is as there where it is not."""

    section: ClassVar[str] = "grpo"
    estimator: ClassVar[str] = "group"
    advantages: Literal["gae", "rloo", "group"] = "group"
    """Always `group`."""
    samples_per_prompt: int = Field(SAMPLES_PER_PROMPT, ge=1)
    """Responses to each prompt of an update; `batch_size` counts all of them (Shao et al. 2024: 64)."""
