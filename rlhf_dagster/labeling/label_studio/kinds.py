"""The labelling page of each kind of comparison: its controls, and what their values say.

A page turns *values* (by control: the aliases chosen, the texts written, the stars given, the ranker's object) into
our forms of a result and back. ``decode`` raises :class:`~rlhf_dagster.labeling.forms.UnreadableError`; ``encode``
takes results that could be read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlhf_dagster.labeling.forms import HIGHEST_RATING, LOWEST_RATING, UnreadableError, is_ab
from rlhf_dagster.labeling.label_studio.ranker import LETTERS, ranker_of, ranks_in
from rlhf_dagster.labeling.settings import LabelingSettings

MUCH, SLIGHTLY = 1.0, 0.5
"""Strength of the two steps of a pair."""
CANNOT_DECIDE = "cannot_decide"
CHOICES: dict[str, int | str] = {"A": 0, "B": 1, "tie": "tie"}
STEPS = {"A2": (0, MUCH), "A1": (0, SLIGHTLY), "B1": (1, SLIGHTLY), "B2": (1, MUCH)}

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


@dataclass(frozen=True)
class BestPage:
    letters: str

    def controls(self) -> dict[str, Control]:
        return {"best": Control("choices")}

    def decode(self, values: Values) -> dict[str, Any]:
        chosen = choices_in(values, "best", [*self.letters.upper(), CANNOT_DECIDE])
        if chosen == [CANNOT_DECIDE]:
            return {"cannot_decide": True}
        if CANNOT_DECIDE in chosen:
            raise UnreadableError("`best` says that it cannot be decided and names a response.")
        if not chosen:
            raise UnreadableError("`best` names no response.")
        positions = sorted(self.letters.upper().index(letter) for letter in chosen)
        return {"best": positions[0] if len(positions) == 1 else positions}

    def encode(self, result: Result) -> dict[str, Any]:
        if "cannot_decide" in result:
            return {"best": [CANNOT_DECIDE]}
        best = result["best"] if isinstance(result["best"], list) else [result["best"]]
        return {"best": [self.letters[position].upper() for position in best]}


@dataclass(frozen=True)
class RankingPage:
    k: int

    def controls(self) -> dict[str, Control]:
        return {"rank": Control("ranker", "responses"), "rank_status": Control("choices")}

    def decode(self, values: Values) -> dict[str, Any]:
        status = choice_in(values, "rank_status", ["final", CANNOT_DECIDE])
        ranks, moved = ranks_in(values.get("rank"), self.k)
        if status == CANNOT_DECIDE:
            if moved:
                raise UnreadableError("`rank_status` says that it cannot be decided, and `rank` holds a ranking.")
            return {"cannot_decide": True}
        if ranks is None:
            raise UnreadableError("The ranking is not finished: some responses have no rank.")
        return {"ranks": ranks}

    def encode(self, result: Result) -> dict[str, Any]:
        status = CANNOT_DECIDE if "cannot_decide" in result else "final"
        return {"rank": ranker_of(result.get("ranks"), self.k), "rank_status": [status]}


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


class DemonstrationPage:
    def controls(self) -> dict[str, Control]:
        return {"demonstration": Control("textarea")}

    def decode(self, values: Values) -> dict[str, Any]:
        texts = values.get("demonstration", [])
        if len(texts) != 1:
            raise UnreadableError(f"`demonstration` holds {len(texts)} texts, not one.")
        return {"text": texts[0]}

    def encode(self, result: Result) -> dict[str, Any]:
        return {"demonstration": [result["text"]]}


def page_of(comparison: Mapping[str, Any], settings: LabelingSettings) -> Page:
    """The page of a comparison (a row of COMPARISONS) in a project that was made with ``settings``."""
    k = len(comparison["display_order"])
    if k > len(LETTERS):
        raise UnreadableError(f"A page shows at most {len(LETTERS)} responses, not {k}.")
    pages: dict[str, Page] = {
        "pair": PairPage(settings.strength),
        "best_of_k": BestPage(LETTERS[:k]),
        "ranking": RankingPage(k),
        "rating": RatingPage(LETTERS[:k], settings.rating_axes),
        "demonstration": DemonstrationPage(),
    }
    if comparison["kind"] not in pages:
        raise UnreadableError(f"{str(comparison['kind'])[:40]!r} is no kind of comparison.")
    return AbPage(settings.evaluation_axes) if is_ab(comparison) else pages[comparison["kind"]]


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


def _check_rating(control: str, rating: Any) -> None:
    if isinstance(rating, bool) or not isinstance(rating, int) or not LOWEST_RATING <= rating <= HIGHEST_RATING:
        raise UnreadableError(f"`{control}` is not a whole number from {LOWEST_RATING} to {HIGHEST_RATING}.")
