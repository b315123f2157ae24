"""Commands that begin at the same moment, as in benchmarks/two_of_everything.py."""

import subprocess
import sys
from pathlib import Path

import pytest
from loops import assert_one_sentence, rlhf_here, write_loop

from rlhf_dagster.common.files import locked_at_once


@pytest.mark.long
@pytest.mark.parametrize("command", ["run", "import", "round open"])
def test_two_and_three_at_once_double_nothing(command: str) -> None:
    asked = [sys.executable, "-m", "benchmarks.two_of_everything", "--turns", "2", "--only", command]
    done = subprocess.run(asked, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 things went wrong" in done.stdout


def test_a_second_import_is_refused_while_one_is_at_work(tmp_path: Path) -> None:
    loop = write_loop(tmp_path / "loop")
    (tmp_path / "own.jsonl").write_text('{"prompt": "a"}\n')
    with locked_at_once(loop / "work" / ".import.lock") as alone:
        assert alone
        refused = rlhf_here("import", "prompts", tmp_path / "own.jsonl", "--loop", loop)
    assert_one_sentence(refused, f"Another import into {loop} is at work: wait until it ends")
    assert rlhf_here("import", "prompts", tmp_path / "own.jsonl", "--loop", loop).returncode == 0
