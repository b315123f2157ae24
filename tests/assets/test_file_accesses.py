"""The graph tells everything: an asset opens the files of its declared parents, and of other rounds what it names.

Seen from the outside, by the system's own notices of opened files (inotify): readers in C++ and Rust are seen too.
"""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from loops import ROUND, Stages, copy_loop
from watchdog.events import FileOpenedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from rlhf_dagster.assets.rounds import open_next_round
from rlhf_dagster.automation.jobs import job_assets
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.config.arms import ARMS, TRAINED
from rlhf_dagster.loop.folder import LoopFolder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="opened files are seen on Linux alone")

EVERYTHING: dict[str, Any] = {
    "labeling": {
        "comparisons_per_round": 40,
        "held_out_annotators": 0.25,
        "selection": "margin",
        "selection_pool": 1.5,
        "gold_share": 0.1,
        "repeat_share": 0.1,
        "drift_share": 0.1,
        "challenger_share": 0.1,
    },
    "arms": [*TRAINED],
    "release": {"arm": "best", "prompts": 24},
    "dpo": {"batch_size": 16},
    "evaluation": {"best_of_n": 2},
}
"""All that makes a stage read something."""
BEGUN = "begun"
"""Folder of a file for each asset, which is written when it begins: its notice stands between those of two assets."""
OTHERS_IN_METADATA = {
    "completions": "chosen_by",
    "preference_batch": "chosen_by",
    "preference_dataset": "rounds",
    "eval_report": "rounds",
    "promotion": "reports",
}
"""The metadata in which an asset says what it read of other rounds."""
BY_CHECKS = {("label_quality", "label_quality")}
"""What an asset's checks read of other rounds, as its drift is seen: their own sentences say so."""


class _Opened(FileSystemEventHandler):
    def __init__(self) -> None:
        self.paths: list[Path] = []

    def dispatch(self, event: FileSystemEvent) -> None:
        if isinstance(event, FileOpenedEvent):
            self.paths.append(Path(str(event.src_path)))

    def wait_for(self, path: Path) -> None:
        """Write a file and wait for its notice. They come in order: when it is there, all others are."""
        before = self.paths.count(path)
        path.write_text("")
        while self.paths.count(path) == before:
            time.sleep(0.01)


@contextmanager
def opened_files(folder: Path) -> Iterator[_Opened]:
    """The files below ``folder`` that are opened inside the block, as far as they are waited for."""
    seen, observer = _Opened(), Observer()
    (folder / BEGUN).mkdir(exist_ok=True)
    observer.schedule(seen, str(folder), recursive=True)
    observer.start()
    try:
        yield seen
    finally:
        observer.stop()
        observer.join()


def run_and_watch(runner: LoopRunner, job: str, key: str) -> dict[str, set[tuple[str, str]]]:
    """Run a job; by asset, what it and its checks have read."""
    begun, assets = runner.loop.root / BEGUN, job_assets(runner.loop.config)[job]

    def begins(event: dg.DagsterEvent) -> None:
        if event.event_type == dg.DagsterEventType.STEP_START:
            step = event.step_key or ""
            of = max((asset for asset in assets if step.startswith(asset)), key=len)  # a check begins with its asset
            opened.wait_for(begun / of)

    with opened_files(runner.loop.root) as opened:
        outcome = runner.run(job, key, listener=begins)
        opened.wait_for(begun / "end")
    assert outcome.success, outcome
    return {asset: read_assets(runner.loop, paths) for asset, paths in by_asset(begun, opened.paths).items()}


def by_asset(begun: Path, opened: list[Path]) -> dict[str, list[Path]]:
    """The files that were opened after each asset had begun, and before the next one had."""
    found, current = dict[str, list[Path]](), list[Path]()
    for path in opened:
        if path.parent == begun:
            current = found.setdefault(path.name, [])
        else:
            current.append(path)
    found.pop("end")
    return found


def read_assets(loop: LoopFolder, opened: list[Path]) -> set[tuple[str, str]]:
    """Asset and round of each file under ``assets/`` and of each model under ``models/`` that was opened."""
    owners = owners_of_models(loop)
    found = set()
    for path in opened:
        kind, *rest = path.relative_to(loop.root).parts
        if kind == "assets" and not path.name.startswith("."):
            found.add((rest[0], path.stem) if len(rest) > 1 else (path.stem, ""))
        if kind == "models":
            found.add(owners[rest[0]])
    return found


def owners_of_models(loop: LoopFolder) -> dict[str, tuple[str, str]]:
    """Asset and round of each kept model, by its folder."""
    owners = {}
    for asset in ("base_model", "sft_checkpoint", "reward_model", *(arm.asset for arm in ARMS if arm.asset)):
        for key in ("", *loop.rounds_with(asset)):
            if found := loop.checkpoint(asset, key):
                owners[found.model_id] = (asset, key)
    for key in loop.rounds_with("reward_model_halves"):
        halves = loop.json("reward_model_halves", key) or {}
        owners |= {pointer["model_id"]: ("reward_model_halves", key) for pointer in halves["checkpoints"]}
    return owners


def metadata_of(runner: LoopRunner, asset: str, key: str) -> Mapping[str, dg.MetadataValue]:
    records = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[key])
    made = runner.instance.fetch_materializations(records, limit=1).records[0].asset_materialization
    assert made is not None
    return made.metadata


@pytest.fixture(scope="module")
def second_round(
    stages: Stages, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LoopRunner, str, dict[str, set[tuple[str, str]]]]:
    """A second round of a loop with everything switched on, asset by asset, with what each has read."""
    runner = copy_loop(stages.finished, tmp_path_factory.mktemp("accesses") / "loop", **EVERYTHING)
    key, jobs, read = open_next_round(runner.instance, runner.loop), job_assets(runner.loop.config), {}
    for job in ("collect_round", "train_round"):
        read |= run_and_watch(runner, job, key)
    assert read.keys() == {*jobs["collect_round"], *jobs["train_round"]}
    return runner, key, read


def test_an_asset_reads_its_declared_parents_of_its_own_round_and_of_the_part_without_rounds(second_round) -> None:
    runner, key, read = second_round
    graph = runner.definitions.resolve_asset_graph()
    pinned = runner.loop.policy(runner.loop.json("round_manifest", key)["behaviour_policy"]).model_id
    of_pinned = owners_of_models(runner.loop)[pinned]
    for asset, seen in read.items():
        parents = {parent.path[-1] for parent in graph.get(dg.AssetKey(asset)).parent_keys}
        # The pinned policy is what the round manifest hands on.
        own = {name for name, of in seen - {of_pinned} if of in ("", key) and name != asset}
        assert own <= parents, f"{asset} reads {sorted(own - parents)} and does not say so"


def test_what_an_asset_reads_of_other_rounds_is_in_its_metadata(second_round) -> None:
    runner, key, read = second_round
    models = {owner: model for model, owner in owners_of_models(runner.loop).items()}
    for asset, seen in read.items():
        for other, of in sorted(seen):
            if of in ("", key) or (asset, other) in BY_CHECKS:
                continue
            metadata = metadata_of(runner, asset, key)
            said = [str(value.value) for value in metadata.values()]
            by_name = (other, of) in models and any(models[other, of] in text for text in said)
            assert by_name or of in str(metadata[OTHERS_IN_METADATA[asset]].value), (asset, other, of)


def test_every_way_to_read_is_taken(second_round) -> None:
    """Or the two tests above would hold for a loop that reads nothing."""
    _, key, read = second_round
    assert {("demonstrations", ""), ("sft_checkpoint", ""), ("reward_model", ROUND)} <= read["preference_batch"]
    assert ("dpo_policy", key) in read["evaluation_completions"]
    assert {(arm.asset, key) for arm in TRAINED.values()} <= read["policy_choice"]
    assert all(
        ("policy_choice", key) in read[asset] for asset in ("evaluation_completions", "eval_report", "promotion")
    )
    assert ("human_evaluation", key) in read["promotion"]
    assert ("pretraining_text", "") in read["ppo_policy"]
