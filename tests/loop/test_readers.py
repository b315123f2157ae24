"""What a loop writes can be read by those whom `readable_by` names, and by nobody else of the machine."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from loops import ROUND, asset_path, copy_folder, rlhf_here, write_loop

from rlhf_dagster.common.child_processes import python_command
from rlhf_dagster.common.files import copy_atomically, write_atomically, write_once
from rlhf_dagster.config.loop import CONFIG_FILE, LoopConfig
from rlhf_dagster.lineage.people import PEOPLE_FILE
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.upkeep.readers import check_readers

NOBODY = 65534
AS_NOBODY = """
import os, sys
from pathlib import Path
os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
for where, _, names in os.walk(sys.argv[1]):
    for path in (Path(where, name) for name in names):
        try:
            path.open("rb").close()
        except PermissionError:
            continue
        print(path.relative_to(sys.argv[1]))
"""
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can look with the eyes of another user")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def read_by_others(folder: Path) -> list[str]:
    """The files that another user of the machine can open."""
    command = python_command("-c", AS_NOBODY, str(folder), str(NOBODY))
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that every user can enter, as tests' own cannot be."""
    with TemporaryDirectory(prefix="rlhf-readers-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_whole_round_has_left_nothing_that_others_can_read(finished) -> None:
    root = finished.loop.root
    written = [path for path in root.rglob("*") if path != root / CONFIG_FILE]
    assert len(written) > 100
    assert [path for path in written if mode(path) & 0o077 and not path.is_symlink()] == []
    for part in ("dagster", "registry", "models", "assets"):
        assert any(path.is_relative_to(root / part) for path in written), part


@as_root
def test_another_user_reads_what_was_opened_to_him_and_nothing_after_the_repair(finished, open_place: Path) -> None:
    folder = copy_folder(finished.loop.root, open_place / "loop")
    folder.chmod(0o755)
    (folder / CONFIG_FILE).chmod(0o644)
    assert read_by_others(folder) == [CONFIG_FILE]
    for path in folder.rglob("*"):  # as an earlier release has left it
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert f"assets/preference_labels/{ROUND}.parquet" in read_by_others(folder)
    found = rlhf_here("check", str(folder))
    assert found.returncode == 1
    assert "can be read by other users of this machine, and `readable_by` is owner." in found.stdout
    assert rlhf_here("check", str(folder), "--repair").returncode == 0
    assert read_by_others(folder) == [CONFIG_FILE]
    assert "is whole" in rlhf_here("check", str(folder)).stdout


@pytest.mark.parametrize(
    ("readable_by", "file", "folder"), [("owner", 0o600, 0o700), ("group", 0o640, 0o750), ("all", 0o644, 0o755)]
)
def test_the_setting_says_who_reads(tmp_path: Path, readable_by: str, file: int, folder: int) -> None:
    loop = LoopFolder.open(write_loop(tmp_path / "loop", readable_by=readable_by))
    loop.write_json("eval_report", ROUND, {"a": 1})
    path = asset_path(loop, "eval_report", ROUND, "json")
    assert (mode(path), mode(path.parent)) == (file, folder)
    child = python_command("-c", f"open({str(tmp_path / 'child')!r}, 'w')")
    subprocess.run(child, check=True)
    assert mode(tmp_path / "child") == file, "a process that it starts"
    loop.people  # noqa: B018  # makes the file
    loop.store.put(PEOPLE_FILE, b"{}", private=True)
    assert mode(loop.root / PEOPLE_FILE) == 0o600
    assert list(check_readers(loop)) == []


def test_of_several_loops_in_a_process_the_strictest_counts(tmp_path: Path) -> None:
    for readable_by in ("all", "owner", "all"):
        LoopFolder(LoopConfig(readable_by=readable_by), tmp_path)
    write_atomically(tmp_path / "file", b"")
    assert mode(tmp_path / "file") == 0o600


def test_no_right_is_given_that_the_umask_takes(tmp_path: Path) -> None:
    os.umask(0o027)
    LoopFolder(LoopConfig(readable_by="all"), tmp_path)
    write_atomically(tmp_path / "file", b"")
    assert mode(tmp_path / "file") == 0o640


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_private_file_is_private_and_a_public_one_public_under_every_umask(tmp_path: Path, umask: int) -> None:
    os.umask(umask)
    write_atomically(tmp_path / "private", b"", private=True)
    write_once(tmp_path / "once", b"", private=True)
    copy_atomically(tmp_path / "once", tmp_path / "copy", private=True)
    write_atomically(tmp_path / "public", b"", public=True)
    assert [mode(tmp_path / name) for name in ("private", "once", "copy", "public")] == [0o600] * 3 + [0o644]


def test_the_check_says_what_a_group_may_not_read_and_follows_no_link(tmp_path: Path) -> None:
    loop = LoopFolder.open(write_loop(tmp_path / "loop", readable_by="group"))
    loop.root.chmod(0o755)
    loop.write_json("eval_report", ROUND, {})
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o644)
    (loop.root / "assets").chmod(0o755)
    (loop.root / "assets" / "link").symlink_to(outside)
    [finding] = check_readers(loop)
    assert finding.sentence.startswith("assets can be read by users of other groups")
    assert finding.repair is not None
    finding.repair()
    assert (mode(loop.root / "assets"), mode(outside)) == (0o750, 0o644)
    shutil.rmtree(loop.root / "assets")
    assert list(check_readers(loop)) == []


def test_what_a_closed_folder_holds_is_closed(tmp_path: Path) -> None:
    loop = LoopFolder.open(write_loop(tmp_path / "loop"))
    (loop.root / "note").write_text("")
    (loop.root / "note").chmod(0o644)
    assert [finding.sentence[:20] for finding in check_readers(loop)] == ["note can be read by "]
    loop.root.chmod(0o700)
    assert list(check_readers(loop)) == []
