"""Two responses, one of which is better, perhaps by how much."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.label_studio.kinds.base import (
    CANNOT_DECIDE,
    CHOICES,
    MUCH,
    SLIGHTLY,
    Control,
    Result,
    Values,
    _alias,
    choice_in,
)
from rlhf_dagster.labeling.label_studio.markup import _SIDES, KEYS, _answer, _cards, _choices


def _pair(settings: LabelingSettings) -> Iterable[str]:
    strong = [("A is much better", "A2"), ("A is slightly better", "A1"), ("Tie", "tie")]
    strong += [("B is slightly better", "B1"), ("B is much better", "B2")]
    options = strong if settings.strength else _SIDES
    asked = _choices("preference", options, iter(KEYS), cannot=True, required="Choose one, or skip the task.")
    return [_cards(2), _answer(asked)]


STEPS = {"A2": (0, MUCH), "A1": (0, SLIGHTLY), "B1": (1, SLIGHTLY), "B2": (1, MUCH)}


@dataclass(frozen=True)
class PairPage:
    strength: bool

    def controls(self) -> dict[str, Control]:
        return {"preference": Control("choices")}

    def decode(self, values: Values) -> dict[str, Any]:
        aliases = [*STEPS, "tie"] if self.strength else list(CHOICES)
        chosen = choice_in(values, "preference", [*aliases, CANNOT_DECIDE])
        if chosen == CANNOT_DECIDE:
            return {"cannot_decide": True}
        if chosen in CHOICES:
            return {"choice": CHOICES[chosen]}
        position, strength = STEPS[chosen]
        return {"choice": position, "strength": strength}

    def encode(self, result: Result) -> dict[str, Any]:
        if "cannot_decide" in result:
            return {"preference": [CANNOT_DECIDE]}
        alias = _alias(result["choice"])
        if self.strength and alias != "tie":
            alias += "2" if (result.get("strength") or 0.0) > (MUCH + SLIGHTLY) / 2 else "1"
        return {"preference": [alias]}
