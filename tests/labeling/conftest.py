"""Small tables that the labelling tests share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.records.ids import completion_id, prompt_id
from rlhf_dagster.records.schemas import COMPLETIONS, table
from rlhf_dagster.tasks.base import Judgment

Completions = Callable[..., pd.DataFrame]
Sent = Callable[..., tuple[EmbeddedLabelStore, pd.DataFrame]]


def completion_rows(prompt: str, texts: Sequence[str], policy: str = "policy-a") -> list[dict[str, Any]]:
    identity = prompt_id(prompt)
    return [
        {
            "completion_id": completion_id(identity, policy, {}, 0, index),
            "prompt_id": identity,
            "prompt": prompt,
            "policy_id": policy,
            "index": index,
            "text": text,
            "token_ids": [index],
            "log_probs": [-1.0],
            "reference_log_probs": [],
            "decoding": "{}",
            "seed": 0,
        }
        for index, text in enumerate(texts)
    ]


@pytest.fixture
def completions() -> Completions:
    """``completions({prompt: texts}, policy)`` or ``completions(prompts, k)`` with distinct invented texts."""

    def make(what: dict[str, Sequence[str]] | int, k: int = 4, policy: str = "policy-a") -> pd.DataFrame:
        if isinstance(what, int):
            what = {f"prompt {n}": [f"response {n}.{i} by {policy}" for i in range(k)] for n in range(what)}
        rows = [row for prompt, texts in what.items() for row in completion_rows(prompt, texts, policy)]
        return table(rows, COMPLETIONS).to_pandas()

    return make


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedLabelStore:
    return EmbeddedLabelStore(tmp_path / "labels.sqlite")


@pytest.fixture
def sent(store: EmbeddedLabelStore, completions: Completions) -> Sent:
    """``sent(n, kind=..., overlap=...)``: a store that holds ``n`` comparisons of round-0001, and these."""

    def send(n: int, k: int = 4, kind: str = "best_of_k", overlap: float = 0.0, labels: int = 3) -> Any:
        settings = LabelingSettings(kind=kind, responses_per_prompt=k, overlap=overlap, overlap_labels=labels)
        store.send(build_comparisons(completions(n, settings.responses), settings, "round-0001", seed=0))
        return store, store.comparisons("round-0001", "train")

    return send


@dataclass(frozen=True)
class LastWins:
    """Prefers the response whose text sorts last, wherever it is shown."""

    name: str

    def judge(self, prompt: str, responses: Sequence[str], kind: str, key: str) -> Judgment:
        top = max(responses)
        ranks = [1 if text == top else 2 for text in responses]
        if kind == "rating":
            return Judgment(ranks, 10.0, ratings={"overall": [7 if rank == 1 else 3 for rank in ranks]})
        return Judgment(ranks, 10.0, strength=1.0 if kind == "pair" else None)


@pytest.fixture
def annotator() -> type[LastWins]:
    return LastWins
