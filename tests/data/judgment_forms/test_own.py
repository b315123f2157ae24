"""Our own form of a judgment."""

from typing import Any

import pytest

from rlhf_dagster.data.judgment_forms.own import parse_judgment
from rlhf_dagster.data.lines import BadLineError

JUDGMENT = {
    "comparison": "c1",
    "prompt": "Which?",
    "responses": ["left", "right"],
    "annotator": "Ada",
    "choice": 1,
    "reason": "clearer",
    "started_at": "2016-01-31T16:53:19Z",
    "submitted_at": "2016-01-31T17:54:20.5+01:00",
}
THREE = JUDGMENT | {"responses": ["x", "y", "z"]}
MISSING = object()


def without(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def test_a_judgment() -> None:
    judgment = parse_judgment(JUDGMENT)
    assert (judgment.comparison, judgment.responses, judgment.ranks) == ("c1", ("left", "right"), (2, 1))
    assert (judgment.kind, judgment.seconds, judgment.order_known) == ("pair", 61.5, True)


def test_times_and_reason_may_be_missing_and_a_time_without_zone_is_utc() -> None:
    short = {key: JUDGMENT[key] for key in ("comparison", "prompt", "responses", "annotator", "choice")}
    assert parse_judgment(short).seconds is None
    judgment = parse_judgment(short | {"submitted_at": "2016-01-31T16:53:19"})
    assert judgment.submitted_at is not None
    assert judgment.submitted_at.isoformat() == "2016-01-31T16:53:19+00:00"


def test_what_is_not_known_stays_unknown() -> None:
    judgment = parse_judgment({"prompt": "Which?", "responses": ["left", ""], "choice": 0, "annotator": None})
    assert (judgment.comparison, judgment.annotator, judgment.seconds, judgment.strength) == ("", "", None, None)
    again = parse_judgment({"prompt": "Which?", "responses": ["", "left"], "choice": 1})
    assert judgment.name == again.name != parse_judgment(JUDGMENT).name == "c1"


@pytest.mark.parametrize(
    ("choice", "ranks"),
    [
        *[(0, (1, 2, 2)), (1.0, (2, 1, 2)), ("tie", (1, 1, 1)), (None, None), (float("nan"), None)],
        *[([0, 2], (1, 2, 1)), ([1.0], (2, 1, 2))],
    ],
)
def test_choices(choice: Any, ranks: Any) -> None:
    judgment = parse_judgment(THREE | {"choice": choice})
    assert (judgment.ranks, judgment.kind) == (ranks, "best_of_k")


def test_ranks_close_their_gaps() -> None:
    judgment = parse_judgment(without(THREE, "choice") | {"ranks": [4, 1, 1.0]})
    assert (judgment.ranks, judgment.kind) == ((2, 1, 1), "ranking")
    assert parse_judgment(without(JUDGMENT, "choice") | {"ranks": [1, 1]}).kind == "pair"


def test_ratings_by_axis() -> None:
    judgment = parse_judgment(without(THREE, "choice") | {"ratings": {"helpful": [1, 2, 3], "overall": [7.0, 3, 3]}})
    assert (judgment.ranks, judgment.kind) == ((1, 2, 2), "rating")
    assert judgment.ratings == {"helpful": (1, 2, 3), "overall": (7, 3, 3)}


def test_a_table_has_every_column_in_every_row() -> None:
    judgment = parse_judgment(JUDGMENT | {"choice": None, "ranks": [1, 2], "ratings": None})
    assert judgment.ranks == (1, 2)
    assert parse_judgment(JUDGMENT | {"choice": None, "ranks": None}).ranks is None


def test_all_that_is_known_is_kept() -> None:
    more = {"kind": "ranking", "order_known": False, "strength": 0.5, "policies": ["gpt", None], "flags": ["unsafe"]}
    judgment = parse_judgment(JUDGMENT | more | {"seconds": 3, "id": 5, "gap": None, "metadata": {"batch": "b"}})
    assert (judgment.kind, judgment.order_known, judgment.strength) == ("ranking", False, 0.5)
    assert (judgment.policies, judgment.flags, judgment.seconds) == (("gpt", ""), ("unsafe",), 3)
    assert judgment.metadata == {"id": 5, "batch": "b"}


def test_a_judgment_that_is_taken_back_needs_no_outcome() -> None:
    judgment = parse_judgment(without(JUDGMENT, "choice") | {"withdrawn": True})
    assert (judgment.withdrawn, judgment.ranks, judgment.metadata) == (True, None, {})
    assert not parse_judgment(JUDGMENT).withdrawn


def test_numbers_may_be_names_and_times() -> None:
    times = {"started_at": 1681768460457, "submitted_at": 1681768462.0}
    judgment = parse_judgment(JUDGMENT | {"comparison": 17, "annotator": 5.0} | times)
    assert (judgment.comparison, judgment.annotator) == ("17", "5")
    assert judgment.seconds == pytest.approx(1.543)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("prompt", MISSING, "`prompt` is missing"),
        ("choice", MISSING, "`choice` is missing"),
        ("prompt", 7, "`prompt` is not a text"),
        ("prompt", "  \n", "`prompt` is empty"),
        ("prompt", "\ud800", "`prompt` holds a character that Unicode does not have"),
        ("comparison", 1.5, "`comparison` is not a text"),
        ("annotator", ["Ada"], "`annotator` is not a text"),
        ("reason", ["x"], "`reason` is not a text"),
        ("responses", "left", "`responses` is not a list of at least two texts"),
        ("responses", ["left"], "`responses` is not a list of at least two texts"),
        ("responses", ["left", None], "`responses[1]` is not a text"),
        ("choice", 2, "`choice` names response 2, but there are only 0 to 1"),
        ("choice", -1, "`choice` names response -1"),
        ("choice", True, '`choice` is neither a number, a list of numbers, "tie" nor null'),
        ("choice", 0.5, '`choice` is neither a number, a list of numbers, "tie" nor null'),
        ("choice", "left", '`choice` is neither a number, a list of numbers, "tie" nor null'),
        ("choice", [], "`choice` is an empty list"),
        ("ranks", [1, 2], "both `choice` and `ranks` are given"),
        ("kind", "quartet", "`kind` is 'quartet'; known: pair"),
        ("kind", "rating", "the kind `rating` goes with `ratings`"),
        ("strength", 2, "`strength` is 2, which is no number from 0 to 1"),
        ("strength", "much", "`strength` is no number"),
        ("policies", ["gpt"], "`policies` is not a list of 2 names"),
        ("flags", ["ugly"], "`flags` is not a list out of both_bad"),
        ("order_known", "no", "`order_known` is neither true nor false"),
        ("withdrawn", 1, "`withdrawn` is neither true nor false"),
        ("metadata", "x", "`metadata` is not an object"),
        ("seconds", -1, "`seconds` is less than 0"),
        ("started_at", "yesterday", "`started_at` is not a time"),
        ("started_at", "0001-01-01T00:00:00+10:00", "`started_at` is not a time"),
        ("submitted_at", 1e30, "`submitted_at` is not a time"),
        ("submitted_at", True, "`submitted_at` is not a text"),
        ("submitted_at", "2016-01-31T16:53:18Z", "`submitted_at` is before `started_at`"),
    ],
)
def test_what_a_judgment_cannot_be(key: str, value: Any, reason: str) -> None:
    values = {name: given for name, given in (JUDGMENT | {key: value}).items() if given is not MISSING}
    with pytest.raises(BadLineError) as error:
        parse_judgment(values)
    assert str(error.value).startswith(reason)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"ranks": [1, 2]}, "`ranks` is not a list of 3 ranks"),
        ({"ranks": [1, 2, "x"]}, "`ranks` holds something else than whole numbers"),
        ({"ranks": [1, 2, 3], "kind": "best_of_k"}, "`kind` is best_of_k, and best_of_k only tells the best"),
        ({"ratings": {"overall": [8, 1, 1]}}, "`ratings` on overall are not whole numbers from 1 to 7"),
        ({"ratings": {"Overall": [1, 1, 1]}}, "An axis has a name that no axis can have"),
        ({"ratings": {}}, "`ratings` is empty"),
    ],
)
def test_what_ranks_and_ratings_cannot_be(more: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadLineError) as error:
        parse_judgment(without(THREE, "choice") | more)
    assert str(error.value).startswith(reason)
