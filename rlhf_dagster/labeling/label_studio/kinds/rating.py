"""Several responses, each rated on one or more axes."""

from collections.abc import Iterable, Iterator
from typing import Any

from rlhf_dagster.labeling.label_studio.kinds.base import CANNOT_DECIDE, Control, Page, Result, Values, choices_in
from rlhf_dagster.labeling.label_studio.markup import (
    KEYS,
    answer_panel,
    axis_words,
    choice_row,
    response_cards,
    star_scale,
    unless_chosen,
)
from rlhf_dagster.labeling.label_studio.ranker import LETTERS
from rlhf_dagster.records.answers import UnreadableError, is_whole
from rlhf_dagster.records.kinds import HIGHEST_RATING, LOWEST_RATING


class RatingPage(Page):
    def instructions(self) -> str:
        return (
            "Rate every response from 1 star (very poor) to 7 stars (excellent) on every scale. Each press of a "
            "scale's key adds a star."
        )

    def markup(self) -> Iterable[str]:
        # Hidden stars need not be given. `cannot decide` hides all of them; `absent`, which a task brings with its
        # choices already made, hides those of responses that the task does not have.
        keys = iter(KEYS)
        absent = '<Choices name="absent" toName="prompt" choice="multiple" value="$absent"/>'
        cards = response_cards(self.room, lambda letter: self._stars(letter, keys))
        status = choice_row("rating_status", [], keys, cannot=True, multiple=True)
        return [f'<View className="rl-absences">{absent}</View>', cards, answer_panel(status)]

    def _stars(self, letter: str, keys: Iterator[str]) -> str:
        """The scales of one response."""
        scales = [star_scale(f"{letter}_{axis}", letter, axis_words(axis), keys) for axis in self.settings.rating_axes]
        there = unless_chosen("absent", letter.upper())
        shown = f'<View className="rl-ratings" {there}>' + "\n".join(scales) + "</View>"
        return f"<View {unless_chosen('rating_status', CANNOT_DECIDE)}>{shown}</View>"

    def controls(self, k: int) -> dict[str, Control]:
        ratings = {name: Control("rating", name[0]) for name in self._names(k)}
        # `absent` names the responses that a task does not have; the page marks them by itself.
        return ratings | {"rating_status": Control("choices"), "absent": Control("choices")}

    def _names(self, k: int) -> list[str]:
        return [f"{letter}_{axis}" for letter in LETTERS[:k] for axis in self.settings.rating_axes]

    def task_data(self, k: int) -> dict[str, Any]:
        return {"absent": [{"value": letter.upper(), "selected": True} for letter in LETTERS[k : self.room]]}

    def decode(self, values: Values, k: int) -> dict[str, Any]:
        if choices_in(values, "rating_status", [CANNOT_DECIDE]):
            # The page hides the stars then, but still submits those given before.
            return {"cannot_decide": True}
        choices_in(values, "absent", list(LETTERS[k:].upper()))
        missing = [name for name in self._names(k) if name not in values]
        if missing:
            raise UnreadableError(f"`{missing[0]}` was not rated.")
        for name in self._names(k):
            _check_rating(name, values[name])
        axes = self.settings.rating_axes
        return {"ratings": {axis: [values[f"{letter}_{axis}"] for letter in LETTERS[:k]] for axis in axes}}

    def encode(self, result: Result, k: int) -> dict[str, Any]:
        if "cannot_decide" in result:
            return {"rating_status": [CANNOT_DECIDE]}
        return {
            f"{letter}_{axis}": rating
            for axis, ratings in result["ratings"].items()
            for letter, rating in zip(LETTERS[:k], ratings, strict=True)
        }


def _check_rating(control: str, rating: Any) -> None:
    if not is_whole(rating) or not LOWEST_RATING <= rating <= HIGHEST_RATING:
        raise UnreadableError(f"`{control}` is not a whole number from {LOWEST_RATING} to {HIGHEST_RATING}.")
