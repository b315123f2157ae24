"""Settings of comparisons and labels."""

from typing import Literal

from pydantic import Field

from rlhf_dagster.settings import Settings


class LabelingSettings(Settings):
    kind: Literal["pair", "best_of_k"] = "best_of_k"
    """What an annotator decides: the better of two responses, or the best of `responses_per_prompt`."""
    responses_per_prompt: int = Field(4, ge=2, le=9)
    """Responses compared at once; a `pair` always has 2."""
    comparisons_per_round: int = Field(1500, ge=1)
    overlap: float = Field(0.15, ge=0, le=1)
    """Share of comparisons that `overlap_labels` annotators judge, from which agreement is measured."""
    overlap_labels: int = Field(3, ge=2)
    held_out_annotators: float = Field(0.2, ge=0, lt=1)
    """Share of the annotators whose labels the reward model never trains on."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of the prompts, or of the comparisons, kept from reward-model training."""
    validation_by: Literal["prompt", "comparison"] = "prompt"
    """`prompt` measures on new prompts; `comparison`, for few prompts with many comparisons each, on known ones."""

    @property
    def responses(self) -> int:
        return 2 if self.kind == "pair" else self.responses_per_prompt


class LabelStoreSettings(Settings):
    kind: Literal["embedded"] = "embedded"
    """`embedded`: an SQLite file beside the loop's tables."""
    simulated_annotators: bool = True
    """Let the task's simulated annotators answer as soon as a batch arrives; false where people label."""
