"""Services that are kept running."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from rlhf_dagster.cli import services
from rlhf_dagster.cli.services import Service

PARENT = "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"


def test_a_service_whose_working_child_was_killed_is_ended_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "LOOK_SECONDS", 0.0)
    said: list[str] = []
    log = tmp_path / "log"
    one = Service("code server", services.logged([sys.executable, "-c", PARENT], log, {}), log, works_in_child=True)
    one.launch()
    assert one.process is not None
    process = psutil.Process(one.process.pid)
    assert not one.has_lost_child()  # there may be none yet
    while not process.children():
        time.sleep(0.02)
    services._look_after(one, said.append)
    assert (one.died(), said) == (None, [])
    process.children()[0].kill()
    while one.died() is None:
        services._look_after(one, said.append)
        time.sleep(0.02)
    services._look_after(one, said.append)
    assert said == [f"The code server ended (killed by signal 9); it is started again. Its log: {log}"]
