"""What the pages of all kinds share: controls, values, and choices in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlhf_dagster.labeling.forms import UnreadableError

MUCH, SLIGHTLY = 1.0, 0.5
"""Strength of the two steps of a pair."""

CANNOT_DECIDE = "cannot_decide"

CHOICES: dict[str, int | str] = {"A": 0, "B": 1, "tie": "tie"}

Values = Mapping[str, Any]

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Control:
    """A control of a page."""

    type: str
    to_name: str = "prompt"


class Page(Protocol):
    def controls(self) -> dict[str, Control]: ...

    def decode(self, values: Values) -> dict[str, Any]: ...

    def encode(self, result: Result) -> dict[str, Any]: ...


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


def _alias(choice: int | str) -> str:
    return next(alias for alias, meaning in CHOICES.items() if meaning == choice)
