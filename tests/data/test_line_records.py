from typing import Any

import pytest

from rlhf_dagster.data.line_records import parse_demonstration, parse_judgment, parse_prompt
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
MISSING = object()


def test_a_judgment() -> None:
    judgment = parse_judgment(JUDGMENT)
    assert (judgment.comparison, judgment.responses, judgment.choice) == ("c1", ("left", "right"), 1)
    assert judgment.seconds == 61.5


def test_times_and_reason_may_be_missing_and_a_time_without_zone_is_utc() -> None:
    short = {key: JUDGMENT[key] for key in ("comparison", "prompt", "responses", "annotator", "choice")}
    assert parse_judgment(short).seconds is None
    judgment = parse_judgment(short | {"submitted_at": "2016-01-31T16:53:19"})
    assert judgment.submitted_at is not None
    assert judgment.submitted_at.isoformat() == "2016-01-31T16:53:19+00:00"


@pytest.mark.parametrize("choice", [0, 1, "tie", None])
def test_choices(choice: Any) -> None:
    assert parse_judgment(JUDGMENT | {"choice": choice}).choice == choice


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("prompt", MISSING, "`prompt` is missing"),
        ("choice", MISSING, "`choice` is missing"),
        ("colour", "red", "`colour` is not a key here"),
        ("prompt", 7, "`prompt` is not a text"),
        ("prompt", "  \n", "`prompt` is empty"),
        ("prompt", "\ud800", "`prompt` holds a character that Unicode does not have"),
        ("comparison", 1, "`comparison` is not a text"),
        ("annotator", "", "`annotator` is empty"),
        ("annotator", None, "`annotator` is not a text"),
        ("reason", ["x"], "`reason` is not a text"),
        ("responses", "left", "`responses` is not a list of at least two texts"),
        ("responses", ["left"], "`responses` is not a list of at least two texts"),
        ("responses", ["left", None], "`responses[1]` is not a text"),
        ("responses", ["left", " "], "`responses[1]` is empty"),
        ("responses", ["left", "left "], "the same response is there twice"),
        ("choice", 2, "`choice` names response 2, but there are only 0 to 1"),
        ("choice", -1, "`choice` names response -1"),
        ("choice", True, '`choice` is neither a number, "tie" nor null'),
        ("choice", 1.0, '`choice` is neither a number, "tie" nor null'),
        ("choice", "left", '`choice` is neither a number, "tie" nor null'),
        ("choice", [0], '`choice` is neither a number, "tie" nor null'),
        ("started_at", "yesterday", "`started_at` is not a time"),
        ("started_at", "0001-01-01T00:00:00+10:00", "`started_at` is not a time"),
        ("submitted_at", 1454259199, "`submitted_at` is not a text"),
        ("submitted_at", "2016-01-31T16:53:18Z", "`submitted_at` is before `started_at`"),
    ],
)
def test_what_a_judgment_cannot_be(key: str, value: Any, reason: str) -> None:
    values = {name: given for name, given in (JUDGMENT | {key: value}).items() if given is not MISSING}
    with pytest.raises(BadLineError) as error:
        parse_judgment(values)
    assert str(error.value).startswith(reason)


def test_prompts_and_demonstrations() -> None:
    assert parse_prompt({"prompt": "p"}).source == ""
    assert parse_prompt({"prompt": "p", "source": "s", "user": "u"}).user == "u"
    assert parse_demonstration({"prompt": "p", "response": "r", "source": None}).response == "r"
    for parse, values, reason in (
        (parse_prompt, {"text": "p"}, "`prompt` is missing"),
        (parse_prompt, {"prompt": "p", "response": "r"}, "`response` is not a key here"),
        (parse_demonstration, {"prompt": "p"}, "`response` is missing"),
        (parse_demonstration, {"prompt": "p", "response": ""}, "`response` is empty"),
    ):
        with pytest.raises(BadLineError) as error:
            parse(values)
        assert str(error.value).startswith(reason)
