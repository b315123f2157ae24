"""A report begins with what has become of its policy, and says so anew when that changes."""

from typing import Any

import pytest
from gate_figures import people
from gate_figures import report as figures
from rounds_on_disk import keep

from rlhf_dagster.common.sealed import is_whole_page, seal_page
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.promotion import promote_round
from rlhf_dagster.loop.reporting.standing import refresh_reports, standing_of
from rlhf_dagster.pages.report import STANDING

ROUNDS = {"ppo-1": "round-0001", "ppo-2": "round-0002"}
PAGE = f"<html><!-- /standing of a text -->{STANDING[0]}old{STANDING[1]}<p>ppo</p></html>\n"


@pytest.fixture
def loop(tmp_path) -> LoopFolder:
    """SFT and two evaluated policies, the second against the first, whose reports are nearly empty pages."""
    made = LoopFolder(LoopConfig(), tmp_path)
    keep(made, "sft", "sft", "")
    made.registry.register("sft", "models/sft", "sft", "")
    for (policy, round_key), judged_against in zip(ROUNDS.items(), ["sft", "ppo-1"], strict=True):
        keep(made, policy, "ppo", round_key)
        made.registry.register(policy, f"models/{policy}", "ppo", round_key, ["sft"])
        report = figures() | {"policy_id": policy, "behaviour_policy": judged_against}
        made.write_json("eval_report", round_key, report)
        made.store.put(made.asset_key("eval_report", round_key, "html"), seal_page(PAGE))
    made.registry.set_initial("sft")
    return made


def judged(loop: LoopFolder, policy: str, human: dict[str, Any]) -> dict[str, Any]:
    """The decision after these judgments of people, which the asset would write next."""
    key = ROUNDS[policy]
    human = human | {"policy_id": policy}
    loop.write_json("human_evaluation", key, human)
    report = loop.json("eval_report", key)
    assert report
    decision = promote_round(loop, key, Checkpoint(policy, f"models/{policy}", ""), report, human)
    refresh_reports(loop, {key: decision})
    loop.write_json("promotion", key, decision)
    return decision


def said(loop: LoopFolder, policy: str) -> str:
    found = loop.store.get(loop.asset_key("eval_report", ROUNDS[policy], "html"))
    assert found and is_whole_page(found.data)
    page = found.data.decode()
    assert page.startswith("<html><!-- /standing of a text -->") and "<p>ppo</p>" in page
    return page.split("<h1>")[1].split("</h1>")[0]


def test_before_people_have_judged_it_waits_for_them(loop) -> None:
    standing = standing_of(loop, "round-0001")
    assert standing
    assert standing.sentence == "ppo-1 passes the automatic rules of the gate and waits for people to judge it."
    assert standing.colour == "warn"
    assert standing_of(loop, "round-0003") is None


def test_a_policy_that_people_refuse_is_not_praised(loop) -> None:
    judged(loop, "ppo-1", people(low=0.44))
    assert said(loop, "ppo-1").startswith("ppo-1 was refused by people: preferred to the champion in ")
    standing = standing_of(loop, "round-0001")
    assert standing and standing.colour == "fail"
    assert [rule["outcome"] for rule in standing.rules if rule["rule"] == "min_win_rate"] == ["fail"]


def test_a_policy_that_a_person_refuses_says_who(loop) -> None:
    loop.registry.refuse("ppo-1", "round-0001", "ada", "it swears")
    decision = judged(loop, "ppo-1", people())
    assert said(loop, "ppo-1") == "ppo-1 was refused by ada."
    assert decision["rules"][0]["sentence"] == "Refused by ada: it swears"


def test_too_few_judgments_are_waited_for(loop) -> None:
    judged(loop, "ppo-1", people(n=9))
    assert said(loop, "ppo-1") == "ppo-1 waits for more judgments by people."


def test_a_promotion_is_said_and_so_is_who_takes_the_place(loop) -> None:
    judged(loop, "ppo-1", people())
    assert said(loop, "ppo-1").startswith("ppo-1 is the champion, promoted on ")
    judged(loop, "ppo-2", people())
    assert said(loop, "ppo-2").startswith("ppo-2 is the champion, promoted on ")
    assert "when ppo-2 of round-0002 took its place." in said(loop, "ppo-1")


def test_a_rollback_reaches_the_reports_of_both(loop) -> None:
    judged(loop, "ppo-1", people())
    judged(loop, "ppo-2", people())
    loop.registry.rollback("ppo-1", "Ada <b>", "it is rude")
    refresh_reports(loop)
    assert said(loop, "ppo-2").startswith("ppo-2 was rolled back on ")
    assert "by Ada &lt;b&gt;" in said(loop, "ppo-2")
    assert said(loop, "ppo-1").startswith("ppo-1 is the champion, brought back on ")


def test_an_approval_that_is_missing_is_waited_for(loop) -> None:
    gate = loop.config.gate.changed(approval=True)
    asking = LoopFolder(loop.config.changed(gate=gate), loop.root)
    judged(asking, "ppo-1", people())
    assert said(asking, "ppo-1") == "ppo-1 passes the gate and waits for a person&#39;s approval."


def test_pages_of_before_and_damaged_ones_stay(loop) -> None:
    key = loop.asset_key("eval_report", "round-0001", "html")
    for content in (b"<html>of version 0.1</html>", seal_page(PAGE).replace(b"old", b"odd")):
        loop.store.put(key, content)
        judged(loop, "ppo-1", people())
        found = loop.store.get(key)
        assert found and found.data == content
