"""Two responses, one of which is better, perhaps by how much."""

from collections.abc import Iterable
from typing import Any

from rlhf_dagster.labeling.label_studio.kinds.base import (
    CANNOT_DECIDE,
    CHOICES,
    MUCH,
    SLIGHTLY,
    Control,
    Page,
    Result,
    Values,
    alias_of,
    choice_in,
)
from rlhf_dagster.labeling.label_studio.markup import KEYS, SIDES, answer_panel, choice_row, response_cards

STEPS = {"A2": (0, MUCH), "A1": (0, SLIGHTLY), "B1": (1, SLIGHTLY), "B2": (1, MUCH)}
"""By alias, which response is better and how much."""
STRONG_SIDES = [
    ("A is much better", "A2"),
    ("A is slightly better", "A1"),
    ("Tie", "tie"),
    ("B is slightly better", "B1"),
    ("B is much better", "B2"),
]


class PairPage(Page):
    @property
    def room(self) -> int:
        return 2

    def instructions(self) -> str:
        strength = ", and how much better" if self.settings.strength else ""
        return f"Read the prompt and both responses, then say which response is better{strength}."

    def markup(self) -> Iterable[str]:
        options = STRONG_SIDES if self.settings.strength else SIDES
        asked = choice_row("preference", options, iter(KEYS), cannot=True, required="Choose one, or skip the task.")
        return [response_cards(self.room), answer_panel(asked)]

    def controls(self, k: int) -> dict[str, Control]:
        return {"preference": Control("choices")}

    def decode(self, values: Values, k: int) -> dict[str, Any]:
        aliases = [*STEPS, "tie"] if self.settings.strength else list(CHOICES)
        chosen = choice_in(values, "preference", [*aliases, CANNOT_DECIDE])
        if chosen == CANNOT_DECIDE:
            return {"cannot_decide": True}
        if chosen in CHOICES:
            return {"choice": CHOICES[chosen]}
        position, strength = STEPS[chosen]
        return {"choice": position, "strength": strength}

    def encode(self, result: Result, k: int) -> dict[str, Any]:
        """Strength has two steps: above 0.75 is *much better*; anything else, also none, *slightly better*."""
        if "cannot_decide" in result:
            return {"preference": [CANNOT_DECIDE]}
        alias = alias_of(result["choice"])
        if self.settings.strength and alias != "tie":
            alias += "2" if (result.get("strength") or 0.0) > (MUCH + SLIGHTLY) / 2 else "1"
        return {"preference": [alias]}
