"""Models that nothing needs any more are removed where `models.keep` says so, and what went is on record."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from loops import ROUND, SMALL, assert_one_sentence, open_runner, read_record, rlhf_here, write_loop, write_record
from rounds_on_disk import keep, key, promote, refuse, register, report, store

from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.interventions.models import retire
from rlhf_dagster.loop.upkeep.check import check_loop
from rlhf_dagster.loop.upkeep.retention import remove_unneeded, stored_models


def loop_of(folder: Path, keep: int | str = 1, **sections: Any) -> LoopFolder:
    return LoopFolder.open(write_loop(folder, models={"keep": keep}, **sections))


@pytest.fixture
def loop(tmp_path: Path) -> LoopFolder:
    """Rounds 1, 2 and 4 are promoted, 3 is refused, and 5 is being labelled: `keep: 1`."""
    loop = loop_of(tmp_path / "loop")
    fill(loop)
    return loop


def fill(loop: LoopFolder) -> None:
    keep(loop, "base", "base", "")
    register(loop, "sft", "")
    loop.registry.set_initial("sft")
    for number in (1, 2, 3, 4):
        keep(loop, f"reward-{number}", "reward", key(number))
        loop.registry.pin(key(number))
        if number == 3:
            register(loop, "ppo-3", key(3))
            refuse(loop, key(3), "ppo-3")
        else:
            promote(loop, key(number), f"ppo-{number}")
    loop.registry.pin(key(5))
    keep(loop, "reward-5", "reward", key(5))


def ids(loop: LoopFolder) -> set[str]:
    return {path.name for path in (loop.root / "models").iterdir()}


def why(loop: LoopFolder) -> dict[str, list[str]]:
    return {model.model_id: list(model.needed) for model in stored_models(loop)}


def test_what_stays_says_why(loop) -> None:
    assert why(loop) == {
        "base": ["rounds are built on it"],
        "sft": ["rounds are built on it"],
        "ppo-1": [],
        "reward-1": [],
        "ppo-2": ["the champion before, to which a rollback leads", "round-0004 samples from it"],
        "reward-2": [],
        "ppo-3": [],
        "reward-3": [],
        "ppo-4": ["of the newest 1 decided rounds", "the champion", "round-0005 samples from it"],
        "reward-4": ["of the newest 1 decided rounds"],
        "reward-5": ["round-0005 is not decided"],
    }


def test_what_nothing_needs_goes_and_is_on_record_with_its_manifest(loop) -> None:
    manifest = read_record(loop.root / "models" / "reward-2" / "manifest.json")
    size = sum(path.stat().st_size for path in (loop.root / "models" / "reward-2").iterdir())
    gone = remove_unneeded(loop)
    assert [one.model_id for one in gone] == ["ppo-1", "reward-1", "reward-2", "ppo-3", "reward-3"]
    assert ids(loop) == {"base", "sft", "ppo-2", "ppo-4", "reward-4", "reward-5"}
    record = loop.removals.removed()["reward-2"]
    assert (record.round_key, record.size, record.reason) == (key(2), size, "models.keep: 1")
    assert read_record(loop.root / "registry" / "removed" / "reward-2.json") == manifest
    assert remove_unneeded(loop) == []
    with pytest.raises(
        UserError, match=r"is gone \(ppo-1 was removed on .*, by models.keep: 1\); restore it from a backup"
    ):
        loop.policy("ppo-1")


def test_all_keeps_all(tmp_path) -> None:
    loop = loop_of(tmp_path / "loop", keep="all")
    fill(loop)
    before = ids(loop)
    assert all(model.needed for model in stored_models(loop))
    assert remove_unneeded(loop) == []
    assert ids(loop) == before
    assert LoopConfig().models.keep == "all"


def test_more_rounds_keep_more(tmp_path) -> None:
    loop = loop_of(tmp_path / "loop", keep=3)
    fill(loop)
    assert [one.model_id for one in remove_unneeded(loop)] == ["reward-1"]  # round-0002 samples from ppo-1


def test_a_round_that_waits_for_a_person_keeps_its_models(loop) -> None:
    register(loop, "ppo-5", key(5))
    waits = {"policy": "ppo-5", "promoted": False, "outcome": "waiting for approval", "reasons": ["wait"]}
    store(loop, "eval_report", key(5), report("ppo-5"))
    store(loop, "promotion", key(5), waits)
    assert why(loop)["ppo-5"] == ["round-0005 is not decided"]
    refuse(loop, key(5), "ppo-5")
    assert why(loop)["ppo-5"] == ["of the newest 1 decided rounds"]
    assert why(loop)["reward-4"] == []
    assert why(loop)["ppo-4"] == ["the champion", "round-0005 samples from it"]


def test_the_base_of_adapters_stays_with_them_and_its_own_base(loop) -> None:
    for model, base in (("ppo-4", "reward-1"), ("reward-1", "ppo-1"), ("ppo-3", "reward-3")):
        # A value model's adapters lie below those of its policy.
        folder = loop.root / "models" / model / ("value_model" if model == "reward-1" else "")
        write_record(folder / "base.json", {"name": base, "bits": 4})
    found = why(loop)
    assert found["reward-1"] == ["the base of ppo-4"]
    assert found["ppo-1"] == ["the base of reward-1"]
    assert found["reward-3"] == []  # nothing needs the adapters that stand on it


def test_a_round_that_has_made_no_model_yet_keeps_the_policy_that_it_samples_from(loop) -> None:
    loop.registry.pin(key(6), "ppo-1")
    assert why(loop)["ppo-1"] == ["round-0006 samples from it"]


def test_a_model_is_retired_that_only_the_setting_keeps(tmp_path) -> None:
    loop = loop_of(tmp_path / "loop", keep="all")
    fill(loop)
    gone = retire(loop, "reward-4", "ann", "It was trained on labels that we may not keep.")
    assert "reward-4" not in ids(loop)
    assert gone.sentence.endswith(", by ann: It was trained on labels that we may not keep.")
    assert loop.removals.removed()["reward-4"] == gone


STAYS = {
    "ppo-4": "ppo-4 stays: the champion; round-0005 samples from it.",
    "ppo-2": "ppo-2 stays: the champion before, to which a rollback leads.",
    "sft": "sft stays: rounds are built on it.",
    "reward-5": "reward-5 stays: round-0005 is not decided.",
    "nobody": "There is no model nobody: `rlhf models ",
}


@pytest.mark.parametrize("model", STAYS)
def test_what_is_needed_is_not_retired(loop, model: str) -> None:
    before = ids(loop)
    with pytest.raises(UserError) as caught:
        retire(loop, model, "ann", "too big")
    assert str(caught.value).startswith(STAYS[model])
    assert ids(loop) == before


def test_what_is_gone_already_says_so_and_nobody_retires_without_a_name(loop) -> None:
    remove_unneeded(loop)
    with pytest.raises(UserError, match=r"There is no model ppo-1: ppo-1 was removed on .*, by models.keep: 1\."):
        retire(loop, "ppo-1", "ann", "too big")
    with pytest.raises(UserError, match="give your name and a reason"):
        retire(loop, "reward-4", "ann", " ")


def test_the_command_retires_one_model(tmp_path) -> None:
    loop = loop_of(tmp_path / "loop", keep="all")
    fill(loop)
    done = rlhf_here("models", loop.root, "--retire", "reward-1", "--by", "ann", "--reason", "too big")
    assert done.stdout.startswith("reward-1  ") and "reward-1" not in ids(loop)
    assert_one_sentence(rlhf_here("models", loop.root, "--retire", "reward-2"), "give your name and a reason")
    assert_one_sentence(rlhf_here("models", loop.root, "--reason", "too big"), "it needs --retire")


def test_a_challenger_stays_where_the_next_round_asks_for_it(tmp_path) -> None:
    loop = loop_of(tmp_path / "loop", labeling=SMALL["labeling"] | {"challenger_share": 0.1})
    fill(loop)
    assert why(loop)["ppo-3"] == ["the next round compares it with the champion"]


def test_a_deleted_round_keeps_nothing_and_is_none_of_the_newest(loop) -> None:
    loop.deletions.delete(key(5), "ann", "a mistake")
    loop.deletions.delete(key(4), "ann", "a mistake")
    found = why(loop)
    assert found["reward-5"] == found["reward-4"] == []
    assert found["ppo-4"] == ["the champion"]
    assert found["reward-3"] == ["of the newest 1 decided rounds"]


def test_what_cannot_be_told_about_is_left_alone(loop) -> None:
    (loop.root / "models" / "mine").mkdir()
    (loop.root / "models" / "mine" / "notes.txt").write_text("not a model of the loop")
    damaged = loop.root / "models" / "reward-1" / "manifest.json"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    remove_unneeded(loop)
    assert {"mine", "reward-1"} <= ids(loop)


def test_a_removal_that_was_interrupted_is_finished(loop, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(type(loop.store), "delete", lambda *_: (_ for _ in ()).throw(UserError("The disk is gone.")))
        with pytest.raises(UserError, match="The disk is gone"):
            remove_unneeded(loop)
    assert "ppo-1" in ids(loop)
    assert loop.removals.removed().keys() == {"ppo-1"}
    remove_unneeded(loop)
    assert "ppo-1" not in ids(loop)


@pytest.mark.parametrize("keep_value", [0, -1, True, "some"])
def test_a_number_of_rounds_is_one_or_more(keep_value: Any) -> None:
    with pytest.raises(UserError, match=r"loop.yaml: `models.keep"):
        LoopConfig.parse({"models": {"keep": keep_value}}, "loop.yaml")


def test_the_list_shows_sizes_and_reasons(loop) -> None:
    shown = rlhf_here("models", loop.root).stdout
    assert "11 models take " in shown
    assert "nothing needs it" in shown
    done = rlhf_here("models", loop.root, "--remove")
    assert "5 models were removed, " in done.stdout
    assert "5 were removed, " in rlhf_here("models", loop.root).stdout
    write_loop(loop.root)
    assert_one_sentence(rlhf_here("models", loop.root, "--remove"), "`models.keep` is `all`")


def test_a_real_round_stays_whole_after_its_models_are_removed(two_rounds, copy_of) -> None:
    runner = copy_of(two_rounds.loop.root, models={"keep": 1})
    loop = runner.loop
    before = {asset: loop.checkpoint(asset, ROUND) for asset in ("reward_model", "ppo_policy")}
    assert runner.run("release_round", "round-0002", ["promotion"]).success
    gone = loop.removals.removed()
    assert before["reward_model"].model_id in gone
    assert not before["reward_model"].is_there()
    # The champion before stays.
    assert before["ppo_policy"].is_there()
    found = runner.instance.fetch_materializations(dg.AssetRecordsFilter(dg.AssetKey("promotion")), limit=1).records[0]
    assert found.asset_materialization.metadata["removed_models"].value == len(gone) > 0
    assert list(check_loop(loop)) == []
    again = open_runner(loop.root)
    assert again.missing("train_round", ROUND) == []
    assert again.missing("train_round", "round-0002") == []
    assert rlhf_here("round", "status", "--loop", loop.root).returncode == 0
