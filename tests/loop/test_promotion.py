"""Who becomes champion, by whose word, and what stays on record."""

import shutil
from typing import Any

import pytest
from gate_figures import people, rate
from gate_figures import report as figures
from rounds_on_disk import keep

from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.win_rate import REWARD_MODEL
from rlhf_dagster.labeling.dataset import snapshot_hash
from rlhf_dagster.lineage.models import Checkpoint, model_digest
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.interventions.champions import restore_champion
from rlhf_dagster.loop.promotion import promote_round
from rlhf_dagster.loop.sampling import pin_round
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.schemas import PREFERENCES, table

ROUNDS = {"ppo-1": "round-0001", "ppo-2": "round-0002"}


@pytest.fixture
def loop(tmp_path) -> LoopFolder:
    """A loop of SFT and two policies, of which only the registry and manifests are there."""
    made = LoopFolder(LoopConfig(), tmp_path)
    keep(made, "sft", "sft", "")
    made.registry.register("sft", "models/sft", "sft", "")
    for policy, round_key in ROUNDS.items():
        keep(made, policy, "ppo", round_key)
        made.registry.register(policy, f"models/{policy}", "ppo", round_key, ["sft"])
    made.registry.set_initial("sft")
    return made


@pytest.fixture
def asking(loop) -> LoopFolder:
    """The same, where a person must approve."""
    return with_gate(loop, approval=True)


def with_gate(loop: LoopFolder, **gate: Any) -> LoopFolder:
    return LoopFolder(loop.config.changed(gate=loop.config.gate.changed(**gate)), loop.root)


def decide(
    loop: LoopFolder, policy: str = "ppo-1", judged_against: str = "sft", judgments: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Promotion of a policy whose figures are good, by the judgments of people who like it unless told otherwise."""
    report = figures() | {"policy_id": policy, "behaviour_policy": judged_against}
    human = {"policy_id": policy} | (people() if judgments is None else judgments)
    return promote_round(loop, ROUNDS[policy], Checkpoint(policy, f"models/{policy}", ""), report, human)


def champion(loop: LoopFolder) -> str:
    record = loop.registry.champion()
    assert record
    return record.policy_id


def failed(decision: dict[str, Any]) -> list[str]:
    return [rule["rule"] for rule in decision["rules"] if rule["outcome"] not in ("pass", "not measured")]


def test_a_policy_that_passes_is_promoted_by_the_gate(loop) -> None:
    found = decide(loop)
    assert found.keys() == {"round", "policy", "promoted", "outcome", "reasons", "champion", "rules"}
    assert (found["promoted"], found["outcome"], found["champion"]) == (True, "pass", "ppo-1")
    assert found["reasons"] == [rule["sentence"] for rule in found["rules"]]
    record = loop.registry.history()[-1]
    assert (record.policy_id, record.by, record.reason) == ("ppo-1", "gate", "every rule of the gate is met")


@pytest.mark.parametrize(
    ("judgments", "outcome"),
    [(people(low=0.4), "fail"), (people(n=99), "not enough judgments"), ({}, "not enough judgments")],
)
def test_what_does_not_pass_moves_nothing_and_is_named(loop, judgments: dict[str, Any], outcome: str) -> None:
    found = decide(loop, judgments=judgments)
    assert (found["promoted"], found["outcome"], found["champion"]) == (False, outcome, "sft")
    assert failed(found) == ["min_win_rate"]
    assert found["reasons"] == [rule["sentence"] for rule in found["rules"] if rule["rule"] == "min_win_rate"]
    assert len(loop.registry.history()) == 1


def test_judgments_of_an_earlier_policy_of_the_round_do_not_count(loop) -> None:
    assert decide(loop, judgments=people() | {"policy_id": "ppo-0"})["outcome"] == "not enough judgments"
    assert champion(loop) == "sft"


def test_nobodys_judgments_are_not_the_reward_models(loop) -> None:
    """The round has no human_evaluation at all; the reward model, which likes the policy, must not stand in."""
    report = figures() | {"policy_id": "ppo-1", "behaviour_policy": "sft"}
    assert report["win_rates"][0]["judge"] == REWARD_MODEL
    found = promote_round(loop, "round-0001", Checkpoint("ppo-1", "", ""), report, None)
    assert (found["promoted"], found["outcome"]) == (False, "not enough judgments")


def test_a_report_about_another_policy_promotes_nobody(loop) -> None:
    with pytest.raises(UserError, match="The report is about ppo, not ppo-1"):
        promote_round(loop, "round-0001", Checkpoint("ppo-1", "", ""), figures(), people())
    assert champion(loop) == "sft"


def test_a_policy_judged_against_a_former_champion_is_not_promoted(loop) -> None:
    """Two rounds sampled from SFT; the first one's policy was promoted while the second's was judged."""
    assert decide(loop, "ppo-1")["promoted"]
    found = decide(loop, "ppo-2", judged_against="sft")
    assert (found["promoted"], found["outcome"], failed(found)) == (False, "fail", ["champion"])
    (reason,) = found["reasons"]
    assert reason.startswith("The policy was judged against sft, and ppo-1 has become the champion since; ")
    assert champion(loop) == "ppo-1"
    assert decide(loop, "ppo-2", judged_against="ppo-1")["promoted"]


def test_a_rollback_in_between_counts_too(loop) -> None:
    decide(loop, "ppo-1")
    loop.registry.rollback("sft", "ada", "repeats itself")
    assert failed(decide(loop, "ppo-2", judged_against="ppo-1")) == ["champion"]


def test_deciding_again_moves_nothing_and_says_the_same(loop) -> None:
    """As after a kill between the entry in the registry and the decision's file."""
    first, history = decide(loop), loop.registry.history()
    assert decide(loop) == first
    stricter = decide(with_gate(loop, max_kl=1.0))
    assert (stricter["promoted"], failed(stricter)) == (False, ["max_kl"])
    assert loop.registry.history() == history


def test_after_a_rollback_to_it_a_policy_is_the_champion_already(loop) -> None:
    decide(loop, "ppo-1")
    decide(loop, "ppo-2", judged_against="ppo-1")
    loop.registry.rollback("ppo-1", "ada", "repeats itself")
    found = decide(loop, "ppo-1")
    assert (found["promoted"], found["champion"]) == (True, "ppo-1")
    assert found["reasons"] == ["ppo-1 is already the champion."]


def test_an_old_round_never_rolls_back(loop) -> None:
    decide(loop, "ppo-2")
    found = decide(loop, "ppo-1")
    assert (found["promoted"], found["outcome"], found["champion"]) == (False, "pass", "ppo-2")
    assert "later round round-0002" in found["reasons"][0]


def test_a_policy_that_passes_waits_for_a_person(asking) -> None:
    found = decide(asking)
    assert (found["promoted"], found["outcome"], found["champion"]) == (False, "waiting for approval", "sft")
    command = f'rlhf promote --loop {asking.root} --round round-0001 --by NAME --reason "..."'
    assert (
        found["reasons"][0] == f"The gate passes, and a person must approve (in the UI: the job `approve`): {command}"
    )
    assert found["reasons"][1:] == [rule["sentence"] for rule in found["rules"]]
    assert failed(found) == []


def test_what_fails_waits_for_nobody(asking) -> None:
    assert decide(asking, judgments=people(low=0.4))["outcome"] == "fail"


def test_an_approval_is_of_exactly_one_policy(asking) -> None:
    asking.registry.approve("ppo-2", "round-0001", "ada", "looks good")
    assert decide(asking)["outcome"] == "waiting for approval"
    asking.registry.approve("ppo-1", "round-0001", "ada", "looks good")
    found = decide(asking)
    assert (found["promoted"], found["outcome"], found["reasons"][0]) == (True, "pass", "Promoted by ada: looks good")
    record = asking.registry.history()[-1]
    assert (record.policy_id, record.by, record.reason) == ("ppo-1", "ada", "looks good")


def test_an_approval_does_not_overrule_the_gate_unless_it_says_so(asking) -> None:
    asking.registry.approve("ppo-1", "round-0001", "ada", "looks good")
    assert not decide(asking, judgments=people(low=0.4))["promoted"]
    asking.registry.approve("ppo-1", "round-0001", "ada", "the judges were wrong", anyway=True)
    found = decide(asking, judgments=people(low=0.4))
    assert (found["promoted"], found["outcome"], failed(found)) == (True, "fail", ["min_win_rate"])
    assert found["reasons"][0] == "Promoted by ada: against the gate: the judges were wrong"
    assert "and is not" in found["reasons"][1]
    assert asking.registry.history()[-1].reason == "against the gate: the judges were wrong"
    assert decide(asking, judgments=people(low=0.4)) == found


def test_a_refusal_by_a_person_holds_until_another_word(loop) -> None:
    loop.registry.refuse("ppo-1", "round-0001", "ada", "it swears")
    found = decide(loop)
    assert (found["promoted"], found["outcome"], failed(found)) == (False, "fail", ["person"])
    assert (found["reasons"], champion(loop)) == (["Refused by ada: it swears"], "sft")
    loop.registry.approve("ppo-1", "round-0001", "ben", "it does not")
    assert decide(loop)["promoted"]
    assert loop.registry.history()[-1].by == "ben"


def test_a_refusal_after_a_promotion_changes_nothing(loop) -> None:
    assert decide(loop)["promoted"]
    loop.registry.refuse("ppo-1", "round-0001", "ada", "it swears")
    assert (decide(loop)["outcome"], champion(loop)) == ("pass", "ppo-1")


def test_a_person_who_would_overrule_a_gate_that_passes_is_not_recorded_against_it(loop) -> None:
    loop.registry.approve("ppo-1", "round-0001", "ada", "looks good", anyway=True)
    decide(loop)
    assert loop.registry.history()[-1].reason == "looks good"


def test_not_even_anyway_goes_back(loop) -> None:
    decide(loop, "ppo-2")
    loop.registry.approve("ppo-1", "round-0001", "ada", "it was better", anyway=True)
    assert not decide(loop, "ppo-1")["promoted"]
    assert champion(loop) == "ppo-2"


def test_where_nobody_is_asked_the_reward_model_decides(loop) -> None:
    config = loop.config.changed(evaluation=loop.config.evaluation.changed(human_judgments=0))
    alone = LoopFolder(config, loop.root)
    poor = figures() | {"policy_id": "ppo-1", "win_rates": [rate(REWARD_MODEL, low=0.4)]}
    policy = Checkpoint("ppo-1", "", "")
    assert not promote_round(alone, "round-0001", policy, poor, people())["promoted"]
    assert promote_round(alone, "round-0001", policy, figures() | {"policy_id": "ppo-1"}, None)["promoted"]


def test_an_arm_that_is_compared_alone_is_never_promoted(loop) -> None:
    loop.registry.register("dpo-1", "models/dpo-1", "dpo", "round-0001", ["sft"])
    report = figures() | {"policy_id": "dpo-1", "behaviour_policy": "sft"}
    with pytest.raises(UserError, match="dpo-1 is a policy of DPO, which is compared with the candidate, not promoted"):
        promote_round(loop, "round-0001", Checkpoint("dpo-1", "models/dpo-1", ""), report, people())
    assert champion(loop) == "sft"


def test_a_policy_whose_folder_is_gone_is_not_promoted(loop) -> None:
    shutil.rmtree(loop.root / "models" / "ppo-1")
    with pytest.raises(UserError, match="the checkpoint of policy ppo-1 is gone; restore it"):
        decide(loop)
    assert champion(loop) == "sft"


def test_what_is_gone_is_neither_rolled_back_to_nor_pinned(loop) -> None:
    decide(loop)
    shutil.rmtree(loop.root / "models" / "sft")
    with pytest.raises(UserError, match="the checkpoint of policy sft is gone; restore it"):
        restore_champion(loop, None, "ada", "it swears")
    assert champion(loop) == "ppo-1"
    assert pin_round(loop, "round-0002")["behaviour_policy"] == "ppo-1"
    shutil.rmtree(loop.root / "models" / "ppo-1")
    with pytest.raises(UserError, match=r"policy ppo-1 is gone.*\. round-0003 is not pinned to it\."):
        pin_round(loop, "round-0003")
    assert loop.registry.pins() == ["round-0002"]
    with pytest.raises(UserError, match="round-0002 is pinned to it: bring it back, or delete the round"):
        pin_round(loop, "round-0002")


def test_a_policy_whose_files_are_damaged_is_not_promoted(loop) -> None:
    digest = model_digest(loop.root / "models" / "ppo-1")
    loop.write_json("ppo_policy", "round-0001", Checkpoint("ppo-1", "models/ppo-1", digest).as_pointer())
    (loop.root / "models" / "ppo-1" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="the model ppo-1 is damaged"):
        decide(loop)
    assert champion(loop) == "sft"


def test_a_policy_that_learned_from_a_reward_model_of_before_is_not_promoted(loop) -> None:
    """`train_round --again` was stopped between the two."""
    keep(loop, "ppo-1", "ppo", "round-0001", parents={"reward_model": {"model_id": "reward-1", "digest": "first"}})
    loop.write_json("reward_model", "round-0001", Checkpoint("reward-2", "models/reward-2", "second").as_pointer())
    again = "learned from another reward model than reward-2; run `rlhf run train_round --round round-0001"
    with pytest.raises(UserError, match=again):
        decide(loop)
    loop.registry.approve("ppo-1", "round-0001", "ada", "I like it", anyway=True)
    with pytest.raises(UserError, match=again):
        decide(loop, judgments=people(low=0.4))
    assert champion(loop) == "sft"
    loop.write_json("reward_model", "round-0001", Checkpoint("reward-1", "models/reward-1", "first").as_pointer())
    assert decide(loop)["promoted"]


def test_a_policy_that_learned_from_labels_of_before_is_not_promoted(loop) -> None:
    snapshot = table([], PREFERENCES)
    loop.store.put(loop.asset_key("preference_dataset", "round-0001"), to_parquet(snapshot))
    keep(loop, "ppo-1", "ppo", "round-0001", dataset_hash="of other labels")
    with pytest.raises(UserError, match="learned from other labels than preference_dataset of round-0001 has"):
        decide(loop)
    keep(loop, "ppo-1", "ppo", "round-0001", dataset_hash=snapshot_hash(snapshot.to_pandas()))
    assert decide(loop)["promoted"]


def test_the_arm_that_is_released_is_promoted_by_the_same_gate_and_ppo_s_is_not(loop) -> None:
    keep(loop, "dpo-1", "dpo", "round-0001")
    loop.registry.register("dpo-1", "models/dpo-1", "dpo", "round-0001", ["sft"])
    released = LoopFolder(loop.config.changed(release={"arm": "dpo"}), loop.root)
    with pytest.raises(UserError, match=r"ppo-1 is a policy of PPO, .*: `release.arm` is dpo"):
        decide(released)
    report = figures() | {"policy_id": "dpo-1", "behaviour_policy": "sft"}
    policy = Checkpoint("dpo-1", "models/dpo-1", "")
    refused = promote_round(released, "round-0001", policy, report, {"policy_id": "dpo-1"} | people(low=0.4))
    assert (refused["promoted"], failed(refused)) == (False, ["min_win_rate"])
    assert promote_round(released, "round-0001", policy, report, {"policy_id": "dpo-1"} | people())["promoted"]
    assert champion(loop) == "dpo-1"
