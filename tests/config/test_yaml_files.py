"""What people write by hand: a key that is set twice, and times that cannot be followed."""

import pytest

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
    ],
)
def test_cron_expressions_that_cannot(bad: str, part: str) -> None:
    with pytest.raises(UserError, match=f"open_round_cron .*{part}"):
        AutomationSettings.parse({"open_round_cron": bad}, "loop.yaml")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc", "Europe/Berlin "])
def test_a_time_zone_that_is_not_known_is_refused(zone: str) -> None:
    with pytest.raises(UserError, match=r"automation.timezone .* is not known; give a name such as `UTC`"):
        AutomationSettings.parse({"timezone": zone}, "loop.yaml")
    assert AutomationSettings(timezone="Europe/Berlin").timezone == "Europe/Berlin"
