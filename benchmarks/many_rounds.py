"""What a sensor's tick costs with 1,000 rounds and a million labels on record.

    python benchmarks/many_rounds.py [--rounds 1000] [--comparisons 1000] [--repeats 7] [--keep DIR] [--out JSON]

Makes a loop on the embedded label store whose rounds are all promoted but for the newest, which is being labelled, and
times what ticks ask. With ``--keep`` the loop stays in DIR and is used again. Medians over the repetitions.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.store import Submission
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.round_state import undecided_rounds
from rlhf_dagster.records.ids import completion_id, content_hash, prompt_id
from rlhf_dagster.records.schemas import COMPARISONS, COMPLETIONS, table
from rlhf_dagster.tasks.known import get_task

CONFIG = "name: many_rounds\nlabel_store: {simulated_annotators: false}\n"
BAR = 2.0
"""Seconds that a tick may take."""
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
PEOPLE = [f"ann-{number:02d}" for number in range(20)]


def round_key(number: int) -> str:
    return f"round-{number:04d}"


def batch(n: int) -> pd.DataFrame:
    """``n`` pairs of responses, such as every round has."""
    task = get_task("sentiment")
    prompts, texts = task.prompts(n, 0, "train"), task.demonstrations(2500, 0, "train")
    rows = [
        {
            "completion_id": completion_id(prompt_id(prompt), "p", {}, 0, index),
            "prompt_id": prompt_id(prompt),
            "prompt": prompt,
            "policy_id": "p",
            "index": index,
            "text": f"{texts[(number * 7 + index) % len(texts)][1]} {number}.{index}",
            "token_ids": [],
            "log_probs": [],
            "reference_log_probs": [],
            "decoding": "{}",
            "seed": 0,
        }
        for number, prompt in enumerate(prompts)
        for index in range(2)
    ]
    settings = LabelingSettings(kind="pair", overlap=0.0, comparisons_per_round=n)
    return build_comparisons(table(rows, COMPLETIONS).to_pandas(), settings, round_key(1), seed=0)


def make_loop(root: Path, rounds: int, comparisons: int) -> LoopFolder:
    """The loop, its rounds sent and labelled through the ledger's own interface."""
    root.mkdir(parents=True, exist_ok=True)
    (root / CONFIG_FILE).write_text(CONFIG, encoding="utf-8")
    loop = LoopFolder.open(root)
    frame = batch(comparisons)
    store = loop.ledger
    for number in range(1, rounds + 1):
        write_round(store, number, frame)
    for number in range(1, rounds + 1):
        path = loop.asset_path("preference_batch", round_key(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(frame.head(1), COMPARISONS), path)
    promote_all(loop, rounds - 1)
    return loop


def write_round(store: EmbeddedLabelStore, number: int, template: pd.DataFrame) -> None:
    """A round and a label on each of its comparisons, seconds apart."""
    key, at = round_key(number), BEGAN + timedelta(hours=number)
    ids = [content_hash(key, identity) for identity in template["comparison_id"]]
    store.send(template.assign(round=key, comparison_id=ids))
    store.submit_many(label(identity, index, at) for index, identity in enumerate(ids))


def label(comparison: str, index: int, at: datetime) -> Submission:
    answer = {"choice": index % 2, "strength": 0.5}
    return Submission(comparison, PEOPLE[index % len(PEOPLE)], answer, 9.5, at + timedelta(seconds=index))


def promote_all(loop: LoopFolder, rounds: int) -> None:
    loop.registry.register("sft", "models/sft", "sft", "")
    loop.registry.set_initial("sft")
    for number in range(1, rounds + 1):
        key = round_key(number)
        loop.registry.register(f"policy-{number}", f"models/{number}", "ppo", key)
        loop.registry.promote(f"policy-{number}", key, by="benchmark", reason="every round is")


def measurements(loop: LoopFolder, rounds: int) -> dict[str, Callable[[], object]]:
    newest, keys = round_key(rounds), [round_key(number) for number in range(1, rounds + 1)]
    store = loop.ledger
    answers, half = new_answers(store, newest), store.size(newest, "train")[1] // 2
    return {
        "open the label store": lambda: loop.label_store,
        "count, nothing new": lambda: store.count(newest, "train"),
        "count since a position, nothing new": lambda: store.count(newest, "train", since=half),
        "submit a label": lambda: next(answers),
        "count, a new label": lambda: store.count(newest, "train"),
        "tick: open rounds, nothing new": lambda: undecided_rounds(loop, keys),
        "tick: open rounds, a new label": lambda: undecided_rounds(loop, keys),
        "count all rounds": lambda: [store.count(key, "train") for key in keys],
    }


def new_answers(store: EmbeddedLabelStore, key: str) -> Iterator[object]:
    """Each step submits a new version of a label."""
    comparison = store.comparisons(key, "train")["comparison_id"].iloc[0]
    for number in count():
        yield store.submit(comparison, PEOPLE[0], {"choice": 0, "reason": f"{time.time_ns()}.{number}"})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.keep or Path(temporary)
        began = time.perf_counter()
        fresh = not (root / CONFIG_FILE).exists()
        loop = make_loop(root, options.rounds, options.comparisons) if fresh else LoopFolder.open(root)
        labels = options.rounds * options.comparisons
        size, seconds = loop.ledger.path.stat().st_size / 2**20, time.perf_counter() - began
        print(f"{options.rounds:,} rounds, {labels:,} labels, {size:,.0f} MiB; ready after {seconds:.0f} s")
        figures = measure(loop, options.rounds, options.repeats)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    slow = [name for name, times in figures.items() if name.startswith("tick") and statistics.median(times) > BAR]
    raise SystemExit(f"over {BAR:g} s: {', '.join(slow)}" if slow else 0)


def measure(loop: LoopFolder, rounds: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of each repetition by name, the first, which finds nothing counted, apart."""
    calls = measurements(loop, rounds)
    figures: dict[str, list[float]] = {}
    print(f"{'':44}{'first, ms':>12}{'median, ms':>12}")
    for name, call in calls.items():
        times = []
        for _ in range(repeats + 1):
            if "a new label" in name:
                calls["submit a label"]()
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        figures[name] = times[1:]
        print(f"{name:44}{1e3 * times[0]:>12.2f}{1e3 * statistics.median(times[1:]):>12.2f}")
    return figures


if __name__ == "__main__":
    main()
