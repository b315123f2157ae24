"""`rlhf check` finds whatever is not whole and mends what is safe; a backup is of one moment and comes back."""

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from loops import ROUND, asset_path, checkpoint, open_runner, rlhf_here, run_missing

from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.common.user_hash import users_key
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.lineage.stop_cord import read_stop
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.upkeep.backup import back_up
from rlhf_dagster.loop.upkeep.check import check_loop
from rlhf_dagster.loop.upkeep.restore import bring_back

FILES = {
    "a table": f"assets/preference_labels/{ROUND}.parquet",
    "a report": f"assets/eval_report/{ROUND}.json",
    "a pointer": f"assets/reward_model/{ROUND}.json",
    "a page": f"assets/eval_report/{ROUND}.html",
    "a pin": f"registry/pins/{ROUND}.json",
    "a decision": "registry/history/000002.json",
    "the format": "format.json",
    "the mark of the ledger": "ledger.json",
}


@pytest.fixture
def loop(finished, copy_of) -> LoopFolder:
    return copy_of(finished.loop.root).loop


def flip(path: Path, position: int = -20) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def sentences(loop: LoopFolder) -> list[str]:
    return [finding.sentence for finding in check_loop(loop)]


def test_a_whole_loop_has_no_findings(loop) -> None:
    assert sentences(loop) == []
    result = rlhf_here("check", str(loop.root))
    assert result.returncode == 0
    assert "is whole" in result.stdout


@pytest.mark.parametrize("what", FILES)
def test_a_flipped_bit_is_found_named_and_told_how_to_mend(loop, what: str) -> None:
    flip(loop.root / FILES[what], 30)
    said = sentences(loop)
    assert any(FILES[what] in sentence for sentence in said)
    result = rlhf_here("check", str(loop.root))
    assert result.returncode == 1
    assert FILES[what] in result.stdout
    assert "next " in result.stdout


def test_a_damaged_model_is_found_with_all_that_point_to_it(loop) -> None:
    model = checkpoint(loop, "ppo_policy", ROUND)
    flip(loop.root / model.path / "model.safetensors")
    [said] = [sentence for sentence in sentences(loop) if "does not match" in sentence or "damaged" in sentence]
    assert f"assets/ppo_policy/{ROUND}.json" in said
    assert f"registry/policies/{model.model_id}.json" in said
    with pytest.raises(Damaged, match="do not match its digest"):
        _ = model.folder


def test_a_model_s_manifest_is_checked_too(loop) -> None:
    model = checkpoint(loop, "reward_model", ROUND)
    flip(loop.root / model.path / "manifest.json", 200)
    assert any(model.model_id in sentence for sentence in sentences(loop))


def test_repair_sets_aside_what_is_made_again_and_the_result_is_the_same(loop) -> None:
    before = asset_path(loop, "preference_dataset", ROUND).read_bytes()
    for name in ("preference_dataset", "preference_labels"):
        flip(asset_path(loop, name, ROUND))
    flip(loop.root / FILES["a pin"], 30)
    policy = checkpoint(loop, "ppo_policy", ROUND)
    flip(loop.root / "registry" / "policies" / f"{policy.model_id}.json", 30)
    result = rlhf_here("check", str(loop.root), "--repair")
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("mended") == 4
    assert loop.registry.pinned(ROUND) == checkpoint(loop, "sft_checkpoint").model_id
    assert loop.policy(policy.model_id) == policy
    assert (loop.root / "damaged" / "assets" / "preference_dataset" / f"{ROUND}.parquet").exists()
    runner = open_runner(loop.root)
    assert run_missing(runner, "train_round", ROUND, until="preference_dataset").success
    assert asset_path(loop, "preference_dataset", ROUND).read_bytes() == before
    assert sentences(loop) == []


def test_a_damaged_decision_stops_what_depends_on_it_until_it_is_set_aside(loop) -> None:
    flip(loop.root / FILES["a decision"], 30)
    with pytest.raises(Damaged, match="check LOOP --repair"):
        loop.registry.champion()
    assert rlhf_here("check", str(loop.root), "--repair").returncode == 0
    assert loop.registry.champion().action == "initial"


def test_a_decision_with_a_key_that_nobody_knows_is_found(loop) -> None:
    """Every command that asks for the champion refuses it, so `check` may not call the loop whole."""
    path = loop.root / FILES["a decision"]
    values = unseal(path.read_bytes(), "decision")
    path.write_bytes(seal(values | {"weight": 3}))
    (said,) = [sentence for sentence in sentences(loop) if "unknown key" in sentence]
    assert said == "registry/history/000002.json is damaged or by a newer release: it has the unknown key 'weight'."
    result = rlhf_here("rollback", "--loop", loop.root, "--reason", "x", "--by", "Ada")
    assert (result.returncode, said in result.stderr) == (2, True)


def test_what_an_interrupted_writer_left_is_found_after_an_hour(loop) -> None:
    left = loop.root / "assets" / ".prompts.parquet.0123.tmp"
    left.write_bytes(b"half")
    assert sentences(loop) == []
    import os

    os.utime(left, (0, 0))
    assert "was left by a process" in sentences(loop)[0]
    assert rlhf_here("check", str(loop.root), "--repair").returncode == 0
    assert not left.exists()


def files_of(loop: LoopFolder) -> dict[str, bytes]:
    kept = [key for key in loop.store.list() if key.partition("/")[0] in ("assets", "models", "registry")]
    return {key: loop.store.get(key).data for key in kept}


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_backup_comes_back_as_it_was_and_waits_for_a_person(loop, tmp_path, request, kind: str) -> None:
    to = str(tmp_path / "backup")
    if kind == "bucket":
        to = f"s3://{request.getfixturevalue('s3').new_bucket()}/monday"
    key = users_key(loop.root)
    assert rlhf_here("backup", str(loop.root), to).returncode == 0
    result = rlhf_here("restore", to, str(tmp_path / "back"))
    assert result.returncode == 0, result.stderr
    assert users_key(tmp_path / "back") == key
    back = LoopFolder.open(tmp_path / "back")
    assert files_of(back) == files_of(loop)
    assert back.ledger.state() == loop.ledger.state()
    assert back.label_store.count(ROUND, "train") == loop.label_store.count(ROUND, "train")
    stop = read_stop(back.store)
    assert stop is not None
    assert "as it was at" in stop.reason
    assert sentences(back) == []
    assert rlhf_here("resume", "--loop", str(back.root)).returncode == 0
    assert open_runner(back.root).missing("train_round", ROUND) == []


def test_a_backup_is_of_one_moment_while_the_loop_goes_on(loop, tmp_path) -> None:
    """Two files are always written one after the other; a backup never has the later without the earlier."""
    done = threading.Event()

    def work() -> None:
        for number in range(40):
            for asset in ("first", "second"):
                loop.store.put(loop.asset_key(asset, ROUND, "json"), seal({"n": number}))
        done.set()

    writer = threading.Thread(target=work)
    writer.start()
    back_up(loop, str(tmp_path / "backup"), print)
    writer.join()
    back, _ = bring_back(str(tmp_path / "backup"), tmp_path / "back", print)
    first, second = back.json("first", ROUND), back.json("second", ROUND)
    assert first["n"] - second["n"] in (0, 1)


def test_a_backup_that_was_interrupted_is_none_and_goes_on(loop, tmp_path, monkeypatch) -> None:
    from rlhf_dagster.storage.local import LocalStore

    put, left = LocalStore.put, [30]

    def some(*arguments: Any, **options: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        put(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "put", some)
        with pytest.raises(KeyboardInterrupt):
            back_up(loop, str(tmp_path / "backup"), print)
    with pytest.raises(UserError, match="no whole backup here"):
        bring_back(str(tmp_path / "backup"), tmp_path / "back", print)
    back_up(loop, str(tmp_path / "backup"), print)
    back, _ = bring_back(str(tmp_path / "backup"), tmp_path / "back", print)
    assert files_of(back) == files_of(loop)


def test_a_damaged_backup_brings_nothing_back(loop, tmp_path) -> None:
    back_up(loop, str(tmp_path / "backup"), print)
    flip(tmp_path / "backup" / "store" / FILES["a table"])
    with pytest.raises(Damaged, match=r"preference_labels.*is damaged.*take another backup"):
        bring_back(str(tmp_path / "backup"), tmp_path / "back", print)
    assert not (tmp_path / "back").exists()


def test_neither_a_backup_nor_a_loop_is_overwritten(loop, tmp_path) -> None:
    back_up(loop, str(tmp_path / "backup"), print)
    with pytest.raises(UserError, match="there is a backup already"):
        back_up(loop, str(tmp_path / "backup"), print)
    with pytest.raises(UserError, match="holds a loop already"):
        bring_back(str(tmp_path / "backup"), loop.root, print)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    with pytest.raises(UserError, match="is not empty"):
        back_up(loop, str(tmp_path / "full"), print)
    shutil.rmtree(tmp_path / "full")
