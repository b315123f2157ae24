"""What a check has found."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder


@dataclass(frozen=True)
class CheckOutcome:
    """Whether all is well, and a sentence that says so or says what is not, with what mends it."""

    passed: bool
    sentence: str
    figures: Mapping[str, float | None] = field(default_factory=dict)
    wrong: bool = False
    """Something is wrong, and not only worth a look."""


Look = Callable[[LoopFolder, str], CheckOutcome]
"""From a loop and a round, which is empty where an asset belongs to none, to what was found.

Raises UserError where the asset is not made yet, or cannot be read.
"""


class NotMadeYet(UserError):  # noqa: N818  # it is no error of anybody
    """What is to be looked at is not there."""

    def __init__(self, asset: str, round_key: str) -> None:
        super().__init__(f"{asset}{f' of {round_key}' if round_key else ''} is not there yet; materialise it first.")


def well(sentence: str, **figures: float | None) -> CheckOutcome:
    """All is well."""
    return CheckOutcome(True, sentence, figures)


def noticed(sentence: str, **figures: float | None) -> CheckOutcome:
    """Something is worth a look."""
    return CheckOutcome(False, sentence, figures)
