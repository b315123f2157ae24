"""The examples with the papers' data: settings of a loop, and tables from local data sets of the same shape."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rlhf_dagster.config.base import read_yaml
from rlhf_dagster.config.data import HubDataset
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.config.presets import PRESETS
from rlhf_dagster.data.tables import build_demonstrations, build_pretraining_text, build_prompts
from rlhf_dagster.records.chats import Chat, prompts_of
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.tasks.known import EMBEDDED_TASKS

FOLDER = Path(__file__).parents[2] / "examples" / "tasks"
EXAMPLES = sorted(path.parent.name for path in FOLDER.glob("*/loop.yaml"))
UNPINNED = {"trl-lib/tldr"}
"""No commit of it was at hand, as its file says."""


def words(number: int) -> str:
    return " ".join(f"word{number}.{index}" for index in range(80))


def hh(number: int) -> str:
    return f"\n\nHuman: Question {number}?\n\nAssistant: Answer.\n\nHuman: And then?\n\nAssistant: Then {number}."


SHAPES: dict[str, Any] = {
    "stanfordnlp/imdb": lambda n: {"text": words(n), "label": n % 2},
    "lucadiliello/bookcorpusopen": lambda n: {"text": words(n), "title": f"book {n}.epub.txt"},
    "trl-lib/tldr": lambda n: {
        "prompt": f"SUBREDDIT: r/x\n\nTITLE: t\n\nPOST: {n}\n\nTL;DR:",
        "completion": f" So {n}",
    },
    "abisee/cnn_dailymail": lambda n: {"article": words(n), "highlights": f"So {n} .\nOr not .", "id": str(n)},
    "Anthropic/hh-rlhf": lambda n: {"chosen": hh(n), "rejected": hh(n + 1)},
}
"""A row of each data set, by its columns."""


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> LoopConfig:
    path = FOLDER / request.param / "loop.yaml"
    return LoopConfig.parse(read_yaml(path), str(path))


def datasets_of(config: LoopConfig) -> list[HubDataset]:
    data = config.data
    return [one for one in (data.prompts_dataset, data.demonstrations_dataset, data.pretraining_dataset) if one]


def test_each_embedded_task_has_an_example() -> None:
    assert sorted(EMBEDDED_TASKS) == EXAMPLES


def test_data_and_models_are_pinned_and_presets_are_not_the_toy_s(example: LoopConfig) -> None:
    for source in datasets_of(example):
        pinned = source.revision is not None and re.fullmatch("[0-9a-f]{40}", source.revision)
        assert bool(pinned) == (source.name not in UNPINNED)
    assert re.fullmatch("[0-9a-f]{40}", example.base_model.revision)
    assert example.preset in PRESETS
    assert example.left_to_the_toy() == []
    sampling = example.sampling
    room = sampling.prompt_tokens + sampling.response_tokens + (not sampling.fixed_length)
    assert min(example.sft.max_tokens, example.reward_model.max_tokens) >= room


def test_tables_come_from_data_sets_of_this_shape(example: LoopConfig, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("datasets")
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    config = local(example, tmp_path)
    store = LocalStore(tmp_path)
    prompts = build_prompts(config, tmp_path, store)
    demonstrations, _ = build_demonstrations(config, tmp_path, store, prompts)
    text = build_pretraining_text(config, tmp_path, demonstrations)
    assert set(prompts["split"]) == {"train", "validation", "test"}
    assert min(map(len, (demonstrations, text))) > 10
    assert demonstrations["response"].str.strip().str.len().min() > 0
    chats = [isinstance(prompt, Chat) for prompt in prompts_of(prompts, "text")]
    assert set(chats) == {example.sft.chat}


def local(config: LoopConfig, root: Path) -> LoopConfig:
    """The config with data sets on this machine in place of those on the Hub."""
    changed = {}
    for field in ("prompts_dataset", "demonstrations_dataset"):
        source = getattr(config.data, field)
        folder = root / source.name.replace("/", "_") / source.split
        folder.mkdir(parents=True, exist_ok=True)
        start = 0 if field == "prompts_dataset" else 50
        lines = [json.dumps(SHAPES[source.name](number)) for number in range(start, start + 100)]
        (folder / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
        name = str(folder.relative_to(root))
        changed[field] = source.changed(name=name, config=None, revision=None, split="train")
    return config.changed(data=config.data.changed(**changed))
