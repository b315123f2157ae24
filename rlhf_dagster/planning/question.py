"""What is asked of a plan."""

import math
from dataclasses import dataclass

from rlhf_dagster.errors import UserError
from rlhf_dagster.planning.devices import Gpu


@dataclass(frozen=True)
class PlanQuestion:
    """A loop's size in figures of one's own; each must be above 0."""

    model: str
    """What the model is called."""
    labels_per_day: float
    prompts_per_second: float
    """Prompts that the champion answers for its users."""
    gpu: Gpu
    prompt_tokens: float = 512
    """Mean length of a prompt."""
    response_tokens: float = 256
    """Mean length of a response."""
    seconds_per_label: float = 60
    round_days: float = 7
    """Days from one training to the next."""

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, int | float)}
        for name, value in (numbers | {"gpu_gib": self.gpu.gib}).items():
            if not 0 < value < math.inf:
                raise UserError(f"--{name.replace('_', '-')} is {value:g}; give a number above 0.")
