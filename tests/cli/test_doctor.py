"""`rlhf doctor`: one line for each thing that a loop needs, each with the command that mends it."""

import sys
from pathlib import Path
from typing import Any

import pytest
from loops import rlhf_here, write_loop

from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.lineage.stop_cord import pull
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.upkeep import doctor
from rlhf_dagster.loop.upkeep.doctor import Diagnosis, diagnoses_of

OWN_DATA = {"data": {"source": "imports"}, "label_store": {"simulated_annotators": False}}


def found(folder: Path, **sections: Any) -> dict[str, Diagnosis]:
    loop = LoopFolder.open(write_loop(folder, **sections))
    return {one.about: one for one in diagnoses_of(loop)}


def test_a_new_loop_is_told_what_comes_next(tmp_path: Path) -> None:
    folder = write_loop(tmp_path / "loop")
    result = rlhf_here("doctor", folder)
    assert (result.returncode, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert [line.split()[1] for line in lines[:-1] if line.startswith("mend")] == ["data", "models"]
    assert lines.count(f"                   next: rlhf run prepare --loop {folder}") == 2
    assert lines[-1] == "2 of 13 want mending."


def test_own_data_that_is_not_imported_yet(tmp_path: Path) -> None:
    one = found(tmp_path, **OWN_DATA)["data"]
    assert one.mend == f"rlhf import prompts FILE --loop {tmp_path}"


def test_a_stopped_loop_a_log_that_is_not_there_and_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = OWN_DATA | {"data": {"source": "imports", "feedback": {"logs": ["logs/chats"], "personal_data": "keep"}}}
    pull(LoopFolder.open(write_loop(tmp_path, **sections)).store, "Ada", "too rude")
    monkeypatch.setattr(doctor, "LEAST_FREE_GB", 1e9)
    looked = found(tmp_path, **sections)
    assert looked["stop cord"].mend == f"rlhf resume --loop {tmp_path}"
    assert "too rude" in looked["stop cord"].sentence
    assert looked["logs"].mend == f"rlhf serve --log {tmp_path}/logs/chats --loop {tmp_path}"
    assert looked["data"].mend == f"rlhf import demonstrations FILE --loop {tmp_path}"
    assert looked["room"].mend == f"rlhf models {tmp_path} --remove"


def test_a_label_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "none")
    server = {"kind": "label_studio", "url": "http://127.0.0.1:9", "simulated_annotators": False}
    one = found(tmp_path, label_store=server)["label store"]
    assert one.mend == f"rlhf label-studio up --loop {tmp_path}"


def test_what_is_not_installed_is_named_by_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    feedback = {"data": {"source": "imports", "feedback": {"logs": ["logs"]}}}
    looked = found(tmp_path, **OWN_DATA | feedback, automation={"notify": "slack", "slack_channel": "#rlhf"})
    assert looked["packages"].mend == f"{sys.executable} -m pip install 'rlhf-dagster[privacy,slack]'"


def test_damaged_files_are_sent_to_check(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir(parents=True)
    (tmp_path / "assets" / "prompts.parquet").write_bytes(b"PAR1")
    assert found(tmp_path)["files"].mend == f"rlhf check {tmp_path}"


def test_settings_that_cannot_be_read_are_a_line_too(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text("sede: 3\n")
    result = rlhf_here("doctor", tmp_path)
    assert result.returncode == 1
    assert "did you mean `seed`?" in result.stdout
