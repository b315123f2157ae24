"""What a plan runs and in which order, and what it refuses; nothing is trained here."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from smoke_claim import ALONE, FREE, PLAIN, SETTINGS, SMALLER, ZERO_SHOT, Smoke, plan_of

from rlhf_dagster.config.base import overlaid
from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.base import Probe, Variant
from rlhf_dagster.replication.running.costs import Costs, parts_of_work
from rlhf_dagster.replication.running.plan import VariantWork, make_plan
from rlhf_dagster.replication.variants.forks import ASSET_ORDER, require_same_beginning
from rlhf_dagster.replication.variants.loops import VariantLoop
from rlhf_dagster.replication.variants.steps import cut_after, first_steps


def estimate(work: VariantWork) -> float:
    return sum(seconds for _, seconds in parts_of_work(work))


def changed(variant: Variant, settings: Mapping[str, Any], **others: Any) -> Variant:
    return replace(variant, settings=overlaid(dict(variant.settings), dict(settings)), **others)


def begin(variant: Variant, after: str, source: Variant = PLAIN) -> None:
    require_same_beginning(VariantLoop(variant, 0), VariantLoop(source, 0), after)


def test_a_loop_that_several_claims_ask_for_is_run_once(tmp_path: Path) -> None:
    first, second = Smoke(PLAIN), Smoke(replace(PLAIN, name="the-same", probes=()), FREE)
    second.name = "C00"
    plan = plan_of(tmp_path, first, second)
    assert [(work.loop.variant.name, work.claims) for work in plan.works] == [
        ("plain", ["C0", "C00"]),
        ("free", ["C00"]),
    ]
    assert plan.works[0].probes == [ZERO_SHOT]
    assert plan.cells["C0", 0] == plan.cells["C00", 0][:1]


def test_what_it_begins_with_does_not_change_which_loop_it_is() -> None:
    assert VariantLoop(FREE, 0).identity == VariantLoop(ALONE, 0).identity
    others = [VariantLoop(FREE, 1), VariantLoop(PLAIN, 0), VariantLoop(replace(FREE, until="ppo_policy"), 0)]
    assert len({VariantLoop(FREE, 0).identity, *(other.identity for other in others)}) == 4


def test_which_reward_model_a_smaller_one_learns_from_changes_which_loop_it_is() -> None:
    other = replace(SMALLER, forks=changed(PLAIN, {"reward_model": {"epochs": 2}}))
    assert VariantLoop(SMALLER, 0).identity != VariantLoop(other, 0).identity


def test_a_smaller_model_is_not_begun_without_what_it_takes_over(tmp_path: Path) -> None:
    source, small = plan_of(tmp_path, Smoke(PLAIN, SMALLER)).works
    with pytest.raises(UserError) as refused:
        small.request()
    assert str(refused.value) == (
        f"smaller, seed 0 needs what plain, seed 0 kept after reward_model_accuracy, and {small.beginning} is gone; "
        f"delete {source.folder}, and both are run again."
    )
    assert small.beginning is not None
    small.beginning.mkdir(parents=True)
    assert [step.assets[:2] for step in small.request().steps] == [
        ["base_model", "sft_checkpoint"],
        ["reward_model_halves", "ppo_policy"],
    ]


@pytest.mark.parametrize(
    ("settings", "anew", "sentence"),
    [
        ({"sft": {"epochs": 3}}, ("base_model",), "set differently: sft.epochs"),
        ({}, ("base_model", "completions"), "makes completions anew; of a beginning that can be base_model, sft_check"),
        (
            {"ppo": {"start": "behaviour"}},
            SMALLER.anew,
            "that the round sampled from all the same; set `ppo.start: sft`",
        ),
    ],
)
def test_only_models_are_made_anew_in_a_beginning_and_with_their_own_settings(
    settings: dict[str, Any], anew: tuple[str, ...], sentence: str
) -> None:
    other = changed(SMALLER, settings, anew=anew)
    with pytest.raises(UserError, match=sentence):
        begin(other, "reward_model_accuracy")


def test_a_loop_under_another_name_is_found_again(tmp_path: Path) -> None:
    there = plan_of(tmp_path, Smoke(PLAIN)).works[0].folder
    there.mkdir(parents=True)
    assert plan_of(tmp_path, Smoke(replace(PLAIN, name="other"))).works[0].folder == there


def test_what_only_others_begin_with_is_run_as_far_as_they_need(tmp_path: Path) -> None:
    source, other = plan_of(tmp_path, Smoke(FREE)).works
    assert (source.loop.variant.name, source.claims) == ("plain", [])
    assert source.steps[-1].assets[-1] == "reward_model_accuracy"
    assert list(source.keep) == ["reward_model_accuracy"]
    assert other.beginning == source.keep["reward_model_accuracy"]
    assert other.waits_for() is source
    other.beginning.mkdir(parents=True)
    assert other.waits_for() is None


def test_beginnings_are_kept_for_claims_that_may_come_later(tmp_path: Path) -> None:
    plan = make_plan([(Smoke(PLAIN), 0)], "quick", tmp_path, [Smoke(PLAIN), Smoke(FREE)])
    assert [work.loop.variant.name for work in plan.works] == ["plain"]
    assert list(plan.works[0].keep) == ["reward_model_accuracy"]


@pytest.mark.parametrize(
    ("settings", "after", "named"),
    [
        ({"labeling": {"comparisons_per_round": 41}}, "completions", "labeling.comparisons_per_round"),
        ({"sft": {"epochs": 2}}, "sft_checkpoint", "sft.epochs"),
        ({"data": {"prompts": 300}}, "prompts", "data.prompts"),
        ({"base_model": {"tiny": {"width": 16}}}, "sft_checkpoint", "base_model.tiny"),
        ({"reward_model": {"epochs": 2}, "ppo": {"updates": 4}}, "reward_model", "reward_model.epochs"),
        ({"data": {"task": "descriptive"}}, "prompts", "data.task"),
    ],
)
def test_a_beginning_of_other_settings_is_refused(settings: dict[str, Any], after: str, named: str) -> None:
    with pytest.raises(UserError) as refused:
        begin(changed(PLAIN, settings, name="other"), after)
    assert str(refused.value) == (
        f"The variant other begins as plain does up to {after}, and what that is made from is set differently: "
        f"{named}. Set it the same, or begin from less."
    )


@pytest.mark.parametrize(
    ("settings", "after"),
    [
        ({"labeling": {"comparisons_per_round": 41}}, "sft_checkpoint"),
        ({"data": {"annotator_kind": "hurried"}}, "completions"),
        ({"ppo": {"updates": 4}, "gate": {"max_kl": 3.0}}, "reward_model_accuracy"),
        ({"name": "other"}, "promotion"),
    ],
)
def test_what_is_read_later_may_differ(settings: dict[str, Any], after: str) -> None:
    source = replace(PLAIN, until="promotion")
    begin(replace(changed(source, settings), name="other"), after, source)


def test_a_beginning_that_one_of_them_has_not_is_refused() -> None:
    with pytest.raises(UserError, match="up to eval_report, which plain has not; let it end later"):
        begin(FREE, "eval_report", replace(PLAIN, until="ppo_policy"))


@pytest.mark.parametrize(
    ("variant", "sentence"),
    [
        (replace(PLAIN, until="dpo_policy"), "ends a round after dpo_policy, which it has not"),
        (replace(PLAIN, rounds=0), "has 0 rounds"),
        (replace(PLAIN, probes=(ZERO_SHOT, ZERO_SHOT)), "two probes zero_shot"),
        (replace(PLAIN, probes=(Probe("nothing"),)), "There is no probe nothing; choose one of zero_shot"),
        (changed(PLAIN, {"seed": 4}), "sets `seed`"),
        (changed(PLAIN, {"label_store": {"simulated_annotators": False}}), "would wait for people"),
        (changed(PLAIN, {"ppo": {"updatse": 4}}), "settings of the variant plain: `ppo.updatse` is not a setting"),
    ],
)
def test_a_variant_that_cannot_be_run_is_refused_before_anything_runs(
    variant: Variant, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        plan_of(tmp_path, Smoke(variant))


def test_rounds_before_the_last_end_where_the_variant_says() -> None:
    several = VariantLoop(replace(PLAIN, rounds=2, between="reward_model_accuracy", until="completions"), 0)
    assert [(step.job, step.round_key, step.assets[-1]) for step in several.steps] == [
        ("prepare", None, "sft_checkpoint"),
        ("collect_round", "round-0001", "preference_batch"),
        ("train_round", "round-0001", "reward_model_accuracy"),
        ("collect_round", "round-0002", "completions"),
    ]


def test_steps_are_cut_where_a_beginning_is_kept_and_only_in_the_first_round() -> None:
    steps = VariantLoop(replace(PLAIN, rounds=2), 0).steps
    cut = list(cut_after(steps, {"completions", "sft_checkpoint"}))
    ends = [(step.round_key, step.assets[-1]) for step in cut]
    assert ends[:3] == [(None, "sft_checkpoint"), ("round-0001", "completions"), ("round-0001", "preference_batch")]
    assert [(step.round_key, asset) for step in cut for asset in step.assets] == [
        (step.round_key, asset) for step in steps for asset in step.assets
    ]
    assert first_steps(steps, "completions") == cut[:2]


def test_every_asset_has_its_place_in_the_order() -> None:
    asked = {"arms": ["ppo", "dpo", "rloo", "grpo", "best_of_n_sft"], "release": {"arm": "best"}}
    steps = VariantLoop(changed(PLAIN, asked, until="promotion"), 0).steps
    assert [asset for step in steps for asset in step.assets] == ASSET_ORDER


def test_what_is_taken_over_costs_nothing_and_what_is_done_corrects_the_rest(tmp_path: Path) -> None:
    plain, free = plan_of(tmp_path, Smoke(PLAIN, FREE)).works
    alone = plan_of(tmp_path, Smoke(ALONE)).works[0]
    assert estimate(free) < estimate(alone) < estimate(plain)
    costs = Costs(speed=0.5)
    assert costs.of(free) == pytest.approx(2 * estimate(free))
    assert costs.left([plain, free], processes=2) == pytest.approx(costs.of(plain) + costs.of(free))
    took = {name: 6 * seconds for name, seconds in parts_of_work(plain)} | {"base_model": 0.0}
    costs.learn(plain, took)
    assert costs.of(free) == pytest.approx(6 * estimate(free))


def test_what_is_made_already_costs_nothing_more(tmp_path: Path) -> None:
    work = plan_of(tmp_path, Smoke(PLAIN)).works[0]
    table = work.folder / "assets" / "pretraining_text.parquet"
    table.parent.mkdir(parents=True)
    table.touch()
    ready = dict(parts_of_work(work))["pretraining_text"]
    assert ready > 0
    assert Costs(1.0).of(work) == pytest.approx(estimate(work) - ready)


def test_more_work_costs_more(tmp_path: Path) -> None:
    def cost(**settings: Any) -> float:
        return estimate(plan_of(tmp_path, Smoke(changed(PLAIN, settings))).works[0])

    least = cost()
    assert cost(labeling={"comparisons_per_round": 4000}) > least + 10
    assert cost(ppo={"updates": 300}) > least + 1
    assert cost(base_model={"tiny": {"layers": 1, "width": 128, "heads": 2, "steps": 30}}) > least
    assert SETTINGS["ppo"]["updates"] == 3
