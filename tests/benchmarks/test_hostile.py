"""What strangers bring: that there are enough cases of each kind, and that each fault of one would be seen."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.hostile.__main__ import GROUPS, require_distinct, run, too_much
from benchmarks.hostile.case import SECRET, Case, Place
from rlhf_dagster.errors import UserError


def refuse(place: Place) -> None:
    raise UserError("This is refused; bring something else.")


def test_there_are_hundreds_of_distinct_cases_of_six_kinds() -> None:
    for cases in GROUPS.values():
        assert len(cases) >= 50
        require_distinct(cases)
    assert len(GROUPS) == 6


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (Case("taken", lambda _: None), "it was taken"),
        (Case("broken", lambda _: {}["a"]), "KeyError"),
        (Case("another", refuse, says="nothing"), "does not say 'nothing'"),
        (Case("harmless", refuse, harmless=True), "refused, and should not be"),
        (Case("code", lambda place: [place.canary.touch(), refuse(place)]), "code of a stranger ran"),
        (Case("said", lambda place: [sys.stdout.write(os.environ["HF_TOKEN"]), refuse(place)]), "a secret was said"),
        (Case("kept", lambda place: [(place.folder / "a").write_text(SECRET), refuse(place)]), "a secret is in"),
        (Case("loop", lambda place: [(place.loop / "a").write_text("a"), refuse(place)]), "the loop has changed"),
        (Case("killed", lambda _: os._exit(1)), "it killed its process"),
    ],
    ids=lambda case: case.name if isinstance(case, Case) else "",
)
def test_each_fault_is_seen(case: Case, said: str, tmp_path: Path) -> None:
    (tmp_path / "loop").mkdir()
    [wrong] = run(case, tmp_path).wrong
    assert said in wrong


def test_what_a_case_takes_is_its_own(tmp_path: Path) -> None:
    def act(place: Place) -> None:
        end = time.process_time() + 0.2
        block = bytearray(os.urandom(1 << 20)) * 64
        while time.process_time() < end:
            block[0] += 0
        refuse(place)

    outcome = run(Case("takes", act), tmp_path)
    assert outcome.wrong == []
    assert outcome.seconds >= 0.2
    assert 60 <= outcome.mib < 200  # of 64 that are taken; some pages of before may be free
    assert too_much(outcome, 0.1, 50) == ["more than 0.1 s", "more than 50 MiB"]
    assert too_much(outcome, 60, 1024) == []


@pytest.mark.long
@pytest.mark.parametrize("group", GROUPS)
def test_no_case_of_a_group_does_harm(group: str) -> None:
    asked = [sys.executable, "-m", "benchmarks.hostile", "--only", group]
    done = subprocess.run(asked, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
