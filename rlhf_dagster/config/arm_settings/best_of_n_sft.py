"""Settings of the arm that fine-tunes a policy on the best of its own samples."""

from typing import Literal

from pydantic import Field

from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.schedule import PLAIN, ScheduleSettings
from rlhf_dagster.config.training import LoraSettings, SftSettings

OF_SAMPLING = ("n", "prompts", "start")
"""Settings of what is trained on."""
OF_TRAINING = ("epochs", "batch_size", "learning_rate", "schedule", "accumulate", "lora")
"""Settings of the training."""


class BestOfNSftSettings(Settings):
    """The arm `best_of_n_sft`: supervised fine-tuning on the best of n samples of each prompt by the reward model
    (rejection sampling; RAFT, Dong et al. 2023; Llama 2, section 3.2.3). `batch_size`, `learning_rate`, `schedule`,
    `accumulate` and `lora` are as in `sft` where they are not set here; how texts are read is as in `sft` always."""

    n: int = Field(4, ge=2)
    """Samples of each prompt, of which the one that the reward model scores highest is trained on."""
    prompts: int = Field(1024, ge=1)
    """Most prompts (split `train`) that are answered."""
    start: Literal["sft", "behaviour"] = "behaviour"
    """What is sampled and then trained: the SFT checkpoint, or the policy that the round sampled from (Llama 2: the
    newest)."""
    epochs: float = Field(2.0, gt=0)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(5e-4, gt=0)
    schedule: ScheduleSettings = PLAIN
    accumulate: int = Field(1, ge=1)
    """Backward passes into which each batch is split, to save memory; the gradient stays that of the batch."""
    lora: LoraSettings | None = None
    """Train adapters, merged into the checkpoint; null trains all weights."""

    def as_sft(self, sft: SftSettings) -> SftSettings:
        """The settings of the training, in which texts are read as the loop's SFT reads them."""
        own = {name: getattr(self, name) for name in OF_TRAINING}
        return SftSettings.model_validate(sft.model_dump() | own)
