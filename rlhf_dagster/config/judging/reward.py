"""Settings of what PPO is rewarded for: the reward model, something else, or a weighted sum of several."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.judging.judge import JudgeSettings

RATING_INSTRUCTIONS = (
    "You rate how good a response to a prompt is. Good responses do what the prompt asks, are correct, clear and "
    "harmless, and are no longer than they need to be."
)


class RewardPart(Settings):
    """What every reward has."""

    weight: float = Field(1.0, allow_inf_nan=False)
    """By how much the score is multiplied; below 0 the reward is a penalty."""

    @field_validator("weight")
    @classmethod
    def _counts(cls, weight: float) -> float:
        if weight == 0:
            raise ValueError("a weight of 0 rewards nothing; leave this reward out")
        return weight


class ModelReward(RewardPart):
    """The reward model, trained on the labels of all rounds so far. Its scores of SFT's responses have mean 0 and
    deviation 1."""

    kind: Literal["model"] = "model"
    """What rewards: `model`, `function`, `length`, `format`, `classifier`, `http` (a judge), or `ensemble`, the sum of
    several. The other settings are those of the kind."""


class FunctionReward(RewardPart):
    """A Python function of prompts and responses, which gives one finite number for each response."""

    kind: Literal["function"]
    """Says that it is this."""
    function: str = Field(pattern=r"^.+:.+$")
    """`module:function`, or `file.py:function` relative to the folder of this file; called with a list of prompts and a
    list of responses, and, if it has a parameter `messages`, with the messages of prompts that are chats."""


class LengthReward(RewardPart):
    """0 for a response of the right length, falling evenly to -1 where it is `margin` too long or too short (as the
    soft penalty of Yu et al. 2025, DAPO, does for long ones)."""

    kind: Literal["length"]
    """Says that it is this."""
    unit: Literal["words", "characters"] = "words"
    """What is counted; words are what spaces and line breaks separate, and single characters in scripts that write no
    spaces between words, such as those of Chinese, Japanese and Thai."""
    shortest: int = Field(0, ge=0)
    """The least of them that is right."""
    longest: int | None = Field(None, ge=0)
    """The most of them that is right; null: no response is too long."""
    margin: int = Field(20, ge=1)
    """How far beyond the limits the score has fallen to -1."""

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.longest is None and self.shortest == 0:
            raise ValueError("a length needs `longest`, `shortest` or both")
        if self.longest is not None and self.longest < self.shortest:
            raise ValueError(f"`longest` {self.longest} is less than `shortest` {self.shortest}")
        return self


class FormatReward(RewardPart):
    """1 for a response that has a form, 0 for any other."""

    kind: Literal["format"]
    """Says that it is this."""
    pattern: str = Field(min_length=1)
    """Regular expression of Python, in which `.` is also a line break."""
    matches: Literal["whole", "anywhere"] = "whole"
    """Whether the whole response has this form, or some part of it."""

    @field_validator("pattern")
    @classmethod
    def _is_a_pattern(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return pattern


class ClassifierReward(RewardPart):
    """The log-odds or probability that a text classifier gives to a label: a sentiment model, a toxicity model."""

    kind: Literal["classifier"]
    """Says that it is this."""
    folder: str = Field(min_length=1)
    """Folder of a sequence classifier of transformers, relative to the folder of this file."""
    label: str = Field(min_length=1)
    """Name of the label in the classifier's config, or its number."""
    value: Literal["log_odds", "probability"] = "log_odds"
    """log p / (1 - p), which has no bounds, or p."""
    reads: Literal["response", "both"] = "response"
    """The response alone, or prompt and response one after the other."""
    batch_size: int = Field(32, ge=1)
    """Responses classified at once."""


class HttpReward(JudgeSettings, RewardPart):
    """The rating of each response by a language model behind an OpenAI-compatible address, from -1 (`lowest`) to 1
    (`highest`)."""

    kind: Literal["http"]
    """Says that it is this."""
    instructions: str = Field(RATING_INSTRUCTIONS, min_length=1)
    """What the judge is told to look for; the form of its answer is added."""
    lowest: int = 1
    """The worst rating."""
    highest: int = 10
    """The best rating."""
    unreadable: float | None = Field(None, allow_inf_nan=False)
    """Score, from -1 to 1, of a response for which all tries bring no answer that can be read; they are counted as a
    warning. null ends the training instead."""

    @model_validator(mode="after")
    def _scale_has_room(self) -> Self:
        if self.highest <= self.lowest:
            raise ValueError(f"`highest` {self.highest} is not above `lowest` {self.lowest}")
        return self


def _kind_of(value: Any) -> Any:
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


def _by_kind(kinds: str) -> Discriminator:
    # Not by the name of the field: its validators, which all settings have, would have to come after.
    return Discriminator(_kind_of, "kind", f"needs a mapping whose `kind` is one of {kinds}")


_TERMS = "model, function, length, format, classifier, http"
RewardTerm = Annotated[
    Annotated[ModelReward, Tag("model")]
    | Annotated[FunctionReward, Tag("function")]
    | Annotated[LengthReward, Tag("length")]
    | Annotated[FormatReward, Tag("format")]
    | Annotated[ClassifierReward, Tag("classifier")]
    | Annotated[HttpReward, Tag("http")],
    _by_kind(_TERMS),
]
"""A reward by itself."""


class EnsembleReward(Settings):
    """The sum of several rewards, each times its weight."""

    kind: Literal["ensemble"]
    """Says that it is this."""
    parts: list[RewardTerm] = Field(min_length=1)
    """The rewards, each with its `kind` and `weight`."""

    @model_validator(mode="after")
    def _one_reward_model(self) -> Self:
        if sum(isinstance(part, ModelReward) for part in self.parts) > 1:
            raise ValueError("the reward model is named twice; give it one weight")
        return self


RewardSettings = Annotated[
    Annotated[ModelReward, Tag("model")]
    | Annotated[FunctionReward, Tag("function")]
    | Annotated[LengthReward, Tag("length")]
    | Annotated[FormatReward, Tag("format")]
    | Annotated[ClassifierReward, Tag("classifier")]
    | Annotated[HttpReward, Tag("http")]
    | Annotated[EnsembleReward, Tag("ensemble")],
    _by_kind(f"{_TERMS}, ensemble"),
]
"""What PPO is rewarded for."""


def terms_of(reward: RewardSettings) -> list[RewardTerm]:
    """The rewards that are added up."""
    return list(reward.parts) if isinstance(reward, EnsembleReward) else [reward]


def uses_reward_model(reward: RewardSettings) -> bool:
    """Whether the loop's reward model is among what PPO is rewarded for."""
    return any(isinstance(term, ModelReward) for term in terms_of(reward))
