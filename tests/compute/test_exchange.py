"""What a run and its training process say to each other: read as written, or said to be damaged."""

import json
import logging
import math
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf_dagster.compute import worker
from rlhf_dagster.compute.exchange import (
    MESSAGES,
    OUTCOME,
    REQUEST,
    Heard,
    Messages,
    PassOn,
    Request,
    TrainingOutcome,
    read_record,
    write_record,
)
from rlhf_dagster.compute.launchers.child_process import _outcome
from rlhf_dagster.compute.work import TRAINING_LOG, TrainingDied, TrainingFailed, Work
from rlhf_dagster.errors import Damaged, UserError, in_one_line
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.runtime.resuming import TrainingStopped

REASON = "odd\u2028answers\u2029since\u0085Tuesday"
REQUESTED = Request("sft", '{"seed": 1}', "state", 0.0, "end", "loop", "work/sft/state")
DONE = TrainingOutcome(json.dumps({"folder": "out", "metrics": {"loss": math.nan}, "curves": {}, "warnings": [REASON]}))


def flipped(data: bytes, rng: random.Random) -> bytes:
    content = bytearray(data)
    content[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(content)


@pytest.mark.parametrize("record", [REQUESTED, DONE, TrainingOutcome(error=REASON)], ids=["request", "result", "error"])
def test_a_flipped_bit_is_never_another_content(record: Request | TrainingOutcome, tmp_path: Path) -> None:
    path, rng, noticed = tmp_path / "record.json", random.Random(0), 0
    write_record(path, record)
    assert read_record(type(record), path) == record
    whole = path.read_bytes()
    for _ in range(300):
        path.write_bytes(flipped(whole, rng))
        try:
            assert read_record(type(record), path) == record  # a blank for another blank changes nothing
        except UserError as error:
            assert path.name in str(error)
            noticed += 1
    assert noticed > 280


def work_in(folder: Path) -> Work:
    return Work(folder, LocalStore(folder))


def test_a_damaged_outcome_is_said_and_no_result(tmp_path: Path) -> None:
    write_record(tmp_path / OUTCOME, DONE)
    assert math.isnan(_outcome("sft", work_in(tmp_path), 0, 1).result.metrics["loss"])
    path = tmp_path / OUTCOME
    path.write_bytes(path.read_bytes().replace(b"out", b"0ut"))
    with pytest.raises(Damaged, match=r"outcome.json is damaged.* Train sft again: it goes on from its last state"):
        _outcome("sft", work_in(tmp_path), 0, 1)


def test_what_became_of_a_training_is_told_apart(tmp_path: Path) -> None:
    work = work_in(tmp_path)
    write_record(tmp_path / OUTCOME, TrainingOutcome(error=REASON))
    with pytest.raises(UserError, match=re.escape(in_one_line(REASON))):
        _outcome("sft", work, 0, 1)
    write_record(tmp_path / OUTCOME, TrainingOutcome(stopped=REASON))
    with pytest.raises(TrainingStopped, match=REASON):
        _outcome("sft", work, 0, 1)
    (tmp_path / OUTCOME).unlink()
    (tmp_path / TRAINING_LOG).write_text(f"{REASON}\nlast words\n", encoding="utf-8")
    with pytest.raises(TrainingDied, match=r"^The training process of sft ended \(killed by signal 9\)\."):
        _outcome("sft", work, 137, 1)
    with pytest.raises(TrainingFailed, match=f"{REASON}\nlast words"):
        _outcome("sft", work, 1, 1)
    with pytest.raises(UserError, match="could not write its outcome"):
        _outcome("sft", work, worker.CANNOT_WRITE, 1)


def heard(path: Path) -> tuple[Heard, list[dict[str, Any]]]:
    seen: list[dict[str, Any]] = []
    return Heard(path, lambda step, total, **numbers: seen.append({"step": step, "total": total, **numbers})), seen


def test_messages_arrive_once_and_in_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    messages, (ear, seen) = Messages(tmp_path / MESSAGES), heard(tmp_path / MESSAGES)
    messages.progress(1, 2, loss=0.5)
    ear.pass_on()
    ear.pass_on()
    messages.say(REASON)
    messages.progress(2, 2, loss=math.inf)
    ear.pass_on()
    ear.end()
    assert seen == [{"step": 1, "total": 2, "loss": 0.5}, {"step": 2, "total": 2, "loss": math.inf}]
    assert [record.getMessage() for record in caplog.records] == [REASON]


def test_a_line_that_is_cut_off_or_damaged_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / MESSAGES
    messages, (ear, seen) = Messages(path), heard(path)
    for step in (1, 2, 3):
        messages.progress(step, 3, loss=0.5)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], lines[1].replace(b'"step": 2', b'"step": 7'), lines[2][:20]]))
    ear.pass_on()
    ear.end()
    assert [one["step"] for one in seen] == [1]
    assert "it does not match its checksum. The step that it reports is left out" in caplog.text
    assert f"The last line of {path} is cut off and left out" in caplog.text


class FullDisk:
    """A file that takes half of one more line."""

    def write(self, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        pass


def test_no_training_ends_because_nobody_hears_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    messages, log = Messages(tmp_path / MESSAGES), logging.getLogger("rlhf_dagster")
    handler = PassOn(messages)
    log.addHandler(handler)
    try:
        messages._file = FullDisk()  # type: ignore[assignment]
        for step in (1, 2, 3):
            messages.progress(step, 3, loss=0.5)
        messages.close()
    finally:
        log.removeHandler(handler)
    assert caplog.text.count("cannot be written (No space left on device)") == 1
    Messages(tmp_path / "no folder" / MESSAGES).progress(1, 3)
    assert "cannot be written (No such file or directory)" in caplog.text


def test_a_process_with_a_damaged_request_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / REQUEST
    write_record(path, REQUESTED)
    path.write_bytes(path.read_bytes().replace(b'"sft"', b'"ppo"'))
    monkeypatch.setattr(sys, "argv", ["worker", str(path)])
    worker.main()
    with pytest.raises(UserError, match=r"request.json is damaged: it does not match its checksum"):
        _outcome("sft", work_in(tmp_path), 0, 1)


def test_an_outcome_that_cannot_be_written_has_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise UserError(f"{tmp_path}: cannot write here (No space left on device); make room there.")

    (tmp_path / REQUEST).write_text("{}")
    monkeypatch.setattr(worker, "write_record", full)
    monkeypatch.setattr(sys, "argv", ["worker", str(tmp_path / REQUEST)])
    with pytest.raises(SystemExit) as ended:
        worker.main()
    assert ended.value.code == worker.CANNOT_WRITE
    assert "No space left on device" in capsys.readouterr().err


def test_where_nothing_can_be_written_it_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    work = work_in(tmp_path / "file" / "work")
    with pytest.raises(UserError, match="cannot write here"), work.locked():
        pass
    with pytest.raises(UserError, match="cannot write here"):
        work.prepare()
    with pytest.raises(UserError, match="cannot write here"):
        write_record(work.folder / REQUEST, REQUESTED)
