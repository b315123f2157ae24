import json
import multiprocessing
import os
import signal
from datetime import UTC, datetime

import pytest

from rlhf_dagster.common.sealed import seal
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage import registry as registry_module
from rlhf_dagster.lineage.registry import PolicyRegistry
from rlhf_dagster.storage.local import LocalStore


@pytest.fixture
def registry(tmp_path) -> PolicyRegistry:
    made = PolicyRegistry(LocalStore(tmp_path))
    made.register("sft", "models/sft", "sft", "")
    for number in (1, 2, 3):
        made.register(f"ppo-{number}", f"models/ppo-{number}", "ppo", f"round-{number:04}", ["sft"])
    return made


def champion(registry: PolicyRegistry) -> str | None:
    current = registry.champion()
    return current.policy_id if current else None


def test_registering_again_is_a_no_op_and_differently_an_error(registry) -> None:
    again = registry.register("ppo-1", "models/ppo-1", "ppo", "round-0001", ["sft"])
    assert registry.get("ppo-1") == again
    with pytest.raises(UserError, match="already registered differently"):
        registry.register("ppo-1", "models/other", "ppo", "round-0001", ["sft"])
    assert registry.get("ppo-1").checkpoint == "models/ppo-1"
    assert registry.policies() == ["ppo-1", "ppo-2", "ppo-3", "sft"]


@pytest.mark.parametrize("name", ["", "../sft", "a/b", ".hidden", "x" * 300])
def test_ids_that_are_no_file_names_are_refused(registry, name: str) -> None:
    with pytest.raises(UserError, match="cannot be a policy id"):
        registry.register(name, "models/x", "ppo", "round-0001")


def test_checkpoints_are_relative(registry) -> None:
    with pytest.raises(UserError, match="relative"):
        registry.register("x", "/models/x", "ppo", "round-0001")


def test_an_unknown_policy_names_the_known_ones(registry) -> None:
    for call in (
        lambda: registry.get("ghost"),
        lambda: registry.set_initial("ghost"),
        lambda: registry.promote("ghost", "round-0001", "gate", "better"),
        lambda: registry.rollback("ghost", "ada", "worse"),
    ):
        with pytest.raises(UserError, match=r"no policy ghost; registered: ppo-1, ppo-2, ppo-3, sft"):
            call()


def test_sft_is_champion_until_a_round_is_promoted(registry) -> None:
    assert registry.champion() is None
    assert registry.set_initial("sft").promoted
    assert not registry.set_initial("sft").promoted
    registry.register("sft-2", "models/sft-2", "sft", "")
    assert registry.set_initial("sft-2").promoted
    registry.promote("ppo-1", "round-0001", "gate", "better")
    assert not registry.set_initial("sft").promoted
    assert champion(registry) == "ppo-1"
    assert [entry.action for entry in registry.history()] == ["initial", "initial", "promotion"]


def test_promotion_moves_only_forward(registry) -> None:
    registry.set_initial("sft")
    assert registry.promote("ppo-2", "round-0002", "gate", "better").promoted
    same = registry.promote("ppo-2", "round-0002", "gate", "better")
    assert (same.promoted, same.champion) == (False, "ppo-2")
    old = registry.promote("ppo-1", "round-0001", "gate", "better")
    assert (old.promoted, old.champion) == (False, "ppo-2")
    assert "later round round-0002" in old.reason
    assert len(registry.history()) == 2
    assert registry.promote("ppo-3", "round-0003", "gate", "better").promoted


def test_a_rollback_holds_against_reruns_until_a_newer_round(registry) -> None:
    registry.set_initial("sft")
    registry.promote("ppo-1", "round-0001", "gate", "better")
    registry.promote("ppo-2", "round-0002", "gate", "better")
    assert registry.rollback("ppo-1", "ada", "repeats itself").promoted
    assert not registry.rollback("ppo-1", "ada", "again").promoted
    rerun = registry.promote("ppo-2", "round-0002", "gate", "better")
    assert (rerun.promoted, rerun.champion) == (False, "ppo-1")
    assert rerun.reason == "ppo-2 was champion before and gave way to ppo-1; roll back to return to it."
    last = registry.history()[-1]
    assert (last.policy_id, last.round_key, last.action, last.by, last.reason) == (
        "ppo-1",
        "round-0001",
        "rollback",
        "ada",
        "repeats itself",
    )
    assert registry.promote("ppo-3", "round-0003", "gate", "better").promoted


def test_after_a_rollback_older_rounds_stay_refused(registry) -> None:
    registry.set_initial("sft")
    registry.promote("ppo-2", "round-0002", "gate", "better")
    registry.rollback("sft", "ada", "repeats itself")
    late = registry.promote("ppo-1", "round-0001", "gate", "better")
    assert (late.promoted, late.champion) == (False, "sft")


def test_rollback_goes_only_to_former_champions(registry) -> None:
    registry.set_initial("sft")
    with pytest.raises(UserError, match="never champion"):
        registry.rollback("ppo-1", "ada", "hope")


def test_the_previous_champion_is_the_one_that_the_champion_took_over_from(registry) -> None:
    assert registry.previous_champion() is None
    registry.set_initial("sft")
    assert registry.previous_champion() is None
    registry.promote("ppo-1", "round-0001", "gate", "better")
    registry.promote("ppo-2", "round-0002", "gate", "better")
    assert registry.previous_champion() == "ppo-1"
    registry.rollback("ppo-1", "ada", "repeats itself")
    # Not ppo-2, from which the rollback came.
    assert registry.previous_champion() == "sft"
    registry.promote("ppo-3", "round-0003", "gate", "better")
    assert registry.previous_champion() == "ppo-1"
    registry.rollback("sft", "ada", "all of them do")
    assert registry.previous_champion() is None


def test_a_refusal_is_said_before_anything_is_moved(registry) -> None:
    registry.set_initial("sft")
    registry.promote("ppo-2", "round-0002", "gate", "better")
    history = registry.history()
    assert registry.refusal("ppo-3", "round-0003") == ""
    for policy, key, reason in (("ppo-2", "round-0002", "already"), ("ppo-1", "round-0001", "later round round-0002")):
        assert reason in registry.refusal(policy, key)
        assert registry.promote(policy, key, "gate", "better").reason == registry.refusal(policy, key)
    assert registry.history() == history


def test_an_approval_is_of_one_policy_and_the_last_one_counts(registry) -> None:
    assert (registry.last_word("ppo-1"), registry.approvals()) == (None, [])
    first = registry.approve("ppo-1", "round-0001", "ada", "looks good")
    assert (first.round_key, first.policy_id, first.by, first.reason, first.anyway) == (
        *("round-0001", "ppo-1", "ada", "looks good"),
        False,
    )
    second = registry.approve("ppo-1", "round-0001", "bob", "the judges were wrong", anyway=True)
    assert registry.last_word("ppo-1") == second
    assert registry.last_word("ppo-2") is None
    assert registry.approvals() == [first, second]
    files = sorted((registry.store.root / "registry" / "approvals").iterdir())
    assert [json.loads(file.read_text(encoding="utf-8"))["by"] for file in files] == ["ada", "bob"]


@pytest.mark.parametrize(("by", "reason"), [("", "good"), (" ", "good"), ("ada", "")])
def test_an_approval_without_a_name_or_a_reason_is_refused(registry, by: str, reason: str) -> None:
    with pytest.raises(UserError, match="on record"):
        registry.approve("ppo-1", "round-0001", by, reason)
    with pytest.raises(UserError, match="no policy ghost"):
        registry.approve("ghost", "round-0001", "ada", "good")
    assert registry.approvals() == []


def test_a_pin_stays_when_the_champion_moves(registry) -> None:
    registry.set_initial("sft")
    assert registry.pinned("round-0001") is None
    assert registry.pin("round-0001") == "sft"
    registry.promote("ppo-1", "round-0001", "gate", "better")
    assert registry.pin("round-0001") == registry.pinned("round-0001") == "sft"
    assert registry.pin("round-0002") == "ppo-1"


def test_nothing_can_be_pinned_before_there_is_a_champion(registry) -> None:
    with pytest.raises(UserError, match="no champion yet; run the job `prepare` first"):
        registry.pin("round-0001")


def test_history_is_only_ever_added_to(registry) -> None:
    folder = registry.store.root / "registry" / "history"
    registry.set_initial("sft")
    before = (folder / "000001.json").read_bytes()
    registry.promote("ppo-1", "round-0001", "gate", "besser für alle")
    assert (folder / "000001.json").read_bytes() == before
    files = sorted(folder.iterdir())
    assert [json.loads(file.read_text(encoding="utf-8"))["policy_id"] for file in files] == ["sft", "ppo-1"]


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_killed_at_any_step_the_registry_is_whole(registry, step: str) -> None:
    registry.set_initial("sft")
    child = os.fork()
    if child == 0:
        try:
            _die_at(step)
            registry.pin("round-0001")
            registry.promote("ppo-1", "round-0001", "gate", "better")
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert champion(registry) == "sft"
    assert registry.pinned("round-0001") is None
    assert registry.pin("round-0001") == "sft"
    assert registry.promote("ppo-1", "round-0001", "gate", "better").promoted
    assert registry.policies() == ["ppo-1", "ppo-2", "ppo-3", "sft"]


def _die_at(step: str) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, step, die)


def _pin(root, policy: str, barrier, results) -> None:
    registry = PolicyRegistry(LocalStore(root))
    registry.champion = lambda: registry_module.ChampionRecord(policy, "", "initial", "", "", "2026-01-01")
    barrier.wait()
    results.put(registry.pin("round-0001"))


def test_of_processes_pinning_at_once_one_wins_for_all(registry) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(6), context.Queue()
    names = [f"ppo-{number}" for number in range(6)]
    workers = [context.Process(target=_pin, args=(registry.store.root, name, barrier, results)) for name in names]
    for worker in workers:
        worker.start()
    winners = {results.get() for _ in workers}
    for worker in workers:
        worker.join()
    assert winners == {registry.pinned("round-0001")}


def _promote(root, number: int, barrier) -> None:
    registry = PolicyRegistry(LocalStore(root))
    barrier.wait()
    registry.promote(f"ppo-{number}", f"round-{number:04}", "gate", "better")


def test_promotions_at_once_leave_the_newest_and_lose_no_line(registry) -> None:
    registry.set_initial("sft")
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    workers = [context.Process(target=_promote, args=(registry.store.root, number, barrier)) for number in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert champion(registry) == "ppo-3"
    rounds = [entry.round_key for entry in registry.history()]
    assert rounds == sorted(rounds)


def test_a_policy_whose_parents_are_no_list_is_damaged(registry) -> None:
    registry.store.put("registry/policies/ppo-1.json", b'{"policy_id": "ppo-1", "parents": 1.5}')
    with pytest.raises(UserError, match=r"ppo-1.json is damaged: its parents are no list"):
        registry.get("ppo-1")


def test_a_champion_of_no_time_is_damaged_and_one_without_a_zone_is_of_utc(registry) -> None:
    change = {"policy_id": "sft", "round_key": "", "action": "initial", "by": "ann", "reason": "by hand"}
    registry.store.put("registry/history/000001.json", seal(change | {"at": "yesterday"}))
    with pytest.raises(UserError, match=r"registry/history/000001.json is damaged: Invalid isoformat string"):
        registry.champion()
    registry.store.put("registry/history/000001.json", seal(change | {"at": "2026-01-01"}))
    champion = PolicyRegistry(registry.store).champion()
    assert champion is not None
    assert champion.since == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_link_that_leads_nowhere_in_the_place_of_a_record_is_said(registry) -> None:
    """A copy of links to a disk that is gone: the name is taken, and there is nothing to read."""
    for folder, ask in (("history", registry.set_initial), ("pins", registry.pin)):
        place = registry.store.root / "registry" / folder / ("000001.json" if folder == "history" else "sft.json")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to("/gone/away")
        with pytest.raises(UserError, match=f"{place.name}: a link that leads nowhere, not a file; put the file in"):
            ask("sft")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"policy_id": 5}, "'policy_id' is not what it must be"),
        ({"policy_id": None}, "'policy_id' is not what it must be"),
        ({"weight": 1}, "it has the unknown key 'weight'"),
    ],
)
def test_a_pin_of_another_form_is_damaged(registry, change: dict, why: str) -> None:
    registry.store.put("registry/pins/round-0001.json", seal({"round": "round-0001", "policy_id": "sft"} | change))
    with pytest.raises(UserError, match=f"registry/pins/round-0001.json is damaged.*{why}"):
        registry.pinned("round-0001")
