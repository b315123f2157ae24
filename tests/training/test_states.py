"""States on disk: what is damaged is noticed and said, what version 0.1 has left is gone on from."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from rlhf_dagster.training.runtime.resuming import Checkpointing
from rlhf_dagster.training.runtime.state_folders import OLD_IDENTITY, OLD_SIZES, STATE_RECORD, damage, states_in
from rlhf_dagster.training.runtime.state_keeper import TENSORS, StateKeeper

CPU = torch.device("cpu")


def keeper_of(folder: Path, identity: str = "a") -> StateKeeper:
    return StateKeeper(Checkpointing(folder, 0.0), identity)


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def two_states(folder: Path) -> list[Path]:
    """As a kill leaves them that comes before the older one is removed."""
    keeper = keeper_of(folder)
    keeper.after_step(3, lambda: {"step": 3, "weights": torch.arange(50.0)})
    older = shutil.copytree(states_in(folder)[0], folder.parent / "older")
    keeper.after_step(5, lambda: {"step": 5, "weights": torch.arange(50.0)})
    shutil.move(older, folder / "state-000000003")
    return states_in(folder)


@pytest.mark.parametrize("name", [TENSORS, STATE_RECORD])
def test_any_flipped_bit_is_noticed_and_the_state_before_is_used(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(name)
    for number in range(40):
        folder = tmp_path / str(number) / "state"
        flip(two_states(folder)[-1] / name, rng)
        assert keeper_of(folder).load(CPU)["step"] == 3  # type: ignore[index]
        assert "state-000000005 is damaged" in caplog.text
        assert "goes on from the state after step 3, and does 2 steps again" in caplog.text
        assert [state.name for state in states_in(folder)] == ["state-000000003"]
        caplog.clear()


def test_without_another_state_a_damaged_one_means_to_begin_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper_of(tmp_path / "state").after_step(7, lambda: {"weights": torch.zeros(3)})
    flip(tmp_path / "state" / "state-000000007" / TENSORS, random.Random(0))
    assert keeper_of(tmp_path / "state").load(CPU) is None
    assert f"({TENSORS} is not what was written)" in caplog.text
    assert "begins anew, and does 7 steps again" in caplog.text


@pytest.mark.parametrize("change", ["missing", "further", "renamed"])
def test_a_file_too_few_or_too_many_is_noticed(change: str, tmp_path: Path) -> None:
    keeper_of(tmp_path).after_step(1, lambda: {"x": 1})
    (state,) = states_in(tmp_path)
    assert not damage(state)
    if change == "missing":
        (state / TENSORS).unlink()
    elif change == "further":
        (state / "more").write_text("")
    else:
        (state / TENSORS).rename(state / "other.pt")
    assert damage(state)
    assert keeper_of(tmp_path).newest() is None


def as_version_0_1(folder: Path, identity: str = "a") -> Path:
    """A state as that release left it: sizes instead of checksums, the identity in a file beside."""
    state = folder / "state-000000004"
    state.mkdir(parents=True)
    torch.save({"step": 4}, state / TENSORS)
    (state / OLD_SIZES).write_text(json.dumps({TENSORS: (state / TENSORS).stat().st_size}))
    (folder / OLD_IDENTITY).write_text(identity)
    return state


def test_a_state_of_version_0_1_is_gone_on_from(tmp_path: Path) -> None:
    as_version_0_1(tmp_path)
    keeper = keeper_of(tmp_path)
    assert keeper.load(CPU) == {"step": 4}
    keeper.after_step(5, lambda: {"step": 5})
    assert [state.name for state in states_in(tmp_path)] == ["state-000000005"]
    assert keeper_of(tmp_path).load(CPU) == {"step": 5}


def test_a_state_of_version_0_1_of_another_training_or_torn_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    as_version_0_1(tmp_path / "other", "b")
    assert keeper_of(tmp_path / "other").newest() is None
    assert "damaged" not in caplog.text
    torn = as_version_0_1(tmp_path / "torn")
    (torn / TENSORS).write_bytes(b"half")
    assert keeper_of(tmp_path / "torn").newest() is None
    assert "state-000000004 is damaged" in caplog.text


def test_a_tensor_kept_once_is_made_again_where_it_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made: list[int] = []

    def make() -> torch.Tensor:
        made.append(1)
        return torch.arange(20.0)

    for number in range(10):
        folder = tmp_path / str(number)
        assert keeper_of(folder).once("reference", make).sum() == keeper_of(folder).once("reference", make).sum()
        flip(folder / "once-reference" / TENSORS, random.Random(number))
        assert torch.equal(keeper_of(folder).once("reference", make), torch.arange(20.0))
        assert "once-reference is damaged" in caplog.text
        assert len(made) == 2 * (number + 1)
        caplog.clear()


def test_a_tensor_kept_once_is_not_that_of_another_training(tmp_path: Path) -> None:
    keeper_of(tmp_path, "a").once("reference", lambda: torch.zeros(1))
    assert keeper_of(tmp_path, "b").once("reference", lambda: torch.ones(1)) == torch.ones(1)


def test_all_of_a_state_is_synced_before_its_name_and_its_name_before_the_state_before_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    fsync, rename, rmtree = os.fsync, os.rename, shutil.rmtree

    def seen_fsync(handle: int) -> None:
        calls.append(("sync", str(Path(f"/proc/self/fd/{handle}").readlink())))
        fsync(handle)

    def seen_rename(source: str, target: str) -> None:
        calls.append(("rename", str(target)))
        rename(source, target)

    def seen_rmtree(path: Path, ignore_errors: bool = False) -> None:
        if Path(path).exists():
            calls.append(("remove", str(path)))
        rmtree(path, ignore_errors)

    keeper = keeper_of(tmp_path)
    keeper.after_step(1, lambda: {"x": 1})
    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "rename", seen_rename)
    monkeypatch.setattr(shutil, "rmtree", seen_rmtree)
    keeper.after_step(2, lambda: {"x": 2})
    kinds = [kind for kind, _ in calls]
    named, removed = kinds.index("rename"), kinds.index("remove")
    assert {Path(path).name for kind, path in calls[:named]} >= {TENSORS, STATE_RECORD}
    assert any(Path(path).name.startswith(".state-") for _, path in calls[:named])
    assert ("sync", str(tmp_path)) in calls[named:removed]
    assert calls[removed] == ("remove", str(tmp_path / "state-000000001"))


def test_a_state_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    keeper_of(tmp_path).after_step(1, lambda: {"x": 1})
    (state,) = states_in(tmp_path)
    (state / STATE_RECORD).write_text('{"identity": "a", "files": {}, "_format": 99}')
    with pytest.raises(Exception, match="install the release that wrote it"):
        keeper_of(tmp_path)
    assert state.is_dir()


def test_states_are_read_without_running_code(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    keeper_of(tmp_path / "state").after_step(1, lambda: {"x": Harmful()})
    with pytest.raises(Exception, match=r"[Ww]eights"):
        keeper_of(tmp_path / "state").load(CPU)
    assert not (tmp_path / "ran").exists()
