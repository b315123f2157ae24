"""A folder that was copied does not do the work of its original again; one that was moved goes on."""

import os
import shutil
from pathlib import Path

import dagster as dg
import pytest
from loops import assert_one_sentence, copy_loop, open_runner, rlhf_here, write_loop

from rlhf_dagster.automation.sensors import TickFailed, open_round
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards import place
from rlhf_dagster.loop.guards.place import PLACE_FILE, place_notice, require_in_place
from rlhf_dagster.loop.upkeep.check import check_loop
from rlhf_dagster.loop.upkeep.doctor import diagnoses_of


@pytest.fixture
def loop(tmp_path: Path) -> LoopFolder:
    """A loop that has written something."""
    found = LoopFolder.open(write_loop(tmp_path / "original"))
    require_in_place(found)
    return found


def copied(loop: LoopFolder, name: str = "copy") -> LoopFolder:
    """A copy as `cp -a` makes it."""
    return LoopFolder.open(shutil.copytree(loop.root, loop.root.with_name(name)))


def test_a_copy_is_read_and_not_written_to(loop: LoopFolder) -> None:
    copy = copied(loop)
    sentence = f"{copy.root} is a copy of the loop in {loop.root}, which is still there."
    opened = rlhf_here("round", "open", "--loop", copy.root)
    assert_one_sentence(opened, sentence, f"`rlhf adopt {copy.root}`", "`--new`")
    status = rlhf_here("round", "status", "--loop", copy.root)
    assert (status.returncode, status.stderr) == (0, f"rlhf: {sentence}\n")
    assert {one.about: one.mend for one in diagnoses_of(copy)}["place"].startswith(f"rlhf adopt {copy.root}")
    require_in_place(loop)
    assert rlhf_here("round", "status", "--loop", loop.root).stderr == ""


def test_neither_an_asset_nor_a_sensor_works_in_a_copy(stages, tmp_path: Path) -> None:
    original = copy_loop(stages.prepared, tmp_path / "original").loop
    require_in_place(original)
    shutil.copytree(original.root, tmp_path / "copy")
    copy = LoopFolder.open(tmp_path / "copy")
    outcome = open_runner(copy.root).run("prepare", None, ["prompts"])
    assert "is a copy of the loop in" in outcome.failure
    schedule = open_round(copy.config.automation)
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(TickFailed, match="is a copy of the loop in"):
        schedule(dg.build_schedule_context(instance, resources={"loop": copy}))


def test_a_folder_that_was_moved_goes_on(loop: LoopFolder, caplog: pytest.LogCaptureFixture) -> None:
    moved = LoopFolder.open(loop.root.rename(loop.root.with_name("moved")))
    require_in_place(moved)
    require_in_place(moved)
    assert caplog.messages == [f"{moved.root} was moved from {loop.root}, and goes on."]
    # Another loop may begin where it was.
    require_in_place(LoopFolder.open(write_loop(loop.root)))
    assert (place_notice(moved), place_notice(loop)) == ("", "")


def test_an_adopted_copy_goes_on_and_its_original_does_not(loop: LoopFolder) -> None:
    copy = copied(loop)
    said = rlhf_here("adopt", copy.root)
    assert f"The loop lives in {copy.root} from now on. {loop.root} writes nothing any more." in said.stdout
    require_in_place(copy)
    with pytest.raises(UserError, match=f"this loop lives in {copy.root} since it was adopted there"):
        require_in_place(loop)
    assert rlhf_here("adopt", loop.root).returncode == 0
    require_in_place(loop)
    with pytest.raises(UserError, match=f"this loop lives in {loop.root}"):
        require_in_place(copy)


def test_a_copy_becomes_a_loop_of_its_own(loop: LoopFolder) -> None:
    copy = copied(loop)
    assert "is a loop of its own" in rlhf_here("adopt", copy.root, "--new").stdout
    for one in (loop, copy):
        require_in_place(one)
    assert_one_sentence(rlhf_here("adopt", copy.root), "is no copy of another loop's folder")


@pytest.mark.parametrize(
    ("shared", "apart", "sentence"),
    [
        ({"ledger": "postgresql://host/labels"}, {"ledger": "postgresql://host/labels?schema=other"}, "The ledger"),
        (
            {"label_store": {"kind": "label_studio", "url": "http://host:80"}},
            {"label_store": {"kind": "label_studio", "url": "http://host:81"}},
            "The pages at http://host:80",
        ),
    ],
)
def test_two_loops_share_neither_ledger_nor_label_server(tmp_path: Path, shared, apart, sentence) -> None:
    loop = LoopFolder(LoopFolder.open(write_loop(tmp_path / "original", **shared)).config, tmp_path / "original")
    require_in_place(loop)
    copy = copied(loop)
    assert_one_sentence(rlhf_here("adopt", copy.root, "--new"), sentence, f" of the loop in {loop.root} too; ")
    write_loop(copy.root, **apart)
    assert rlhf_here("adopt", copy.root, "--new").returncode == 0


def test_another_machine_may_share_the_disk_or_have_a_copy(loop: LoopFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "machine_id", lambda: "another")
    require_in_place(loop)
    copy = copied(loop)
    with pytest.raises(UserError, match="which may be at work there"):
        require_in_place(copy)
    assert "cannot be told from here" in rlhf_here("adopt", copy.root).stdout
    require_in_place(copy)


def test_a_loop_in_a_bucket_has_no_place(tmp_path: Path) -> None:
    loop = LoopFolder(LoopFolder.open(write_loop(tmp_path)).config.model_copy(update={"root": "s3://b/l"}), tmp_path)
    require_in_place(loop)
    assert not (tmp_path / PLACE_FILE).exists()


def test_a_damaged_place_is_found_and_set_aside(loop: LoopFolder) -> None:
    (loop.root / PLACE_FILE).write_text("{")
    with pytest.raises(Damaged, match="delete it"):
        require_in_place(loop)
    (finding,) = check_loop(loop)
    assert finding.repair is not None
    finding.repair()
    require_in_place(loop)
    assert (loop.root / CONFIG_FILE).exists()


def test_a_place_that_is_a_folder_or_a_pipe_is_a_sentence(loop: LoopFolder) -> None:
    file = loop.root / PLACE_FILE
    file.unlink()
    file.mkdir()
    with pytest.raises(Damaged, match=r"place.json is a folder; delete it"):
        require_in_place(loop)
    file.rmdir()
    os.mkfifo(file)
    with pytest.raises(UserError, match=r"place.json: a pipe, not a file"):
        require_in_place(loop)
