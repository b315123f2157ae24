"""Logs: what is on disk, what an interrupted training leaves there, and services that fail."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from rlhf_dagster.compute import tracking
from rlhf_dagster.compute.tracking import METRICS, TrainingLog
from rlhf_dagster.errors import UserError


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def write(folder: Path, steps: range, **options: Any) -> TrainingLog:
    log = TrainingLog(folder, "loop", "ppo-round-0001", **options)
    for step in steps:
        log(step, 9, loss=1 / step)
    log.close()
    return log


def events(folder: Path) -> Iterator[Event]:
    """Of all event files, the oldest first. A record is a length, its checksum, the event, and its checksum."""
    files = (folder / "tensorboard").glob("events.out.tfevents.*")
    for file in sorted(files, key=lambda path: path.stat().st_mtime_ns):
        content, position = file.read_bytes(), 0
        while position < len(content):
            (length,) = struct.unpack_from("<Q", content, position)
            yield Event.FromString(content[position + 12 : position + 12 + length])
            position += length + 16


def shown_by_tensorboard(folder: Path) -> list[int]:
    """The steps of `loss` that TensorBoard shows: where a session starts, what was written of its steps is purged."""
    steps: list[int] = []
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            steps = [step for step in steps if step < event.step]
        steps += [event.step for value in event.summary.value if value.tag == "loss"]
    return steps


class FakeService:
    """A tracker of accelerate's, as far as it is used."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, str, str | None]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = self.broken = False

    def open(self, project: str, run: str, known: str | None) -> tuple["FakeService", str]:
        self.opened.append((project, run, known))
        return self, known or f"id-{len(self.opened)}"

    def log(self, values: dict[str, float], step: int) -> None:
        if self.broken:
            raise ConnectionError("no network")
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    fake = FakeService()
    monkeypatch.setitem(tracking.SERVICES, "wandb", fake.open)
    monkeypatch.setattr(tracking, "find_spec", lambda name: object())
    return fake


def test_every_step_is_a_line_and_an_event(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "log", "loop", "sft")
    for step in (1, 2):
        log(step, 2, loss=1 / step)
    log.finish({"validation_loss": 3.0})
    log.close()
    assert lines(tmp_path / "log") == [
        {"step": 1, "total": 2, "loss": 1.0},
        {"step": 2, "total": 2, "loss": 0.5},
        {"step": 2, "total": 2, "final/validation_loss": 3.0},
    ]
    values = [(event.step, v.tag, v.simple_value) for event in events(tmp_path / "log") for v in event.summary.value]
    assert values == [(1, "loss", 1.0), (2, "loss", 0.5), (2, "final/validation_loss", 3.0)]


def test_a_training_that_goes_on_leaves_no_step_twice(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6))
    # The last state was written after step 3, and the kill cut off a line.
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 6, "to')
    write(tmp_path, range(4, 8))
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 8))
    assert shown_by_tensorboard(tmp_path) == list(range(1, 8))


def test_a_line_that_is_cut_off_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, range(1, 4))
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 4, "to')
    write(tmp_path, range(4, 5))
    assert f"{tmp_path / METRICS}: 1 lines are cut off or damaged, and are removed." in caplog.text
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0c"])
def test_no_other_character_than_a_line_feed_ends_a_line(separator: str, tmp_path: Path) -> None:
    first = json.dumps({"step": 1, "total": 9, f"a{separator}b": 1.0}, ensure_ascii=False)
    (tmp_path / METRICS).write_text(f"{first}\n", encoding="utf-8")
    write(tmp_path, range(2, 4))
    kept = (tmp_path / METRICS).read_bytes().decode().split("\n")[:-1]
    assert [json.loads(line)["step"] for line in kept] == [1, 2, 3]
    assert kept[0] == first


def test_where_the_log_cannot_be_begun_the_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    log = TrainingLog(tmp_path / "file" / "log", "loop", "run")
    for step in (1, 2):
        log(step, 2, loss=1.0)
    log.close()
    assert caplog.text.count("cannot be written") == 1
    assert "Not a directory" in caplog.text


def test_a_damaged_list_of_runs_is_said_and_a_new_run_begun(
    tmp_path: Path, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, range(1, 4), services=["wandb"])
    runs = tmp_path / "runs.json"
    runs.write_bytes(runs.read_bytes().replace(b"id-1", b"id-9"))
    write(tmp_path, range(3, 5), services=["wandb"])
    assert [known for _, _, known in service.opened] == [None, None]
    assert "runs.json is damaged" in caplog.text


def test_a_training_that_begins_anew_begins_a_new_log(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6))
    write(tmp_path, range(1, 3))
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    assert shown_by_tensorboard(tmp_path) == [1, 2]


def test_a_service_has_one_run_for_a_training_and_its_continuation(tmp_path: Path, service: FakeService) -> None:
    write(tmp_path, range(1, 4), services=["wandb"])
    write(tmp_path, range(3, 5), services=["wandb"])
    write(tmp_path, range(1, 2), services=["wandb"])
    assert service.opened == [
        ("loop", "ppo-round-0001", None),
        ("loop", "ppo-round-0001", "id-1"),
        ("loop", "ppo-round-0001", None),
    ]
    assert [step for step, _ in service.logged] == [1, 2, 3, 4, 1]
    assert service.finished


def test_a_service_that_fails_on_the_way_ends_no_training(
    tmp_path: Path, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    log = TrainingLog(tmp_path, "loop", "sft", ["wandb"])
    log(1, 3, loss=1.0)
    service.broken = True
    log(2, 3, loss=1.0)
    log(3, 3, loss=1.0)
    log.close()
    assert [step for step, _ in service.logged] == [1]
    assert caplog.text.count("wandb has failed (no network)") == 1
    assert len(lines(tmp_path)) == 3


def test_a_service_that_cannot_be_opened_is_one_sentence(
    tmp_path: Path, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise ValueError("no API key.\nmore")

    monkeypatch.setitem(tracking.SERVICES, "wandb", refuse)
    log = TrainingLog(tmp_path, "loop", "sft", ["wandb"])
    with pytest.raises(UserError, match=r"^compute\.trackers: wandb cannot be opened \(no API key\)\.$"):
        log(1, 3, loss=1.0)


def test_a_service_that_is_not_installed_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"mlflow, which is not installed; `.*pip install mlflow`"):
        TrainingLog(tmp_path, "loop", "sft", ["mlflow"])


class FullDisk:
    """A file that takes no more than its first line."""

    def __init__(self, file: Any) -> None:
        self.file, self.lines = file, 0

    def write(self, line: str) -> None:
        self.lines += 1
        if self.lines > 1:
            self.file.write(line[:5])
            raise OSError(28, "No space left on device")
        self.file.write(line)

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def test_no_training_ends_for_its_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = TrainingLog(tmp_path, "loop", "run")
    log(1, 9, loss=1.0)
    log._file = FullDisk((tmp_path / METRICS).open("w"))  # type: ignore[assignment]
    for step in (2, 3, 4):
        log(step, 9, loss=1.0)
    log.finish({"loss": 1.0})
    log.close()
    assert caplog.text.count("cannot be written (No space left on device)") == 1
    assert shown_by_tensorboard(tmp_path) == [1, 2, 3, 4]
    assert write(tmp_path, range(3, 5)).folder == tmp_path
    assert [line["step"] for line in lines(tmp_path)] == [2, 3, 4]
