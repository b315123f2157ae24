"""`rlhf train`: from a file to a model, with what it says of wrong files, other models and interruptions."""

import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from forks import forked
from loops import assert_one_sentence, rlhf_here, rlhf_main
from toy_language import Tables, sft_spec

from rlhf_dagster.cli.train import RECORD
from rlhf_dagster.compute.trainings import TRAININGS
from rlhf_dagster.lineage.model_folders import MANIFEST, folder_digest
from rlhf_dagster.training.sft.train import train_sft
from rlhf_dagster.training.spec_files import commented_spec, spec_from_values


@pytest.fixture
def written(base: Path, tables: Tables, tmp_path: Path) -> dict[str, Any]:
    """An SFT spec as a person writes it, with a path relative to the file."""
    return {
        "model": str(base),
        "demonstrations": str(tables.demonstrations),
        "output": "models/sft",
        "settings": {"epochs": 1, "batch_size": 16, "learning_rate": "1e-3", "max_tokens": 16},
        "sampling": {"prompt_tokens": 6, "response_tokens": 5, "batch_size": 16},
        "seed": 3,
        "compute": {"threads": 1, "device": "cpu", "checkpoint_seconds": 0},
    }


def write(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_it_trains_what_the_stage_trains(
    written: dict[str, Any], base: Path, tables: Tables, sft: Path, tmp_path: Path
) -> None:
    done = rlhf_here("train", "sft", write(tmp_path, written))
    assert (done.returncode, done.stderr) == (0, "")
    output = tmp_path / "models" / "sft"
    record = json.loads((output / RECORD).read_text())
    assert record["metrics"].keys() == train_sft(sft_spec(base, tables, tmp_path / "same")).metrics.keys()
    (output / RECORD).rename(tmp_path / RECORD)
    assert folder_digest(output) == folder_digest(sft)
    assert sorted(path.name for path in output.parent.iterdir() if not path.name.startswith(".")) == ["sft", "sft.logs"]
    assert len((tmp_path / "models" / "sft.logs" / "metrics.jsonl").read_text().splitlines()) == 5 + 1
    assert "validation loss" in done.stdout


def test_a_reward_model_comes_with_what_its_accuracy_is_to_be_seen_beside(
    sft: Path, tables: Tables, tmp_path: Path
) -> None:
    spec = {
        "sft": str(sft),
        "preferences": str(tables.preferences),
        "prompts": str(tables.prompts),
        "output": "reward",
        "settings": {"epochs": 1, "batch_size": 16, "max_tokens": 16, "normalisation_samples": 16},
        "sampling": {"prompt_tokens": 6, "response_tokens": 5, "batch_size": 16},
        "compute": {"threads": 1, "device": "cpu"},
    }
    done = rlhf_here("train", "reward_model", write(tmp_path, spec))
    assert (done.returncode, done.stderr) == (0, "")
    figures = json.loads((tmp_path / "reward" / "accuracy.json").read_text())
    assert figures.keys() >= {"rounds", "kinds", "annotators", "strengths", "length_differences", "calibration"}
    validation = figures["splits"]["validation"]
    shown = {"accuracy": validation["accuracy"]["value"], "longest wins": validation["length_baseline"]["value"]}
    shown["calibration error"] = validation["calibration_error"]
    for name, value in shown.items():
        assert f"  {f'{name} validation':<36} {value:.4g}" in done.stdout.splitlines()


def test_a_process_of_its_own_logs_the_same(written: dict[str, Any], tmp_path: Path) -> None:
    assert rlhf_here("train", "sft", write(tmp_path, written)).returncode == 0
    apart = written | {"output": "models/apart", "compute": written["compute"] | {"launch": "process"}}
    done = rlhf_here("train", "sft", write(tmp_path, apart))
    assert (done.returncode, done.stderr) == (0, "")
    logs = [(tmp_path / "models" / f"{name}.logs" / "metrics.jsonl").read_text() for name in ("sft", "apart")]
    assert logs[0] == logs[1]


def test_json_is_read_too_and_what_is_trained_is_not_trained_again(written: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(written))
    assert rlhf_here("train", "sft", tmp_path / "spec.json").returncode == 0
    made = (tmp_path / "models" / "sft" / RECORD).stat().st_mtime_ns
    again = rlhf_here("train", "sft", tmp_path / "spec.json")
    assert "is trained already" in again.stdout
    assert (tmp_path / "models" / "sft" / RECORD).stat().st_mtime_ns == made


def test_a_model_of_another_spec_is_refused_with_the_difference_and_stays(
    written: dict[str, Any], tables: Tables, tmp_path: Path
) -> None:
    assert rlhf_here("train", "sft", write(tmp_path, written)).returncode == 0
    output = tmp_path / "models" / "sft"
    before = folder_digest(output)
    other = written | {"settings": written["settings"] | {"epochs": 2}, "seed": 4}
    result = rlhf_here("train", "sft", write(tmp_path, other))
    assert_one_sentence(result, "models/sft is trained from another spec", "settings.epochs: 1.0 there, 2.0 here")
    assert_one_sentence(result, "seed: 3 there, 4 here")
    assert_one_sentence(
        rlhf_here("train", "sft", write(tmp_path, written | {"model": str(output)})), "model: content", "move it away"
    )
    assert folder_digest(output) == before


def test_a_folder_of_something_else_is_refused(written: dict[str, Any], sft: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / "sft").mkdir(parents=True)
    (tmp_path / "models" / "sft" / MANIFEST).write_text("{}")
    result = rlhf_here("train", "sft", write(tmp_path, written))
    assert_one_sentence(result, "models/sft exists and was not made by `rlhf train`")


def test_another_stage_is_the_one_difference_that_is_shown(
    written: dict[str, Any], sft: Path, tables: Tables, tmp_path: Path
) -> None:
    assert rlhf_here("train", "sft", write(tmp_path, written)).returncode == 0
    dpo = {"sft": str(sft), "preferences": str(tables.preferences), "output": "models/sft"}
    result = rlhf_here("train", "dpo", write(tmp_path, dpo))
    assert_one_sentence(result, "from another spec (stage: sft there, dpo here); choose")


@pytest.mark.parametrize("record", ["{", "[]"])
def test_a_damaged_record_is_not_taken_for_the_same(written: dict[str, Any], record: str, tmp_path: Path) -> None:
    assert rlhf_here("train", "sft", write(tmp_path, written)).returncode == 0
    (tmp_path / "models" / "sft" / RECORD).write_text(record)
    assert_one_sentence(rlhf_here("train", "sft", write(tmp_path, written)), "models/sft/training.json is damaged")


@pytest.mark.parametrize("output", ["spec.yaml/sft", "/proc/none/sft"])
def test_an_output_that_cannot_be_made_is_one_sentence(written: dict[str, Any], output: str, tmp_path: Path) -> None:
    assert_one_sentence(rlhf_here("train", "sft", write(tmp_path, written | {"output": output})), "cannot write here")


def test_what_only_a_loop_reads_is_refused(deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path: Path) -> None:
    spec = ppo_written(deep_sft, tables) | {"reward_model": str(deep_reward), "settings": {"start": "sft"}}
    assert_one_sentence(rlhf_here("train", "ppo", write(tmp_path, spec)), "`settings.start` is for loops")
    assert "start: behaviour\n" not in rlhf_here("train", "ppo", "--example").stdout


def ppo_written(sft: Path, tables: Tables) -> dict[str, Any]:
    """A spec of two updates, which lacks a reward."""
    return {
        "sft": str(sft),
        "start": str(sft),
        "reward_model": None,
        "prompts": str(tables.prompts),
        "pretraining_text": None,
        "output": "ppo",
        "settings": {"updates": 2, "batch_size": 8},
        "sampling": {"prompt_tokens": 6, "response_tokens": 5, "batch_size": 16},
        "compute": {"threads": 1, "device": "cpu", "checkpoint_seconds": 0},
    }


def test_the_code_of_a_reward_function_is_part_of_what_is_trained(
    deep_sft: Path, tables: Tables, tmp_path: Path
) -> None:
    (tmp_path / "rewards").mkdir()
    file, spec = tmp_path / "rewards" / "length.py", ppo_written(deep_sft, tables)
    file.write_text("def score(prompts, responses):\n    return [len(text) for text in responses]\n")
    spec["reward_function"] = "rewards/length.py:score"
    assert rlhf_here("train", "ppo", write(tmp_path, spec)).returncode == 0
    assert "is trained already" in rlhf_here("train", "ppo", write(tmp_path, spec)).stdout
    file.write_text(file.read_text().replace("len(text)", "-len(text)"))
    other = rlhf_here("train", "ppo", write(tmp_path, spec))
    assert_one_sentence(other, "is trained from another spec (reward_function_source: content", "choose another")
    file.write_text("def score(:")
    again = rlhf_here("train", "ppo", write(tmp_path, spec | {"output": "again"}))
    assert_one_sentence(again, "length.py:score' cannot be imported (SyntaxError: invalid syntax")
    file.write_text("def score(prompts, responses):\n    return [1.0 for _ in responses]\n")
    assert rlhf_here("train", "ppo", write(tmp_path, spec | {"output": "again"})).returncode == 0


def rlhf_on_a_full_disk(bytes_: int, *arguments: object) -> None:
    """`rlhf` where no file can be larger than so many bytes: a write beyond them fails as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))
    rlhf_main(*arguments)


@pytest.mark.parametrize("room", ["states do not fit", "nor does the model"])
def test_a_full_disk_leaves_the_last_good_state(written: dict[str, Any], sft: Path, room: str, tmp_path: Path) -> None:
    path, states = write(tmp_path, written), tmp_path / "models" / "sft.training" / "sft" / "state"
    size = (sft / "model.safetensors").stat().st_size
    bytes_ = size + 4096 if room == "states do not fit" else size - 4096
    full = forked(rlhf_on_a_full_disk, bytes_, "train", "sft", path, output=tmp_path / "full")
    full.join()
    warned, *last = (tmp_path / "full.err").read_text().splitlines()
    assert "The state after step 1 was not kept" in warned
    if room == "states do not fit":
        assert full.exitcode == 0
    else:
        assert full.exitcode == 2
        assert "the trained model cannot be written" in last[-1]
        assert "File too large" in last[-1]
        assert not list(states.glob("*state-*"))
        assert rlhf_here("train", "sft", path).returncode == 0
    (tmp_path / "models" / "sft" / RECORD).unlink()
    assert folder_digest(tmp_path / "models" / "sft") == folder_digest(sft)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"sead": 1}, "`sead` is not a setting; did you mean `seed`?"),
        ({"settings": {"epoch": 1}}, "`settings.epoch` is not a setting; did you mean `epochs`?"),
        ({"settings": {"epochs": -1}}, "`settings.epochs`: input should be greater than or equal to 0"),
        ({"model": None}, "`model`"),
        ({"demonstrations": "nowhere.parquet"}, "nowhere.parquet: no such table"),
        ({"compute": {"trackers": ["wandb"]}}, "compute.trackers names wandb, which is not installed"),
    ],
)
def test_a_wrong_spec_is_one_sentence(
    written: dict[str, Any], change: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    assert_one_sentence(rlhf_here("train", "sft", write(tmp_path, written | change)), problem)
    assert not (tmp_path / "models" / "sft").exists()


def test_a_missing_key_a_missing_file_and_a_broken_one(written: dict[str, Any], tmp_path: Path) -> None:
    del written["demonstrations"]
    assert_one_sentence(rlhf_here("train", "sft", write(tmp_path, written)), "`demonstrations` is missing")
    assert_one_sentence(rlhf_here("train", "sft", tmp_path / "none.yaml"), "No such file", "--example")
    (tmp_path / "broken.yaml").write_text("{")
    assert_one_sentence(rlhf_here("train", "sft", tmp_path / "broken.yaml"), "not valid YAML")
    assert_one_sentence(rlhf_here("train", "sft"), "needs a spec file")
    assert_one_sentence(rlhf_here("train", "pretraining", tmp_path / "x"), "pretraining is no stage", "tiny_model, sft")


@pytest.mark.parametrize("stage", TRAININGS)
def test_the_example_holds_every_setting_and_its_comments_are_the_defaults(stage: str, tmp_path: Path) -> None:
    text = rlhf_here("train", stage, "--example").stdout
    assert text == commented_spec(TRAININGS[stage].spec)
    as_it_is = spec_from_values(TRAININGS[stage].spec, yaml.safe_load(text), "example", tmp_path)
    opened = "\n".join(line[2:] if line.startswith("# ") and ":" in line else line for line in text.splitlines())
    opened = "\n".join(line for line in opened.splitlines() if line.lstrip().split(":")[0].strip("# ").isidentifier())
    assert set(yaml.safe_load(opened)) >= {"output", "compute"}
    assert as_it_is.compute.threads == 2
    assert as_it_is.output == tmp_path / "PATH/TO/OUTPUT"


def test_ctrl_c_ends_at_a_step_and_the_same_command_goes_on(written: dict[str, Any], sft: Path, tmp_path: Path) -> None:
    """A process of its own, interrupted once it has logged a step."""
    written["settings"] |= {"epochs": 20}
    path, logs = write(tmp_path, written), tmp_path / "models" / "sft.logs" / "metrics.jsonl"
    process = forked(rlhf_main, "train", "sft", path, output=tmp_path / "stopped")
    while not (logs.exists() and logs.read_text().count("\n")) and process.is_alive():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.join()
    error = (tmp_path / "stopped.err").read_text()
    assert process.exitcode == 130, error
    assert error == "rlhf: stopped after a step; run the same command again to go on.\n"
    reached = len(logs.read_text().splitlines())
    assert 1 <= reached < 100
    unfinished = tmp_path / "models" / "sft.training"
    other = rlhf_here("train", "sft", write(tmp_path, written | {"seed": 4}))
    assert_one_sentence(other, "sft.training is unfinished from another spec (seed: 3 there, 4 here)")
    assert rlhf_here("train", "sft", write(tmp_path, written)).returncode == 0
    assert not unfinished.exists()
    steps = [json.loads(line)["step"] for line in logs.read_text().splitlines()]
    assert steps == [*range(1, 101), 100]


def test_the_help_names_every_training() -> None:
    shown = rlhf_here("train", "--help").stdout
    assert all(name in shown for name in TRAININGS)
