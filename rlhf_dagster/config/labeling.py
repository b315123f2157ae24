"""Settings of comparisons and labels."""

import textwrap
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from rlhf_dagster.config.base import LATER, Settings
from rlhf_dagster.config.judging.judge import MachineAnnotator
from rlhf_dagster.records.answers import AXIS_PATTERN
from rlhf_dagster.records.kinds import RANKED_KINDS, RankedName


def _what_is_decided() -> str:
    *others, last = (kind.decides for kind in RANKED_KINDS.values())
    return textwrap.fill(f"What an annotator decides: {', '.join(others)}, or {last}.", 115)


class LabelingSettings(Settings):
    kind: RankedName = Field("best_of_k", description=_what_is_decided())
    responses_per_prompt: int = Field(4, ge=2, le=9)
    """Responses compared at once; a `pair` always has 2."""
    strength: bool = True
    """Whether a `pair` also asks how much better the better one is (two steps)."""
    rating_axes: list[str] = Field(["overall", "helpful", "harmless"], min_length=1)
    """What a `rating` rates; the first axis decides the ranks."""
    evaluation_axes: list[str] = Field([])
    """What an A/B judgment decides besides which response is better overall, such as `helpful` and `honest`."""
    comparisons_per_round: int = Field(1500, ge=1)
    both_orders: bool = False
    """Ask about each comparison twice, the second time with the responses in the opposite order."""
    overlap: float = Field(0.15, ge=0, le=1)
    """Share of comparisons that `overlap_labels` annotators judge, from which agreement is measured."""
    overlap_labels: int = Field(3, ge=2)
    gold_share: float = Field(0.0, ge=0, le=0.5)
    """Gold questions (known answer) mixed in, as a share of `comparisons_per_round`; never trained on. They come from
    `rlhf import gold`, or from the task's gold judge."""
    repeat_share: float = Field(0.0, ge=0, le=0.5)
    """Comparisons asked a second time, from which self-consistency is measured, as a share of
    `comparisons_per_round`; never trained on."""
    challenger_share: float = Field(0.0, ge=0, le=0.5)
    """Comparisons of the champion with the newest policy that was not promoted, as a share of
    `comparisons_per_round`."""
    drift_share: float = Field(0.0, ge=0, le=0.5)
    """Comparisons of an SFT response with a demonstration of the same prompt, as a share of `comparisons_per_round`;
    never trained on. Annotators who stay the same decide these the same in every round."""
    selection: Literal["random", "margin", "disagreement"] = "random"
    """Which candidates are labelled: drawn at random (`random`), those where the reward model's scores of the two best
    responses lie closest (`margin`), or those on which its `reward_model.heads` disagree most about the best response
    (`disagreement`)."""
    selection_pool: float = Field(2.0, ge=1)
    """Candidates sampled for each comparison wanted, where the reward model chooses."""
    selection_random: float = Field(0.25, ge=0, le=1)
    """Share drawn at random all the same, so that accuracy can be measured without bias, where the reward model
    chooses."""
    held_out_annotators: float = Field(0.2, ge=0, lt=1)
    """Share of the annotators whose labels the reward model never trains on. One person alone, as of a team of three,
    is held out only where that costs at most twice this share of the labels."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of the prompts, or of the comparisons, kept from reward-model training."""
    validation_by: Literal["prompt", "comparison"] = "prompt"
    """`prompt` measures on new prompts; `comparison`, for few prompts with many comparisons each, on known ones."""
    weights: Literal["equal", "competence"] = "equal"
    """Weight of a label in training: the same for all, or by its annotator's estimated competence."""
    leave_out: Literal["nobody", "flagged"] = "nobody"
    """Whose labels are not trained on; `flagged` leaves out everybody whom `label_quality` flags for review. The
    papers found that filtering hurts."""
    instructions: str = ""
    """What annotators are told, in Markdown; shown before they begin. Empty: general instructions for the kind."""
    judge: MachineAnnotator | None = Field(None, json_schema_extra=LATER)
    """A language model that labels beside people, or in their place; null: people alone."""

    @property
    def responses(self) -> int:
        return RANKED_KINDS[self.kind].responses or self.responses_per_prompt

    @field_validator("rating_axes", "evaluation_axes")
    @classmethod
    def _axes_are_names(cls, axes: list[str]) -> list[str]:
        import re

        wrong = [axis for axis in axes if not re.fullmatch(AXIS_PATTERN, axis)]
        if wrong:
            raise ValueError(f"an axis is a name of small letters and underscores, not {wrong[0]!r}")
        if len(set(axes)) < len(axes):
            raise ValueError("an axis is named twice")
        return axes

    @model_validator(mode="after")
    def _extras_leave_room(self) -> Self:
        shares = self.gold_share + self.repeat_share + self.challenger_share + self.drift_share
        if shares > 1:
            raise ValueError(f"gold, repeat, challenger and drift shares add up to {shares:g}; keep them to 1 or less")
        return self


class LabelStoreSettings(Settings):
    kind: Literal["embedded", "label_studio"] = "embedded"
    """`embedded`: an SQLite file beside the loop's tables. `label_studio`: a Label Studio server, where people work."""
    url: str = Field("http://127.0.0.1:8080", pattern=r"^https?://[^\s]+[^/\s]$")
    """Address of Label Studio."""
    token_variable: str = Field("LABEL_STUDIO_API_KEY", pattern=r"^[A-Z][A-Z0-9_]*$")
    """Environment variable that holds the access token (either kind). For the server that `rlhf label-studio up`
    starts it need not be set. Its name has LABEL_STUDIO in it, or begins with RLHF_, so that no other secret is
    sent."""
    timeout: float = Field(60.0, gt=0)
    """Seconds to wait for an answer."""
    simulated_annotators: bool = True
    """Let the task's simulated annotators answer as soon as a batch arrives; false where people label."""

    @field_validator("token_variable")
    @classmethod
    def _is_for_label_studio(cls, value: str) -> str:
        if "LABEL_STUDIO" not in value and not value.startswith("RLHF_"):
            raise ValueError("must have LABEL_STUDIO in its name, or begin with RLHF_, so that no other secret is sent")
        return value

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            usable = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("must be an address such as http://127.0.0.1:8080, without user or password")
        return value
