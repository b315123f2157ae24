"""Flip single bits in all kinds of files of a two-round loop, and see that nothing is different without a word.

    python -m benchmarks.flip_bits LOOP [--flips 1000] [--seed 0]

``LOOP`` is a finished loop of the demo. Each flip is done to a copy, on which status, check, collect, the reading of
training's inputs, and the report are then asked for, by the functions behind the commands.
An outcome is one of: the same answers; a sentence that is said (a UserError, a finding of `rlhf check`); other answers
without a word; or another exception. The last two are faults. Files that are rebuilt from others when they are opened,
logs of trainings and Dagster's own logs are left out.
"""

import argparse
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlhf_dagster.assets.rounds import open_rounds
from rlhf_dagster.automation.instance import open_instance
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.place import PLACE_FILE
from rlhf_dagster.loop.labels import read_labels
from rlhf_dagster.loop.round_page import gather
from rlhf_dagster.loop.summary import champion, round_rows
from rlhf_dagster.loop.upkeep.check import check_loop
from rlhf_dagster.records.ids import content_hash

MADE = datetime(2026, 1, 1, tzinfo=UTC)
LEFT_OUT = ("logs/", "dagster/logs", "dagster/storage", "dagster/.", "work/", "migrated/", "summary.json")
SUFFIXES = (".lock", "-shm", "-wal", ".log")


def kinds_of(root: Path) -> dict[str, list[Path]]:
    """The files of a loop by kind: the folder that they are in, and their extension."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not path.is_file() or path.stat().st_size == 0:
            continue
        if name.startswith(LEFT_OUT) or name.endswith(SUFFIXES) or path.name.startswith("."):
            continue
        parts = name.split("/")
        kind = "/".join([*parts[: 1 if parts[0] == "models" else 2], path.suffix or path.name])
        kinds.setdefault(kind, []).append(path)
    return kinds


def answers(root: Path) -> dict[str, Any]:
    """What the loop says: status, labels, models, decisions, pages. Raises UserError where it says why not."""
    loop = LoopFolder.open(root)
    with open_instance(loop) as instance:
        keys = open_rounds(instance, loop)
    said: dict[str, Any] = {"rounds": keys, "rows": round_rows(loop, keys), "champion": champion(loop)}
    for key in keys:
        labels, quarantined = read_labels(loop, key, "train")
        said[f"labels {key}"] = (content_hash(labels.to_json()), quarantined)
        for asset in ("completions", "preference_batch", "preference_labels", "preference_dataset"):
            table = loop.table(asset, key)
            said[f"{asset} {key}"] = None if table is None else content_hash(table.to_json())
        for asset in ("reward_model", "ppo_policy"):
            model = loop.checkpoint(asset, key)
            said[f"{asset} {key}"] = model and str(model.folder.relative_to(root))
        for asset in ("eval_report", "human_evaluation", "promotion", "label_quality", "reward_model_accuracy"):
            said[f"{asset} {key}"] = content_hash(loop.json(asset, key))
    for asset in ("prompts", "demonstrations", "pretraining_text"):
        table = loop.table(asset)
        said[asset] = None if table is None else content_hash(table.to_json())
    said["history"] = [vars(entry) for entry in loop.registry.history()]
    said["page"] = str(gather(loop, keys, [], MADE).rounds)
    return json.loads(json.dumps(said, default=str))


def outcome_of(root: Path, expected: dict[str, Any]) -> tuple[str, str]:
    """What became of a loop with a flipped bit, and what was said."""
    heard = Heard()
    logging.getLogger("rlhf_dagster").addHandler(heard)
    try:
        try:
            found = answers(root)
        except UserError as said:
            return "said", str(said)
        if heard.sentences:
            return "said", heard.sentences[0]
        loop = LoopFolder.open(root)
        findings = list(check_loop(loop))
        if findings:
            return "said by check", findings[0].sentence
        return ("same", "") if found == expected else ("different", str(first_difference(expected, found)))
    except Exception:
        return "exception", traceback.format_exc()
    finally:
        logging.getLogger("rlhf_dagster").removeHandler(heard)


def first_difference(expected: dict[str, Any], found: dict[str, Any]) -> Any:
    return next(
        ((name, expected.get(name), found.get(name)) for name in expected if expected[name] != found.get(name)), ""
    )


class Heard(logging.Handler):
    """What was logged as a warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.sentences.append(record.getMessage())


def flip(path: Path, draw: random.Random) -> int:
    """Flip one bit of a file; returns where. The file's own time of change moves, as after any writing."""
    size = path.stat().st_size
    position = draw.randrange(size * 8)
    with path.open("r+b") as file:
        file.seek(position // 8)
        byte = file.read(1)[0]
        file.seek(position // 8)
        file.write(bytes([byte ^ 1 << position % 8]))
    return position


def run(source: Path, flips: int, seed: int, say: Callable[[str], None]) -> Counter[str]:
    draw, counts, by_kind = random.Random(seed), Counter[str](), Counter[tuple[str, str]]()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "loop")
        shutil.copytree(source, root, ignore=shutil.ignore_patterns(PLACE_FILE))
        expected = answers(root)
        before = outcome_of(root, expected)
        if before[0] != "same":
            raise SystemExit(f"{source} is not whole: {before[1]}")
        kinds = kinds_of(root)
        for number in range(flips):
            kind = list(kinds)[number % len(kinds)]
            path = draw.choice(kinds[kind])
            position = flip(path, draw)
            outcome, said = outcome_of(root, expected)
            counts[outcome] += 1
            by_kind[kind, outcome] += 1
            if outcome in ("different", "exception"):
                say(f"{path.relative_to(root)} bit {position}: {outcome}: {said}")
            if number % 100 == 99:
                say(f"{number + 1} flips: {dict(counts)}")
            shutil.rmtree(root)
            shutil.copytree(source, root, ignore=shutil.ignore_patterns(PLACE_FILE))
    for (kind, outcome), number in sorted(by_kind.items()):
        say(f"  {kind:<60} {outcome:<14} {number}")
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description="Flip bits in a loop's files.")
    parser.add_argument("loop", type=Path)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("RLHF_CACHE", tempfile.mkdtemp())
    counts = run(options.loop.resolve(), options.flips, options.seed, print)
    print(f"{sum(counts.values())} flips: " + ", ".join(f"{name} {number}" for name, number in counts.most_common()))
    return 1 if counts["different"] or counts["exception"] else 0


if __name__ == "__main__":
    sys.exit(main())
