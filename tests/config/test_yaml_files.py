"""What people write by hand: a key that is set twice, and times that cannot be followed."""

import random

import pytest
from dagster._utils.schedules import is_valid_cron_schedule

from rlhf_dagster.config.automation import AutomationSettings
from rlhf_dagster.config.cron import cron_problem
from rlhf_dagster.config.loop import CONFIG_FILE, load_config
from rlhf_dagster.config.yaml_files import parse_file
from rlhf_dagster.errors import UserError


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed: 1\nname: a\nseed: 2\n", "`seed` is set twice, in lines 1 and 3; keep one of them"),
        ("sft:\n  epochs: 1\n  epochs: 2\n", "`epochs` is set twice, in lines 2 and 3"),
    ],
)
def test_a_key_that_is_set_twice_is_refused(tmp_path, text: str, sentence: str) -> None:
    (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(UserError, match=f"loop.yaml: {sentence}"):
        load_config(tmp_path)


def test_the_same_key_in_two_sections_and_merged_keys_are_read(tmp_path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("one: &one\n  epochs: 1\n  seed: 3\ntwo:\n  <<: *one\n  epochs: 2\n")
    assert parse_file(file) == {"one": {"epochs": 1, "seed": 3}, "two": {"epochs": 2, "seed": 3}}


def test_json_may_hold_tabs_and_no_key_twice(tmp_path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{\n\t"seed": 1\n}')
    assert parse_file(file) == {"seed": 1}
    file.write_text('{"seed": 1, "seed": 2}')
    with pytest.raises(UserError, match=r"a.json: `seed` is set twice; keep one of them"):
        parse_file(file)
    file.write_text("{")
    with pytest.raises(UserError, match=r"a.json: not valid JSON"):
        parse_file(file)


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""Nine lines that stand for a thousand million values."""


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (BOMB, "has more than 100,000 values where its aliases are written out; where that is meant, set RLHF_LIMIT_"),
        ("a: &a [*a]", "the part at line 1 holds itself; write it out"),
        ("a: &a\n  b: *a\n", "the part at line 1 holds itself"),
        ("a: " + "[" * 60 + "]" * 60, "line 1 is too deep in mappings and lists"),
        ("[" * 20_000, "too deep within one another; make it flatter"),
        ("a: 1\n#" + "x" * (1 << 22), "has more than 4 MiB, so it is no file of settings"),
        ("a: !!int ''", "a value is not of the type that its tag names"),
        ("a: !!bool x", "a value is not of the type that its tag names"),
        ("a: !!timestamp x", "a value is not of the type that its tag names"),
        ("? [a, [b]]\n: 1", "not valid YAML"),
        ("a: !!python/object/apply:os.system [x]", "not valid YAML"),
        ("\ud800".encode("utf-8", "surrogatepass"), "not valid YAML"),
    ],
    ids=[
        "bomb",
        "itself",
        "itself in a mapping",
        "deep",
        "deeper",
        "long",
        "int",
        "bool",
        "time",
        "key",
        "code",
        "utf8",
    ],
)
def test_what_is_beyond_bounds_or_no_yaml_is_a_sentence(tmp_path, text: str | bytes, part: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as error:
        parse_file(file)
    assert part in str(error.value)
    assert str(error.value).startswith(f"{file}: ")


def test_json_that_is_too_deep_is_a_sentence(tmp_path) -> None:
    file = tmp_path / "a.json"
    file.write_text("[" * 200_000)
    with pytest.raises(UserError, match=r"too deep within one another"):
        parse_file(file)


@pytest.mark.parametrize("good", ["0 6 * * 1", "*/15 0-6,22 1 jan-mar mon,fri", "59 23 31 12 7", "0 0 * * SUN"])
def test_cron_expressions_that_can_be_followed(good: str) -> None:
    assert cron_problem(good) == ""
    assert AutomationSettings(open_round_cron=good).open_round_cron == good


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        ("0 6 * *", "five fields"),
        ("60 6 * * 1", "'60' as minute"),
        ("0 24 * * 1", "'24' as hour"),
        ("0 6 0 * 1", "'0' as day of month"),
        ("0 6 * foo 1", "'foo' as month"),
        ("0 6 * * 8", "'8' as day of week"),
        ("*/0 6 * * 1", r"'\*/0' as minute"),
        ("every monday at six sharp", "'every' as minute"),
        ("0 6 31 2 *", "'31' as day of month, which no month of '2' has"),
        ("0 6 30,31 feb 1", "'30,31' as day of month, which no month of 'feb' has"),
        ("0 6 31 4,6,9-9,11 *", "'31' as day of month, which no month"),
    ],
)
def test_cron_expressions_that_cannot(bad: str, part: str) -> None:
    with pytest.raises(UserError, match=f"open_round_cron .*{part}"):
        AutomationSettings.parse({"open_round_cron": bad}, "loop.yaml")


@pytest.mark.parametrize("expression", ["0 6 29 2 *", "0 6 31 */2 *", "0 6 30 12-2 *", "0 6 5-1 * sun-sat"])
def test_a_schedule_that_comes_seldom_is_followed_by_dagster_too(expression: str) -> None:
    assert cron_problem(expression) == ""
    assert is_valid_cron_schedule(expression)


def test_what_is_taken_dagster_takes() -> None:
    """Fields put together at random: what Dagster refuses would fail each tick of the schedule."""
    parts = ["*", "0", "1-5", "5-1", "*/2", "1/2", "1-5/2", "jan", "mon", "sun-sat", "dec-jan", "1,2", "31", "30", "2"]
    drawn = random.Random(1)
    taken = [text for text in (" ".join(drawn.choices(parts, k=5)) for _ in range(3000)) if not cron_problem(text)]
    assert len(taken) > 300
    assert [text for text in taken if not is_valid_cron_schedule(text)] == []


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path) -> None:
    for name in ("a.json", "a.yaml"):
        (tmp_path / name).write_bytes(b'\xef\xbb\xbf{"seed": 1}')
        assert parse_file(tmp_path / name) == {"seed": 1}


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc", "Europe/Berlin "])
def test_a_time_zone_that_is_not_known_is_refused(zone: str) -> None:
    with pytest.raises(UserError, match=r"automation.timezone .* is not known; give a name such as `UTC`"):
        AutomationSettings.parse({"timezone": zone}, "loop.yaml")
    assert AutomationSettings(timezone="Europe/Berlin").timezone == "Europe/Berlin"
