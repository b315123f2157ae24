"""A loop whose files are in a bucket and whose labels are in Postgres is the loop that it is on a disk."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from loops import ROUND, checkpoint, open_runner, rlhf, run_missing, run_round, write_loop
from object_server import S3Server
from postgres import PostgresServer

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.summary import champion, round_rows
from rlhf_dagster.loop.upkeep.check import check_loop


@pytest.fixture
def elsewhere(
    base_model_cache: Path, s3: S3Server, postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A loop's folder, in which nothing is that its config does not put there."""
    monkeypatch.setenv("LEDGER_OF_THIS_TEST", postgres.address())
    address = f"s3://{s3.new_bucket()}/loops/small"
    return write_loop(tmp_path / "loop", root=address, ledger="${LEDGER_OF_THIS_TEST}")


def figures(loop: LoopFolder) -> list[dict[str, Any]]:
    return round_rows(loop, [ROUND])


def test_a_round_is_the_same_in_a_bucket_and_on_a_disk(elsewhere: Path, finished: LoopRunner) -> None:
    runner = open_runner(elsewhere)
    assert run_missing(runner, "prepare").success
    assert run_round(runner) == ROUND
    loop, same = runner.loop, finished.loop
    assert figures(loop) == figures(same)
    assert champion(loop) == champion(same)
    for asset in ("ppo_policy", "reward_model"):
        assert checkpoint(loop, asset, ROUND).digest == checkpoint(same, asset, ROUND).digest
    assert list(check_loop(loop)) == []
    kept = {path.name for path in elsewhere.iterdir()}
    assert kept.isdisjoint({"assets", "models", "registry", "stops", "label_store.sqlite", "format.json"})
    _goes_on_elsewhere(elsewhere, elsewhere.with_name("another machine"))


def _goes_on_elsewhere(folder: Path, other: Path) -> None:
    """Another machine has the config and nothing else, and says the same of the loop."""
    other.mkdir()
    shutil.copyfile(folder / CONFIG_FILE, other / CONFIG_FILE)
    loop = LoopFolder.open(other)
    assert figures(loop) == figures(LoopFolder.open(folder))
    assert rlhf("stop", "the labels are wrong", "--loop", other).returncode == 0
    assert "the labels are wrong" in rlhf("stop", "again", "--loop", folder).stdout
    assert rlhf("resume", "--loop", folder).returncode == 0
