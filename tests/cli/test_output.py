"""Standard output that can go nowhere: one sentence and an exit code, in every command, since `main` sees to it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from rlhf_dagster.cli.output import OutputLost, PatientOutput, require_output

FULL = Path("/dev/full")
NO_ROOM = "rlhf: The output cannot be written (No space left on device); what is done stays done, let the output lead "
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="a system without /dev/full")


def run(command: str, unbuffered: str = "", **options: object) -> tuple[int, str]:
    """Exit code and errors of a command line in a shell, where `rlhf` is the command."""
    line = command.replace("rlhf", f"{sys.executable} -P -c 'from rlhf_dagster.cli import main; main()'", 1)
    done = subprocess.run(
        ["bash", "-c", line],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        check=False,
        **options,  # type: ignore[call-overload]
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["rlhf train --help", "rlhf train sft --example", "rlhf replicate --list"])
def test_a_full_disk(command: str, unbuffered: str) -> None:
    """Help comes from Click, which looks whether it can write and ignores that it cannot; the table from Rich."""
    code, errors = run(f"{command} > /dev/full", unbuffered)
    assert code == 2
    assert errors.startswith(NO_ROOM)
    assert errors.count("\n") == 1


def test_a_reader_that_has_ended() -> None:
    code, errors = run("rlhf train ppo --example | true; exit ${PIPESTATUS[0]}", "1")
    assert (code, errors) == (2, "rlhf: Nobody reads the output any more; what is done stays done.\n")


def test_output_that_is_closed() -> None:
    code, errors = run("rlhf train sft --example >&-")
    assert code == 2
    assert errors == "rlhf: Standard output is closed; let it lead somewhere, to /dev/null where nobody reads it.\n"


def test_what_is_closed_is_no_place_for_a_file() -> None:
    """The next file that is opened gets the lowest number that is free, and whatever is printed would go into it."""
    script = (
        "from rlhf_dagster.cli.output import guard_output, OutputLost\n"
        "try: guard_output()\n"
        "except OutputLost: raise SystemExit(open('/dev/null').fileno())\n"
    )
    done = subprocess.run(["bash", "-c", f'{sys.executable} -P -c "{script}" <&- >&- 2>&-'], check=False)
    assert done.returncode > 2


def test_errors_that_cannot_be_said_keep_their_exit_code(tmp_path: Path) -> None:
    assert run(f"rlhf round status --loop {tmp_path} 2> /dev/full") == (2, "")


def test_work_that_is_shown_goes_on_without_its_view() -> None:
    file = PatientOutput(FULL.open("wb", buffering=0), encoding="utf-8", write_through=True)
    console = Console(file=file)
    console.print("one")
    console.print("two")
    with pytest.raises(OutputLost, match="The output cannot be written"):
        require_output()
    file.close()
