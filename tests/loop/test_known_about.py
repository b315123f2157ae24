"""What is known about test prompts: by the task, and by demonstrations that are held out."""

import pandas as pd
from loops import write_loop

from rlhf_dagster.loop.demonstrations import REFERENCES, keep_references, read_references
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.measuring.known_about import known_about
from rlhf_dagster.records.schemas import DEMONSTRATIONS
from rlhf_dagster.tasks.base import Truthfulness

COMPLETIONS = pd.DataFrame({"prompt_id": ["1", "2", "1"], "prompt": ["post : a", "post : b", "post : a"]})
OWN_TASK = """
from rlhf_dagster.tasks.base import Truthfulness
from rlhf_dagster.tasks.sentiment import TASK as sentiment

class Summaries:
    def __getattr__(self, name):
        return getattr(sentiment, name)

    def references(self, prompt):
        return [prompt.upper()]

    def source(self, prompt):
        return prompt.removeprefix("post : ")

    def truthfulness(self, prompt, response):
        return Truthfulness(2, 1, 0)

TASK = Summaries()
"""


def held_out(**rows: str) -> pd.DataFrame:
    """Demonstrations of the test split: a response by the id of its prompt."""
    names = dict.fromkeys(DEMONSTRATIONS.names, "")
    given = [names | {"demonstration_id": one, "prompt_id": one, "response": text} for one, text in rows.items()]
    return pd.DataFrame(given, columns=DEMONSTRATIONS.names).assign(messages=None, split="test")


def test_nothing_is_kept_where_no_demonstration_is_held_out(tmp_path) -> None:
    loop = LoopFolder.open(write_loop(tmp_path / "loop"))
    keep_references(loop, held_out())
    assert not loop.store.exists(REFERENCES)
    known = known_about(loop, COMPLETIONS)
    assert (known.references, known.truthfulness, known.source("post : a")) == ({}, None, "post : a")


def test_what_was_kept_before_is_replaced(tmp_path) -> None:
    loop = LoopFolder.open(write_loop(tmp_path / "loop"))
    keep_references(loop, held_out(a="one", b="two"))
    assert read_references(loop) == {"a": ["one"], "b": ["two"]}
    keep_references(loop, held_out())
    assert read_references(loop) == {}


def test_a_loop_without_a_task_has_the_demonstrations_held_out(tmp_path) -> None:
    loop = LoopFolder.open(
        write_loop(tmp_path / "loop", data={"source": "imports"}, label_store={"simulated_annotators": False})
    )
    keep_references(loop, held_out(a="one"))
    assert known_about(loop, COMPLETIONS).references == {"a": ["one"]}


def test_a_task_says_what_it_knows(tmp_path) -> None:
    folder = write_loop(tmp_path / "loop", data={"task": "own.py:TASK"})
    (folder / "own.py").write_text(OWN_TASK, encoding="utf-8")
    loop = LoopFolder.open(folder)
    keep_references(loop, held_out(**{"2": "written"}))
    known = known_about(loop, COMPLETIONS)
    assert known.references == {"1": ["POST : A"], "2": ["POST : B", "written"]}
    assert known.source("post : a") == "a"
    assert known.truthfulness is not None
    assert known.truthfulness("post : a", "") == Truthfulness(2, 1, 0)
