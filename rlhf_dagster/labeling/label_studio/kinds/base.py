"""What the pages of all kinds share: what a page is, controls and their values, and choices in them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.records.answers import UnreadableError

MUCH, SLIGHTLY = 1.0, 0.5
"""Strength of the answers `much better` and `slightly better` to a pair."""

CANNOT_DECIDE = "cannot_decide"

CHOICES: dict[str, int | str] = {"A": 0, "B": 1, "tie": "tie"}

JUDGING = """
Judge what is written, not how long it is. The order of the responses means nothing.

- *Cannot decide*: you have read everything and could go either way, or you lack the knowledge.
- **Skip**: you do not want to judge this task at all.
- Mark what applies: *All are bad*, *Unsafe content*, *Broken prompt*. A sentence on why is welcome.
- *Stop the training* if something is badly wrong with the tasks as a whole, and say what.
"""

Values = Mapping[str, Any]
"""By name of the control: the aliases chosen, the texts written, the stars given, or the ranker's object."""

Result = Mapping[str, Any]
"""An answer in the form of its kind (:mod:`rlhf_dagster.records.kinds`), in display positions."""


@dataclass(frozen=True)
class Control:
    """A control of a page."""

    type: str
    to_name: str = "prompt"


@dataclass(frozen=True)
class Page(ABC):
    """The page of one kind of comparison in a project that is made with ``settings``.

    ``k`` is the number of responses of the comparison at hand, which can be less than the page has room for.
    """

    settings: LabelingSettings
    advice: ClassVar[str] = JUDGING
    """What annotators are told besides the kind's own instructions."""

    @property
    def room(self) -> int:
        """How many responses the page can show."""
        return self.settings.responses

    @abstractmethod
    def instructions(self) -> str:
        """What annotators are told to do, in Markdown."""

    @abstractmethod
    def markup(self) -> Iterable[str]:
        """The XML below the prompt.

        Aliases, not the words on the screen, are what is stored. Names of controls are those of :meth:`controls`.
        """

    @abstractmethod
    def controls(self, k: int) -> dict[str, Control]:
        """The controls of the kind's own answer, by name, without those that every page has."""

    def task_data(self, k: int) -> dict[str, Any]:
        """What a task holds besides the texts: values that the markup names with a ``$``."""
        return {}

    @abstractmethod
    def decode(self, values: Values, k: int) -> dict[str, Any]:
        """The answer that the values of the kind's own controls stand for.

        :func:`~rlhf_dagster.labeling.forms.read_answer` can read whatever is returned. Raises
        :class:`~rlhf_dagster.records.answers.UnreadableError`.
        """

    @abstractmethod
    def encode(self, result: Result, k: int) -> dict[str, Any]:
        """The values of the controls that stand for a readable ``result``: the inverse of :meth:`decode`."""


def choices_in(values: Values, control: str, allowed: Sequence[str]) -> list[str]:
    """The aliases chosen in a control; none where it was not answered."""
    chosen: list[str] = values.get(control, [])
    for alias in chosen:
        if alias not in allowed:
            raise UnreadableError(f"`{control}` has no choice {alias[:40]!r} here.")
    if len(set(chosen)) < len(chosen):
        raise UnreadableError(f"`{control}` names a choice twice.")
    return list(chosen)


def choice_in(values: Values, control: str, allowed: Sequence[str]) -> str:
    """The one alias chosen in a control."""
    chosen = choices_in(values, control, allowed)
    if len(chosen) != 1:
        raise UnreadableError(f"`{control}` has {len(chosen)} choices, not one.")
    return chosen[0]


def alias_of(choice: int | str) -> str:
    """The alias of one of :data:`CHOICES`."""
    return next(alias for alias, meaning in CHOICES.items() if meaning == choice)
