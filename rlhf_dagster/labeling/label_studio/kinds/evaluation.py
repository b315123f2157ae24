"""An A/B judgment: two policies' responses, compared overall and by axis."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.forms import UnreadableError
from rlhf_dagster.labeling.label_studio.kinds.base import (
    CANNOT_DECIDE,
    CHOICES,
    Control,
    Result,
    Values,
    _alias,
    choice_in,
)
from rlhf_dagster.labeling.label_studio.markup import _SIDES, KEYS, _answer, _cards, _choices, _title, _unless, _words


def _ab(settings: LabelingSettings) -> Iterable[str]:
    keys, decided = iter(KEYS), _unless("overall", "cannot_decide")
    axes = []
    for axis in settings.evaluation_axes:
        required = f"Choose for {_words(axis)} too, or skip the task."
        asked = _choices(f"axis_{axis}", _SIDES, keys, required=required, unless=decided)
        axes.append(f"<View {decided}>{_title(_words(axis))}{asked}</View>")
    overall = _choices("overall", _SIDES, keys, cannot=True, required="Choose one overall, or skip the task.")
    row = ['<View className="rl-axes">', *axes, "</View>"] if axes else []
    return [_cards(2), _answer(*row, _title("Overall"), overall)]


@dataclass(frozen=True)
class AbPage:
    axes: Sequence[str]

    def controls(self) -> dict[str, Control]:
        return {name: Control("choices") for name in ("overall", *(f"axis_{axis}" for axis in self.axes))}

    def decode(self, values: Values) -> dict[str, Any]:
        """The axes are all there or, in what came through the API, none of them."""
        overall = choice_in(values, "overall", [*CHOICES, CANNOT_DECIDE])
        answer = {"cannot_decide": True} if overall == CANNOT_DECIDE else {"choice": CHOICES[overall]}
        missing = [axis for axis in self.axes if f"axis_{axis}" not in values]
        if len(missing) == len(self.axes):
            return answer
        if missing:
            raise UnreadableError(f"`axis_{missing[0]}` was not answered.")
        chosen = {axis: choice_in(values, f"axis_{axis}", list(CHOICES)) for axis in self.axes}
        return answer | {"axes": {axis: CHOICES[alias] for axis, alias in chosen.items()}}

    def encode(self, result: Result) -> dict[str, Any]:
        overall = CANNOT_DECIDE if "cannot_decide" in result else _alias(result["choice"])
        axes = {f"axis_{axis}": [_alias(choice)] for axis, choice in result.get("axes", {}).items()}
        return {"overall": [overall]} | axes
