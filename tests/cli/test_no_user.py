"""A user of whom the system knows nothing but the number, as in a container that is started with one."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loops import write_loop

from rlhf_dagster.lineage.stop_cord import read_stop
from rlhf_dagster.storage.local import LocalStore

NOBODY = 54321
LEFT_OUT = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "RLHF_CACHE", "XDG_CACHE_HOME")
pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("setpriv") is None, reason="needs root, which can become anybody"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A loop that belongs to that user, where others may pass: pytest's own folders are its user's alone."""
    with tempfile.TemporaryDirectory() as name:
        made = write_loop(Path(name, "loop"))
        for path in (Path(name), made, *made.iterdir()):
            os.chown(path, NOBODY, NOBODY)
        yield made


def as_nobody(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`rlhf` under a number without a name or a home. It may read root's files, since Python's own can be root's."""
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    become += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    code = [sys.executable, "-c", "from rlhf_dagster.cli import main; main()"]
    environment = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    command = [*become, *code, *map(str, arguments), "--loop", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_the_loop_is_stopped_and_goes_on(folder: Path) -> None:
    done = as_nobody(folder, "stop", "odd answers")
    assert (done.returncode, done.stderr) == (0, "")
    stop = read_stop(LocalStore(folder))
    assert stop is not None
    assert (stop.by, stop.reason) == (f"user {NOBODY}", "odd answers")
    done = as_nobody(folder, "resume")
    assert done.returncode == 0, done.stderr
    assert read_stop(LocalStore(folder)) is None


def test_what_cannot_be_done_is_one_sentence(folder: Path) -> None:
    done = as_nobody(folder, "rollback", "--reason", "worse")
    assert done.returncode == 2
    assert done.stderr.startswith("rlhf: ")
    assert done.stderr.count("\n") == 1


def test_a_loop_is_prepared(folder: Path) -> None:
    done = as_nobody(folder, "run", "prepare", "--until", "prompts")
    assert done.returncode == 0, done.stderr
    assert (folder / "assets" / "prompts.parquet").is_file()
