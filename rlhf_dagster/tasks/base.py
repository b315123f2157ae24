"""What a task gives the loop: prompts, demonstrations, text to pretrain on, a gold judge and simulated annotators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[str, ...] = get_args(Split)
"""In the order of how far they are held out."""


@dataclass(frozen=True)
class Judgment:
    """What one annotator answered to one comparison."""

    ranks: list[int] | None
    """Rank of each response in the order shown; 1 is best, equal ranks tie; None means `cannot decide`."""
    seconds: float
    """Time spent, in seconds."""
    strength: float | None = None
    """How much better the better one of a pair is, 0.5 (slightly) or 1 (much); None where nothing is better."""
    ratings: Mapping[str, Sequence[int]] | None = None
    """For the kind `rating`: by axis, from 1 (worst) to 7, in the order shown; ``overall`` stands in for an axis that
    is not there."""


class SimulatedAnnotator(Protocol):
    """A stand-in for a person, who sees nothing but the texts."""

    @property
    def name(self) -> str: ...

    def judge(self, prompt: str, responses: Sequence[str], kind: str, key: str) -> Judgment:
        """Compare ``responses``, given in the order shown.

        ``kind`` is one of :data:`rlhf_dagster.records.kinds.RANKED_KINDS`; ``key`` is the comparison's id. The
        judgment depends on the annotator, its seed and these arguments alone.
        """
        ...


class Task(Protocol):
    """A source of text with a known right answer; everything is deterministic in ``seed``.

    ``split`` is ``train``, ``validation`` or ``test``, and always that of the prompt: a demonstration or a document
    belongs to the split that its own prompt belongs to.
    """

    @property
    def name(self) -> str: ...

    def prompts(self, n: int, seed: int, split: str) -> list[str]:
        """``n`` distinct prompts."""
        ...

    def demonstrations(self, n: int, seed: int, split: str) -> list[tuple[str, str]]:
        """``n`` distinct pairs of prompt and response."""
        ...

    def pretraining_text(self, n: int, seed: int, split: str) -> list[str]:
        """``n`` distinct documents."""
        ...

    def gold_score(self, prompt: str, response: str) -> float:
        """How good the response is; for simulated annotators and final measurement only, never for training."""
        ...

    def annotators(self, seed: int) -> Sequence[SimulatedAnnotator]:
        """The simulated annotators, whose characters depend on ``seed``."""
        ...
