import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rlhf_dagster.cli import main
from rlhf_dagster.common import files
from rlhf_dagster.common.files import cache_folder, disk_sentence, locked, reading, write_atomically, write_once
from rlhf_dagster.errors import UserError


def test_replace_and_first_write(tmp_path) -> None:
    file = tmp_path / "new" / "file"
    assert write_once(file, b"one")
    assert not write_once(file, b"two")
    assert file.read_bytes() == b"one"
    write_atomically(file, b"three")
    assert file.read_bytes() == b"three"
    assert list(file.parent.iterdir()) == [file]


def test_a_private_file_is_its_owners_alone(tmp_path) -> None:
    write_atomically(tmp_path / "key", b"x", private=True)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("write", [write_once, write_atomically])
def test_a_writer_that_dies_before_the_end_leaves_the_old_file(tmp_path, monkeypatch, write) -> None:
    file = tmp_path / "file"
    write_once(file, b"old")

    def die(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        write(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_killed_holder_frees_the_lock(tmp_path) -> None:
    code = """
import os, sys
from pathlib import Path
from rlhf_dagster.common.files import locked
with locked(Path(sys.argv[1])):
    os._exit(9)
"""
    lock = tmp_path / "lock"
    assert subprocess.run([sys.executable, "-c", code, str(lock)], check=False).returncode == 9
    with locked(lock):
        assert lock.exists()


@pytest.mark.parametrize("write", [lambda path: write_once(path, b""), lambda path: locked(path).__enter__()])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path, write) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write here"):
        write(Path(tmp_path / "file" / "inner"))


def test_a_cache_folder_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder of the user's it is in the system's temporary one, where everybody may make folders."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    for name in ("RLHF_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = cache_folder()
    assert (folder.parent, folder.stat().st_mode & 0o777) == (tmp_path, 0o700)
    assert cache_folder() == folder
    folder.rmdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="belongs to somebody else; set RLHF_CACHE"):
        cache_folder()


def test_an_error_of_the_disk_is_one_sentence_and_no_other_is() -> None:
    failed = OSError(errno.EIO, "Input/output error", "/loop/models/a.json")
    again = "look whether the disk is well and has room, then run this again."
    assert disk_sentence(failed) == f"/loop/models/a.json: Input/output error; {again}"
    assert disk_sentence(OSError(errno.ENOSPC, "No space left on device")) == f"No space left on device; {again}"
    assert disk_sentence(FileNotFoundError(errno.ENOENT, "No such file or directory", "a")) == ""


def test_what_is_no_file_is_refused_before_anything_waits_for_it(tmp_path: Path) -> None:
    pipe, device = tmp_path / "pipe", tmp_path / "device"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    for path, what in ((pipe, "a pipe"), (device, "a device")):
        with pytest.raises(UserError, match=f"{path.name}: {what}, not a file"), reading(path):
            pass
    with pytest.raises(FileNotFoundError), reading(tmp_path / "none"):
        (tmp_path / "none").read_bytes()
    with pytest.raises(UserError, match=r"cannot be read \(File name too long"), reading(tmp_path / ("a" * 300)):
        (tmp_path / ("a" * 300)).exists()


def test_such_an_error_ends_a_command_in_its_sentence(monkeypatch, capsys) -> None:
    def fail(number: int) -> None:
        raise OSError(number, os.strerror(number), "/loop/models/a.json")

    for name in ("OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM"):  # set by the command
        monkeypatch.setenv(name, os.environ.get(name, "false"))
    monkeypatch.setattr("rlhf_dagster.cli._run", lambda: fail(errno.EIO))
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err.startswith("rlhf: /loop/models/a.json: Input/output error; look whether the disk")
    monkeypatch.setattr("rlhf_dagster.cli._run", lambda: fail(errno.ENOENT))
    with pytest.raises(FileNotFoundError):
        main()
