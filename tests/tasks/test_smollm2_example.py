"""The example of `make demo-real`, without its weights and its gold judge."""

import json
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from rlhf_dagster.config.loop import load_config
from rlhf_dagster.tasks import SPLITS
from rlhf_dagster.tasks.known import get_task

EXAMPLE = Path(__file__).parents[2] / "examples" / "smollm2"
PROMPTS = [f"My review of hotel {number}: I" for number in range(400)]


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module `texts`, with the example's folder on the path as it is for its script."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield import_module("texts")
    for name in ("prepare", "texts", "weights"):
        sys.modules.pop(name, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A prepared folder: one response in three is good, one bad."""
    for name in ("task.py", "loop.yaml"):
        shutil.copy(EXAMPLE / name, tmp_path)
    rows = [{"prompt": prompt, "response": f" {['good', 'bad', 'plain'][at % 3]}"} for at, prompt in enumerate(PROMPTS)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_its_settings_are_settings(folder: Path) -> None:
    config = load_config(folder)
    assert config.data.task == "task.py:TASK"
    longest = config.sampling.prompt_tokens + config.sampling.response_tokens
    assert longest < min(config.reward_model.max_tokens, config.sft.max_tokens)


def test_each_prompt_is_in_one_split_whatever_the_seed(folder: Path) -> None:
    task = get_task("task.py:TASK", folder)
    splits = {split: set(task.prompts(10**6, 0, split)) for split in SPLITS}
    assert set.union(*splits.values()) == set(PROMPTS)
    assert sum(map(len, splits.values())) == len(PROMPTS)
    assert all(set(task.prompts(20, 5, split)) <= splits[split] for split in SPLITS)
    assert task.prompts(20, 5, "train") != task.prompts(20, 6, "train")


def test_annotators_prefer_what_the_gold_judge_likes_and_say_the_same_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = get_task("task.py:TASK", folder)
    scores = {" good": 0.8, " bad": -0.6, " plain": 0.0}
    monkeypatch.setitem(task.gold_score.__func__.__globals__, "positivity", scores.__getitem__)
    people, shown = task.annotators(0), [" plain", " bad", " good", " plain"]
    judged = [person.judge("p", shown, "best_of_k", str(key)).ranks for person in people for key in range(50)]
    assert sum(ranks[2] == 1 for ranks in judged) / len(judged) > 0.9
    assert judged == [p.judge("p", shown, "best_of_k", str(key)).ranks for p in task.annotators(0) for key in range(50)]
    assert task.gold_score("p", " good") == 0.8


@pytest.mark.parametrize(
    ("said", "prompt", "response"),
    [
        (" loved it . The staff", "I loved it", None),
        (" liked the room and the view was better than we thought. And", " liked the", "and the view was better than"),
        ("\nliked the room and the view was better than we thought", " liked the", "we thought"),
    ],
)
def test_a_text_is_cut_into_prompt_and_whole_sentences(
    modules: ModuleType, said: str, prompt: str, response: str | None
) -> None:
    row = modules.cut("My review of it: I", said)
    if response is None:
        assert row is None
        return
    assert row["prompt"] == f"My review of it: I{prompt}"
    assert response in row["response"]
    assert not row["response"].endswith("And")


def test_what_is_there_is_kept(modules: ModuleType, folder: Path) -> None:
    (folder / "base").mkdir()
    (folder / "loop.yaml").write_text("name: mine\n")
    import_module("prepare").prepare(folder)
    assert (folder / "loop.yaml").read_text() == "name: mine\n"
    assert (folder / "texts.jsonl").read_text().count("\n") == len(PROMPTS)
