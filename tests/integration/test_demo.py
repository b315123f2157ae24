"""`rlhf demo` as a user runs it: stopped in the middle, run again, and what it leaves behind."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from loops import SMALL, TRAIN, copy_folder, open_runner, rlhf, write_loop

from rlhf_dagster.automation.instance import PROCESS_TAG
from rlhf_dagster.automation.jobs import COLLECT, PREPARE, RELEASE
from rlhf_dagster.lineage.stop_cord import RESERVE
from rlhf_dagster.resources.io_managers import TABLES
from rlhf_dagster.tasks.sentiment import gold_score, sample_prompts

pytestmark = pytest.mark.integration

ROUNDS = ["round-0001", "round-0002"]
RATE = {"value", "low", "high", "n", "judge"}


def demo(out: Path, rounds: int = 2) -> tuple[object, ...]:
    return ("demo", "--out", out, "--seed", SMALL["seed"], "--rounds", rounds)


def kill_in_the_middle(out: Path) -> list[str]:
    """Run the demo until its output first names the reward model or PPO, and kill it; returns the lines until then."""
    command = [str(Path(sys.executable).with_name("rlhf")), *map(str, demo(out))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "reward_model" in line or "ppo_policy" in line:
                break
        process.kill()
    assert process.returncode == -9, "".join(lines)
    return lines


def materialised(out: Path) -> Counter[tuple[str, str | None]]:
    """How often each asset was made for each round."""
    instance = open_runner(out).instance
    assets = [*PREPARE, *COLLECT, *TRAIN, *RELEASE]
    return Counter(
        (asset, record.partition_key)
        for asset in assets
        for record in instance.fetch_materializations(dg.AssetKey(asset), limit=100).records
    )


@pytest.fixture(scope="module")
def killed_and_finished(tmp_path_factory, base_model_cache) -> Iterator[tuple[Path, Counter, str]]:
    out = write_loop(tmp_path_factory.mktemp("killed") / "demo")
    kill_in_the_middle(out)
    before = materialised(out)
    result = rlhf(*demo(out), COLUMNS="80")
    assert (result.returncode, result.stderr) == (0, "")
    yield out, before, result.stdout
    shutil.rmtree(out)


@pytest.fixture(scope="module")
def summary(killed_and_finished) -> dict[str, Any]:
    return json.loads((killed_and_finished[0] / "summary.json").read_text())


def test_what_was_done_before_the_kill_is_not_done_again(killed_and_finished) -> None:
    out, before, text = killed_and_finished
    assert {asset for asset, _ in before} >= {*PREPARE, *COLLECT, "preference_dataset"}
    assert "promotion" not in {asset for asset, _ in before}
    by_round = [*COLLECT, *TRAIN, *RELEASE]
    expected = {(asset, None) for asset in PREPARE} | {(asset, key) for asset in by_round for key in ROUNDS}
    assert materialised(out) == dict.fromkeys(expected, 1)
    assert "prepare: done before" in text
    assert "collect_round round-0001: done before" in text


def test_the_killed_run_is_closed(killed_and_finished) -> None:
    instance = open_runner(killed_and_finished[0]).instance
    statuses = Counter(run.status for run in instance.get_runs() if PROCESS_TAG in run.tags)
    assert statuses[dg.DagsterRunStatus.FAILURE] == 1
    assert set(statuses) == {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS}


def test_the_terminal_ends_with_the_rounds_and_where_everything_is(killed_and_finished) -> None:
    out, _, text = killed_and_finished
    tail = text[text.index("Rounds: the reward model") :]
    assert all(key in tail for key in ROUNDS)
    assert f"rlhf ui --loop {out}" in tail
    assert str(out / "assets/eval_report/round-0002.html") in tail
    assert str(out / "summary.json") in tail
    assert "\x1b" not in text


def test_a_third_call_does_nothing_and_says_so(killed_and_finished, summary) -> None:
    out, _, _ = killed_and_finished
    before = materialised(out)
    result = rlhf(*demo(out), "--json")
    assert result.returncode == 0
    again = json.loads(result.stdout)
    assert without_seconds(again) == without_seconds(summary)
    assert materialised(out) == before


def without_seconds(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name != "seconds"}


def test_the_summary_is_complete(killed_and_finished, summary) -> None:
    out = killed_and_finished[0]
    assert summary.keys() >= {"rounds", "champion", "sft", "seconds"}
    assert [row["round"] for row in summary["rounds"]] == ROUNDS
    for row in summary["rounds"]:
        assert row.keys() >= {"behaviour_policy", "comparisons", "labels", "promoted", "reasons"}
        assert row["comparisons"] == 40
        assert row["labels"] >= 40
        assert row["reward_model"].keys() >= {"accuracy", "held_out_annotators", "length_baseline"}
        for name in ("accuracy", "held_out_annotators", "length_baseline"):
            rate = row["reward_model"][name]
            assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1
            assert rate["n"] > 0
        rate = row["policy"]["win_rate_vs_sft"]
        assert rate.keys() == RATE
        assert (rate["n"], rate["judge"]) == (24, "gold judge")
        assert isinstance(row["policy"]["kl"], float)
        assert (row["promoted"], len(row["reasons"])) == (True, 8)
        assert (out / row["policy"]["checkpoint"] / "model.safetensors").is_file()
        assert (out / row["report"]).is_file()
    first, second = summary["rounds"]
    assert first["behaviour_policy"] == summary["sft"]["policy"]
    assert second["behaviour_policy"] == Path(first["policy"]["checkpoint"]).name
    assert summary["champion"]["checkpoint"] == second["policy"]["checkpoint"]
    for where in (summary["champion"], summary["sft"]):
        assert where["checkpoint"] == f"models/{where['policy']}"
        assert (out / where["checkpoint"]).is_dir()
    stages = {*PREPARE, *COLLECT, *TRAIN, *RELEASE}
    assert summary["seconds"].keys() >= {"total", *stages}


def test_the_same_seed_in_another_folder_gives_the_same_summary(summary, two_rounds, tmp_path) -> None:
    """The other was made job by job, and the demo was killed and gone on with: neither makes a difference."""
    out = tmp_path / "again"
    copy_folder(two_rounds.loop.root, out)
    result = rlhf(*demo(out), "--json")
    assert result.returncode == 0, result.stderr
    assert without_seconds(json.loads(result.stdout)) == without_seconds(summary)
    assert {made for made, times in materialised(out).items() if times != 1} == set()


def test_every_table_has_its_schema(killed_and_finished) -> None:
    folder = killed_and_finished[0] / "assets"
    found = {}
    for path in folder.rglob("*.parquet"):
        asset = path.relative_to(folder).parts[0].removesuffix(".parquet")
        assert pq.read_schema(path).equals(TABLES[asset], check_metadata=False), path
        found[asset] = found.get(asset, 0) + 1
    once = {"prompts", "demonstration_batch", "demonstrations", "pretraining_text"}
    other_loops = {"feedback"}  # of those alone that learn from it
    assert found == {asset: 1 if asset in once else 2 for asset in TABLES if asset not in other_loops}


def test_nothing_is_left_over(killed_and_finished) -> None:
    out = killed_and_finished[0]
    ours = [path for path in out.rglob("*") if path.relative_to(out).parts[0] != "dagster"]
    # A kill in the middle of writing leaves a file that `rlhf check` finds (tests/loop/test_upkeep.py).
    # A lock stays: where it was removed, somebody could hold the old one and somebody else a new one.
    half_written = [path for path in ours if path.name.startswith(".") and path.suffix == ".tmp"]
    known = [*half_written, *(path for path in ours if path.name == RESERVE or path.suffix == ".lock")]
    hidden = [path for path in ours if path.name.startswith(".") or path.suffix in (".new", ".tmp", ".replaced")]
    assert [path for path in hidden if path not in known] == []
    at_work = [path for path in ours if path.relative_to(out).parts[0] == "work" and path.is_file()]
    assert [path for path in at_work if path not in known] == []
    assert len(list((out / "models").iterdir())) == 2 + 2 * 2  # base, SFT, and two for each round


CHAMPION = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompts = sys.argv[1], json.loads(sys.argv[2])
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
torch.manual_seed(0)
batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
tokens = model.generate(**batch)[:, batch["input_ids"].shape[1]:]
print(json.dumps({
    "shape": list(tokens.shape),
    "texts": tokenizer.batch_decode(tokens),
    "special": bool(set(tokens.flatten().tolist()) & {tokenizer.pad_token_id, tokenizer.eos_token_id}),
    "ours": [name for name in sys.modules if name.startswith("rlhf_dagster")],
}))
"""


def test_the_champion_opens_and_samples_with_plain_transformers(killed_and_finished, summary, tmp_path) -> None:
    prompts = sample_prompts(16, 0)
    folder = killed_and_finished[0] / summary["champion"]["checkpoint"]
    result = subprocess.run(
        [sys.executable, "-c", CHAMPION, str(folder), json.dumps(prompts)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"TRANSFORMERS_OFFLINE": "1"},
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["shape"] == [16, SMALL["sampling"]["response_tokens"]]
    assert (found["special"], found["ours"]) == (False, [])
    assert len(set(found["texts"])) == 16
    assert all(
        isinstance(gold_score(prompt, text), float) for prompt, text in zip(prompts, found["texts"], strict=True)
    )
