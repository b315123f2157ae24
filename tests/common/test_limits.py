"""Bounds of what comes from outside: defaults, what the environment makes of them, and what it cannot."""

from pathlib import Path

import pytest
from loops import assert_one_sentence, rlhf_here

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.common.bounds.limits import LIMITS, TEMPLATE_SECONDS, require_known_limits
from rlhf_dagster.errors import UserError


def test_the_environment_changes_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TEMPLATE_SECONDS.most == TEMPLATE_SECONDS.default
    monkeypatch.setenv(TEMPLATE_SECONDS.variable, " 7 ")
    assert TEMPLATE_SECONDS.most == 7
    assert TEMPLATE_SECONDS.said().endswith("set RLHF_LIMIT_TEMPLATE_SECONDS (now 7) higher")
    require_known_limits()


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "1e9", "٣", "9" * 30, "0x10"])
def test_what_is_no_limit_is_a_sentence(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TEMPLATE_SECONDS.variable, value)
    with pytest.raises(UserError, match=r"RLHF_LIMIT_TEMPLATE_SECONDS is .+; give a whole number from 1 up"):
        require_known_limits()


def test_a_limit_that_is_none_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_LIMIT_TEMPLATE_SECOND", "7")
    assert_one_sentence(rlhf_here("round", "status"), "RLHF_LIMIT_TEMPLATE_SECOND is no limit; did you mean RLHF_LIMIT")


def test_every_limit_is_under_its_name_and_says_what_it_bounds() -> None:
    assert all(limit.name == name and limit.default > 0 and limit.what for name, limit in LIMITS.items())


def test_json_that_is_nested_too_deeply_is_a_value_error() -> None:
    assert parse_json('{"a": [1]}') == {"a": [1]}
    for text in ("[" * 200_000, '{"a":' * 200_000 + "1" + "}" * 200_000, "{", ""):
        with pytest.raises(ValueError):
            parse_json(text)


def test_the_table_in_the_docs_is_that_of_the_limits() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `RLHF_LIMIT_")]
    assert rows == [f"| `{limit.variable}` | {limit.default:,} | {limit.what} |" for limit in LIMITS.values()]
