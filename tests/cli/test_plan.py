"""`rlhf plan` prints its lines, the same as JSON, and refuses in one sentence."""

import json
from pathlib import Path

from loops import assert_one_sentence, rlhf_here

ASKED = ("--labels-per-day", "2000", "--prompts-per-second", "5")


def test_lines_and_json_say_the_same() -> None:
    shown = rlhf_here("plan", "--model", "1B", *ASKED)
    assert shown.returncode == 0, shown.stderr
    plan = json.loads(rlhf_here("plan", "--model", "1B", *ASKED, "--json").stdout)
    for sheet in plan["sheets"]:
        assert sheet["title"] in shown.stdout
        assert all(line["name"].split()[0] in shown.stdout for line in sheet["lines"])
    people = next(sheet for sheet in plan["sheets"] if sheet["title"] == "People")
    assert people["lines"][-1]["value"] == 5  # 2,000 minutes of 432 a person
    assert plan["advice"][0] in shown.stdout


def test_settings_are_a_loop_s_where_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("preset: small\nlabeling: {overlap: 0}\n")
    plan = json.loads(rlhf_here("plan", "--model", "1B", *ASKED, "--loop", str(tmp_path), "--json").stdout)
    lines = {line["name"]: line["value"] for sheet in plan["sheets"] for line in sheet["lines"]}
    assert lines["labels of a comparison"] == 1


def test_what_cannot_be_planned_is_one_sentence() -> None:
    assert_one_sentence(rlhf_here("plan", "--model", "9B", *ASKED), "9B is neither a size that is known here")
    assert_one_sentence(rlhf_here("plan", "--model", "1B", *ASKED, "--train", "some"), "give all or adapters")
    assert_one_sentence(rlhf_here("plan", "--model", "1B", *ASKED, "--gpu", "T4"), "T4 is no GPU that is known here")
