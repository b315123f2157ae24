"""What `rlhf ui` does not begin, and which loop it serves."""

from pathlib import Path

import pytest
from loops import assert_one_sentence, rlhf_here, write_loop, write_record

from rlhf_dagster.automation.instance import SERVED_LOOP, dagster_home
from rlhf_dagster.cli import services
from rlhf_dagster.cli.ui import SERVED, SERVICES_LOG, WORKSPACE
from rlhf_dagster.common.files import locked_at_once
from rlhf_dagster.definitions import defs


def test_a_second_ui_says_who_serves_the_loop_and_touches_nothing(tmp_path: Path) -> None:
    loop = write_loop(tmp_path / "loop")
    home = dagster_home(loop)
    with locked_at_once(home / "ui.lock") as alone:
        assert alone
        starting = rlhf_here("ui", "--loop", loop)
        assert_one_sentence(starting, f"{loop} is served already; open that, or stop it first")
        where = {"address": "http://127.0.0.1:3000", "process": 4711, "host": "here"}
        write_record(home / SERVED, where)
        for name in (SERVICES_LOG, WORKSPACE):
            (home / name).write_text("of the first\n")
        second = rlhf_here("ui", "--loop", loop, "--port", 3001)
    assert_one_sentence(second, "is served already at http://127.0.0.1:3000, by process 4711 on here")
    assert [(home / name).read_text() for name in (SERVICES_LOG, WORKSPACE)] == ["of the first\n"] * 2


def test_the_loop_that_is_served_is_not_the_one_of_a_file_of_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster sets what a `.env` in the working folder says, after `rlhf ui` has said which loop it serves."""
    named, served = (write_loop(tmp_path / name, name=name) for name in ("named", "served"))
    monkeypatch.setenv("RLHF_LOOP", str(named))
    assert defs().resources["loop"].config.name == "named"
    monkeypatch.setenv(SERVED_LOOP, str(served))
    assert defs().resources["loop"].config.name == "served"


def test_a_service_that_takes_longer_than_a_moment_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_MOMENT", 0.0)
    monkeypatch.setattr(services, "_POLL", 0.01)
    looks = iter([False, False, True])
    sleeper = services.logged(["/bin/sleep", "60"], tmp_path / "log", {})
    slow = services.Service("code server", sleeper, tmp_path / "log", lambda: next(looks))
    quick = services.Service("daemon", sleeper, tmp_path / "log")
    said: list[str] = []
    try:
        services.start_all([slow, quick], said.append)
    finally:
        services.stop_all([slow, quick])
    assert said == ["Waiting for the code server to start ..."]
