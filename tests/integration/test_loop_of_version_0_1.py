"""A loop that version 0.1 has left in the middle goes on: one round decided, one open with its PPO half trained.

``tests/loops_of_old/version-0.1.tar.xz`` was made by version 0.1 itself: the small loop of the tests, killed in its
second round after PPO's first update.
"""

import json
import tarfile
from pathlib import Path

import pytest
from loops import checkpoint, open_runner, rlhf, rlhf_here, run_missing

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.lineage.formats import FORMAT_FILE
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.upkeep.check import check_loop

OLD = Path(__file__).parents[1] / "loops_of_old" / "version-0.1.tar.xz"
FIRST, SECOND = "round-0001", "round-0002"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(OLD) as archive:
        archive.extractall(tmp_path / "loop", filter="data")
    (tmp_path / "loop").chmod(0o700)
    return tmp_path / "loop"


def test_the_first_command_brings_it_up_to_date_and_says_so(old: Path) -> None:
    result = rlhf("round", "status", "--json", "--loop", old)
    assert result.returncode == 0, result.stderr
    assert "was brought from format 0 (version 0.1) to format 1" in result.stderr
    first, second = json.loads(result.stdout)
    assert first["promoted"]
    assert first["labels"] == 52
    assert not second["promoted"]
    assert second["comparisons"] == 40
    assert (old / FORMAT_FILE).exists()
    again = rlhf("round", "status", "--json", "--loop", old)
    assert (again.stdout, again.stderr) == (result.stdout, "")


def test_everything_in_it_is_whole_and_has_checksums_then(old: Path) -> None:
    loop = LoopFolder.open(old)
    assert list(check_loop(loop)) == []
    old.chmod(0o755)
    [open_to_others] = check_loop(loop)
    assert "can be read by other users of this machine" in open_to_others.sentence
    assert open_to_others.repair is not None
    open_to_others.repair()
    assert list(check_loop(loop)) == []
    for key in loop.store.list("assets"):
        data = loop.store.get(key).data
        assert b"RLHF-SHA256" in data or b"_sha256" in data or key.endswith(".html"), key
    assert [entry.action for entry in loop.registry.history()] == ["initial", "promotion"]
    assert rlhf_here("check", str(old)).returncode == 0


def test_its_training_goes_on_where_it_was_and_the_round_is_finished(old: Path, base_model_cache: Path) -> None:
    runner = open_runner(old)
    state = old / "work" / f"ppo-{SECOND}" / "state" / "state-000000001"
    assert state.is_dir()
    assert runner.missing("train_round", SECOND, until="ppo_policy")[-1] == "ppo_policy"
    assert "reward_model" not in runner.missing("train_round", SECOND)
    assert runner.missing("train_round", FIRST) == []
    reward_model = checkpoint(runner.loop, "reward_model", SECOND)
    assert _steps_of_ppo(runner) == [2, 3]
    policy = checkpoint(runner.loop, "ppo_policy", SECOND)
    assert runner.loop.policy(policy.model_id) == policy
    assert checkpoint(runner.loop, "reward_model", SECOND) == reward_model
    assert run_missing(runner, "train_round", SECOND).success
    assert runner.loop.decision(SECOND)["policy"] == policy.model_id
    assert list(check_loop(runner.loop)) == []


def _steps_of_ppo(runner: LoopRunner) -> list[int]:
    """The updates that PPO makes now."""
    assert run_missing(runner, "train_round", SECOND, until="ppo_policy").success
    metrics = runner.loop.root / "logs" / f"ppo-{SECOND}" / "metrics.jsonl"
    return sorted({json.loads(line)["step"] for line in metrics.read_text().split("\n") if line})
