"""An A/B judgment: two policies' responses, compared overall and by axis."""

from collections.abc import Iterable
from typing import Any

from rlhf_dagster.labeling.label_studio.kinds.base import (
    CANNOT_DECIDE,
    CHOICES,
    Control,
    Page,
    Result,
    Values,
    alias_of,
    choice_in,
)
from rlhf_dagster.labeling.label_studio.markup import (
    KEYS,
    SIDES,
    answer_panel,
    axis_words,
    choice_row,
    heading,
    response_cards,
    unless_chosen,
)
from rlhf_dagster.records.answers import UnreadableError


class AbPage(Page):
    @property
    def room(self) -> int:
        return 2

    def instructions(self) -> str:
        return "Read the prompt and both responses, then say which is better."

    def markup(self) -> Iterable[str]:
        keys, decided = iter(KEYS), unless_chosen("overall", CANNOT_DECIDE)
        axes = []
        for axis in self.settings.evaluation_axes:
            required = f"Choose for {axis_words(axis)} too, or skip the task."
            asked = choice_row(f"axis_{axis}", SIDES, keys, required=required, unless=decided)
            axes.append(f"<View {decided}>{heading(axis_words(axis))}{asked}</View>")
        overall = choice_row("overall", SIDES, keys, cannot=True, required="Choose one overall, or skip the task.")
        row = ['<View className="rl-axes">', *axes, "</View>"] if axes else []
        return [response_cards(self.room), answer_panel(*row, heading("Overall"), overall)]

    def controls(self, k: int) -> dict[str, Control]:
        return {name: Control("choices") for name in ("overall", *self._axes().values())}

    def _axes(self) -> dict[str, str]:
        """The name of each axis' control."""
        return {axis: f"axis_{axis}" for axis in self.settings.evaluation_axes}

    def decode(self, values: Values, k: int) -> dict[str, Any]:
        """Either all axes are answered or, in an annotation made through the API, none."""
        overall = choice_in(values, "overall", [*CHOICES, CANNOT_DECIDE])
        answer = {"cannot_decide": True} if overall == CANNOT_DECIDE else {"choice": CHOICES[overall]}
        names = self._axes()
        missing = [name for name in names.values() if name not in values]
        if len(missing) == len(names):
            return answer
        if missing:
            raise UnreadableError(f"`{missing[0]}` was not answered.")
        return answer | {
            "axes": {axis: CHOICES[choice_in(values, name, list(CHOICES))] for axis, name in names.items()}
        }

    def encode(self, result: Result, k: int) -> dict[str, Any]:
        overall = CANNOT_DECIDE if "cannot_decide" in result else alias_of(result["choice"])
        axes = {f"axis_{axis}": [alias_of(choice)] for axis, choice in result.get("axes", {}).items()}
        return {"overall": [overall]} | axes
