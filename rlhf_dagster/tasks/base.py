"""What a task gives the loop: prompts, demonstrations, text to pretrain on, a gold judge and simulated annotators.

:class:`Task` is what every task has. What only some have is a small protocol of its own (``HasReferences``, ...), which
`isinstance` recognises, and a task without it is a whole task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from rlhf_dagster.records.chats import Prompt

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
    axes: Mapping[str, Sequence[int]] | None = None
    """For a pair: its ranks on each axis that the annotator tells apart."""


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
    belongs to the split that its own prompt belongs to. Judges read the text of a prompt: of a chat, that is
    ``str(chat)``.
    """

    @property
    def name(self) -> str: ...

    def prompts(self, n: int, seed: int, split: str) -> Sequence[Prompt]:
        """``n`` distinct prompts: texts, or chats."""
        ...

    def demonstrations(self, n: int, seed: int, split: str) -> Sequence[tuple[Prompt, str]]:
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


@runtime_checkable
class HasSource(Protocol):
    """A task whose responses condense or rewrite a text that the prompt holds."""

    def source(self, prompt: str) -> str:
        """The text that a response is about, without what the prompt asks."""
        ...


@runtime_checkable
class HasReferences(Protocol):
    """A task that knows good responses to each of its prompts, those of the test split included."""

    def references(self, prompt: str) -> Sequence[str]:
        """Good responses to a prompt of this task, for ROUGE; always the same. Empty for a prompt of somebody else."""
        ...


@dataclass(frozen=True)
class Truthfulness:
    """Counts of facts, for one response."""

    key_facts: int
    """What a good response says."""
    covered: int
    """How many of these it says."""
    false: int
    """How many things it says that are not so."""


@runtime_checkable
class HasFacts(Protocol):
    """A task whose gold judge knows what is true."""

    def truthfulness(self, prompt: str, response: str) -> Truthfulness: ...


@runtime_checkable
class HasAxes(Protocol):
    """A task whose gold judge tells several aims apart, which may conflict."""

    @property
    def axes(self) -> Sequence[str]: ...

    def gold_axes(self, prompt: str, response: str) -> Mapping[str, float]:
        """How good the response is on each of :attr:`axes`; higher is better."""
        ...


@runtime_checkable
class HasAnnotatorKinds(Protocol):
    """A task with several kinds of simulated annotators, such as those who check facts and those who do not."""

    @property
    def annotator_kinds(self) -> Sequence[str]:
        """Their names; the first are those whom ``annotators(seed)`` gives."""
        ...

    def annotators_of_kind(self, kind: str, seed: int) -> Sequence[SimulatedAnnotator]:
        """The annotators of one of :attr:`annotator_kinds`."""
        ...


@runtime_checkable
class HasSettings(Protocol):
    """A task that says with which settings a tiny model learns it."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of `loop.yaml` by section, which `rlhf demo --task` writes down; `data.task` is not among them."""
        ...
