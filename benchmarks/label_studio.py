"""How fast comparisons get into Label Studio and labels out, beside the server's own best on the same data.

    python benchmarks/label_studio.py [--comparisons 10000] [--repeats 3] [--out FILE.json]

Starts a server of its own (SQLite, the one that `rlhf label-studio up` starts). The server's own best is the same data
imported and listed by plain HTTP requests, with nothing rendered, recorded or checked. Medians of interleaved
repetitions.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pandas as pd

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.results import encode
from rlhf_dagster.labeling.label_studio.server import local_credentials, running
from rlhf_dagster.labeling.label_studio.store import LabelStudioStore
from rlhf_dagster.labeling.label_studio.tasks import task_data
from rlhf_dagster.records.ids import completion_id, prompt_id
from rlhf_dagster.records.schemas import COMPLETIONS, table
from rlhf_dagster.records.tables import records
from rlhf_dagster.tasks.known import get_task

ROUND = "round-0001"
SETTINGS = LabelingSettings(kind="pair", overlap=0.0, comparisons_per_round=1_000_000)
BARS = {"sending, tasks/s": 2000.0, "reading, labels/s": 500.0, "tick with nothing new, s": 0.15}
Figures = dict[str, list[float]]


def comparisons(n: int) -> pd.DataFrame:
    """``n`` pairs of responses of about 400 characters each."""
    task = get_task("sentiment")
    prompts, texts = task.prompts(n, 0, "train"), task.demonstrations(2500, 0, "train")
    rows = [
        {
            "completion_id": completion_id(prompt_id(prompt), "p", {}, 0, index),
            "prompt_id": prompt_id(prompt),
            "prompt": prompt,
            "policy_id": "p",
            "index": index,
            "text": " ".join(texts[(number * 7 + index * 13 + k) % len(texts)][1] for k in range(8)),
            "token_ids": [],
            "log_probs": [],
            "reference_log_probs": [],
            "decoding": "{}",
            "seed": 0,
        }
        for number, prompt in enumerate(prompts)
        for index in range(2)
    ]
    return build_comparisons(table(rows, COMPLETIONS).to_pandas(), SETTINGS, ROUND, seed=0)


def timed(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


class Plain:
    """The server's own best: plain requests in the largest useful pieces."""

    def __init__(self, url: str, token: str) -> None:
        self.http = httpx.Client(
            base_url=url, headers={"Authorization": f"Token {token}", "Connection": "close"}, timeout=600
        )

    def import_tasks(self, project: int, tasks: list[dict[str, Any]]) -> None:
        for start in range(0, len(tasks), 1000):
            self.http.post(f"/api/projects/{project}/import", json=tasks[start : start + 1000]).raise_for_status()

    def list_tasks(self, project: int, n: int) -> None:
        include = "id,updated_at,data,annotations,result,completed_by,was_cancelled,lead_time,created_at"
        for page in range(1, n // 1000 + 1):
            params = {"project": project, "page": page, "page_size": 1000, "fields": "all", "include": include}
            self.http.get("/api/tasks/", params=params).raise_for_status()

    def count(self, project: int) -> None:
        params = {"project": project, "page_size": 1, "include": "id,updated_at"}
        self.http.get("/api/tasks/", params=params).raise_for_status()


def one_repeat(folder: Path, frame: pd.DataFrame, url: str, token: str, ours: Figures, best: Figures) -> None:
    client, plain, rows = LabelStudioClient(url, token, 600), Plain(url, token), records(frame)
    store = LabelStudioStore(folder / "l.sqlite", url, client=lambda: client, settings=SETTINGS, loop_name="bench")
    n = len(rows)
    ours["sending, tasks/s"].append(n / timed(lambda: store.send(frame)))
    project = int(store.comparisons(ROUND, "train")["project"].iloc[0])
    config = client.project_config(project)
    other = client.create_project("plain", config, "", 1, "")
    data = [{"data": task_data(row, SETTINGS)} for row in rows]
    best["sending, tasks/s"].append(n / timed(lambda: plain.import_tasks(other, data)))
    # Labels come in bulk, with the tasks: what is measured is reading them.
    labelled = LabelStudioStore(
        folder / "m.sqlite", url, client=lambda: client, settings=SETTINGS, loop_name="labelled"
    )
    labelled.send(frame.head(1))
    project = int(labelled.comparisons(ROUND, "train")["project"].iloc[0])
    labelled.ledger.send(frame)
    regions = [encode({"choice": number % 2, "strength": 0.5}, row, SETTINGS) for number, row in enumerate(rows)]
    annotated = [
        task | {"annotations": [{"result": result, "ground_truth": False, "lead_time": 9.5}]}
        for task, result in zip(data[1:], regions[1:], strict=True)
    ]
    plain.import_tasks(project, annotated)
    seconds = timed(lambda: labelled.read(ROUND, "train"))
    assert labelled.count(ROUND, "train").usable == n - 1  # noqa: S101
    ours["reading, labels/s"].append((n - 1) / seconds)
    best["reading, labels/s"].append((n - 1) / timed(lambda: plain.list_tasks(project, n)))
    ours["tick with nothing new, s"].append(timed(lambda: labelled.count(ROUND, "train")))
    best["tick with nothing new, s"].append(timed(lambda: plain.count(project)))
    for made in (project, other):
        client.delete_project(made)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--comparisons", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--port", type=int, default=18099)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    frame = comparisons(options.comparisons)
    ours: Figures = {name: [] for name in BARS}
    best: Figures = {name: [] for name in BARS}
    with tempfile.TemporaryDirectory() as folder, running(Path(folder, "server"), options.port) as server:
        token = (local_credentials(server.folder) or {})["LABEL_STUDIO_API_KEY"]
        for number in range(options.repeats):
            Path(folder, str(number)).mkdir()
            one_repeat(Path(folder, str(number)), frame, server.url, token, ours, best)
    print(f"{len(frame):,} comparisons, median of {options.repeats}, SQLite")
    print(f"{'':28}{'ours':>10}{'server':>10}{'ratio':>8}{'bar':>8}")
    figures = {}
    for name, bar in BARS.items():
        mine, theirs = statistics.median(ours[name]), statistics.median(best[name])
        figures[name] = {"ours": mine, "server": theirs, "ratio": mine / theirs, "bar": bar, "all": ours[name]}
        print(f"{name:28}{mine:>10.4g}{theirs:>10.4g}{mine / theirs:>8.2f}{bar:>8g}")
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
