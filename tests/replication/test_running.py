"""Variants run in worker processes: from another's beginning, killed and taken up again, with the same numbers."""

import json
from collections import Counter
from typing import Any

from smoke_claim import ALONE, FREE, PLAIN, SMALLER, ZERO_SHOT, Heard, Smoke, run

from rlhf_dagster.lineage.stop_cord import RESERVE
from rlhf_dagster.loop.upkeep.check import check_loop
from rlhf_dagster.replication.results import FinishedVariants
from rlhf_dagster.replication.running.plan import Plan
from rlhf_dagster.replication.running.pool import WORKERS_LOG
from rlhf_dagster.replication.running.replicate import measure_cell


def made(heard: Heard) -> Counter[tuple[str, str]]:
    return Counter((name, said.what) for name, said in heard if said.kind == "made")


def results_of(plan: Plan) -> FinishedVariants:
    return FinishedVariants(0, {work.loop.identity: work.folder for work in plan.works})


def test_what_is_taken_over_is_made_once(begun: tuple[Plan, Heard]) -> None:
    plan, heard = begun
    assert made(heard)["plain", "reward_model"] == 1
    own = {"reward_model_halves", "ppo_policy", "evaluation_completions", "eval_report"}
    assert {asset for name, asset in made(heard) if name == "free"} == own
    assert plan.unfinished() == []
    assert run(plan) == ([], {})


def test_a_smaller_model_learns_from_the_labels_and_the_reward_model_of_a_larger_one(
    begun: tuple[Plan, Heard],
) -> None:
    plan, heard = begun
    own = {"reward_model_halves", "ppo_policy", "evaluation_completions", "eval_report"}
    assert {asset for name, asset in made(heard) if name == "smaller"} == own | {"base_model", "sft_checkpoint"}
    small, large = (results_of(plan).loop(variant) for variant in (SMALLER, PLAIN))
    for same in ("preference_batch", "reward_model"):
        key = small.asset_key(same, "round-0001", "json" if same == "reward_model" else "parquet")
        assert (small.root / key).read_bytes() == (large.root / key).read_bytes()
    widths = [
        json.loads((loop.checkpoint(asset, key).folder / "config.json").read_text())["n_embd"]
        for loop in (small, large)
        for asset, key in (("sft_checkpoint", ""), ("ppo_policy", "round-0001"))
    ]
    assert widths == [16, 16, 32, 32]


def test_a_beginning_is_a_whole_loop(begun: tuple[Plan, Heard]) -> None:
    plan, _ = begun
    free = results_of(plan).loop(FREE)
    assert list(check_loop(free)) == []
    assert (free.root / RESERVE).is_file()
    assert "format 0" not in (plan.out / WORKERS_LOG).read_text()


def test_what_was_made_before_a_kill_is_not_made_again(killed: tuple[Plan, Heard]) -> None:
    again = {asset for _, asset in made(killed[1])}
    assert "ppo_policy" in again
    assert not again & {"sft_checkpoint", "completions", "preference_batch", "reward_model", "reward_model_accuracy"}


def test_a_loop_that_begins_as_another_is_the_loop_made_alone(
    begun: tuple[Plan, Heard], killed: tuple[Plan, Heard]
) -> None:
    loops = [results_of(plan).loop(variant) for (plan, _), variant in ((begun, FREE), (killed, ALONE))]
    models = [sorted(path.name for path in (loop.root / "models").iterdir()) for loop in loops]
    assert models[0] == models[1]
    assert sorted(name.split("-")[0] for name in models[0]) == ["base", "ppo", "reward", "sft"]
    for asset in ("prompts", "completions", "preference_batch", "preference_dataset", "evaluation_completions"):
        key = "" if asset == "prompts" else "round-0001"
        tables = [loop.store.get(loop.asset_key(asset, key)) for loop in loops]
        assert tables[0] == tables[1], asset
    figures = [
        measure_cell(Smoke(variant), "quick", 0, plan, {}) for (plan, _), variant in ((begun, FREE), (killed, ALONE))
    ]
    assert figures[0] == figures[1]


def test_a_probe_is_taken_once_and_read_by_its_name(begun: tuple[Plan, Heard]) -> None:
    plan, heard = begun
    assert made(heard)["plain", ZERO_SHOT.name] == 1
    rows: list[dict[str, Any]] = results_of(plan).probe(PLAIN, ZERO_SHOT.name)
    asked = results_of(plan).loop(PLAIN).table("evaluation_completions", "round-0001")
    assert asked is not None
    assert {row["prompt_id"] for row in rows} == set(asked["prompt_id"])
    assert all(row["text"] for row in rows)
