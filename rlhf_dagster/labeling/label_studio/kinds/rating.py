"""Several responses, each rated on one or more axes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.forms import HIGHEST_RATING, LOWEST_RATING, UnreadableError
from rlhf_dagster.labeling.label_studio.kinds.base import CANNOT_DECIDE, Control, Result, Values, choices_in
from rlhf_dagster.labeling.label_studio.markup import KEYS, _answer, _cards, _choices, _scale, _unless, _words
from rlhf_dagster.labeling.label_studio.ranker import LETTERS


def _rating(settings: LabelingSettings) -> Iterable[str]:
    keys = iter(KEYS)

    def stars(letter: str) -> str:
        scales = [_scale(f"{letter}_{axis}", letter, _words(axis), keys) for axis in settings.rating_axes]
        there = f'<View className="rl-ratings" {_unless("absent", letter.upper())}>' + "\n".join(scales) + "</View>"
        return f"<View {_unless('rating_status', 'cannot_decide')}>{there}</View>"

    # What is hidden need not be answered: all stars where it cannot be decided, and those of a response that a task
    # does not have. That comes with the task, as a choice made already.
    absent = '<Choices name="absent" toName="prompt" choice="multiple" value="$absent"/>'
    status = _choices("rating_status", [], keys, cannot=True, multiple=True)
    cards = _cards(settings.responses, stars)
    return [f'<View className="rl-absences">{absent}</View>', cards, _answer(status)]


@dataclass(frozen=True)
class RatingPage:
    letters: str
    axes: Sequence[str]

    def controls(self) -> dict[str, Control]:
        ratings = {f"{letter}_{axis}": Control("rating", letter) for letter in self.letters for axis in self.axes}
        # `absent` names the responses that a task does not have; the page marks them by itself.
        return ratings | {"rating_status": Control("choices"), "absent": Control("choices")}

    def decode(self, values: Values) -> dict[str, Any]:
        names = [f"{letter}_{axis}" for letter in self.letters for axis in self.axes]
        if choices_in(values, "rating_status", [CANNOT_DECIDE]):
            # The page hides the stars then, and submits what was given before.
            return {"cannot_decide": True}
        choices_in(values, "absent", list(LETTERS[len(self.letters) :].upper()))
        missing = [name for name in names if name not in values]
        if missing:
            raise UnreadableError(f"`{missing[0]}` was not rated.")
        for name in names:
            _check_rating(name, values[name])
        return {"ratings": {axis: [values[f"{letter}_{axis}"] for letter in self.letters] for axis in self.axes}}

    def encode(self, result: Result) -> dict[str, Any]:
        if "cannot_decide" in result:
            return {"rating_status": [CANNOT_DECIDE]}
        return {
            f"{letter}_{axis}": rating
            for axis, ratings in result["ratings"].items()
            for letter, rating in zip(self.letters, ratings, strict=True)
        }


def _check_rating(control: str, rating: Any) -> None:
    if isinstance(rating, bool) or not isinstance(rating, int) or not LOWEST_RATING <= rating <= HIGHEST_RATING:
        raise UnreadableError(f"`{control}` is not a whole number from {LOWEST_RATING} to {HIGHEST_RATING}.")
