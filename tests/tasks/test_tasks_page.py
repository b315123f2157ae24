"""The task that docs/tasks.md writes is one, and its tables are true."""

import re
from pathlib import Path

from rlhf_dagster import tasks
from rlhf_dagster.data.tables import build_demonstrations, build_prompts
from rlhf_dagster.labeling.simulate import judgment
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.tasks.base import HasAnnotatorKinds
from rlhf_dagster.tasks.known import EMBEDDED_TASKS, get_task

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")


def test_the_task_of_the_page_fills_a_loop_s_tables(tmp_path: Path) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "my_task.py").write_text(code, encoding="utf-8")
    text = "data: {task: my_task.py:TASK, prompts: 60, demonstrations: 40, pretraining_texts: 40}\n"
    (tmp_path / "loop.yaml").write_text(text, encoding="utf-8")
    loop = LoopFolder.open(tmp_path)
    prompts = build_prompts(loop.config, loop.root, loop.store)
    assert len(prompts) == 60
    assert len(build_demonstrations(loop.config, loop.root, loop.store, prompts)[0]) == 36
    row = {"comparison_id": "c", "prompt": "say 1", "kind": "pair", "purpose": "train", "responses": ["YES !", "yes !"]}
    given = judgment(loop.annotators()[0], row | {"display_order": [1, 0]}, loop.config.labeling)
    assert given.result["choice"] == 1


def test_each_task_and_each_kind_of_annotators_has_a_row() -> None:
    for name in EMBEDDED_TASKS:
        assert f"| `{name}` |" in PAGE
        task = get_task(name)
        if isinstance(task, HasAnnotatorKinds):
            assert ", ".join(f"`{kind}`" for kind in task.annotator_kinds) in PAGE


def test_each_optional_protocol_has_a_row() -> None:
    for name in (name for name in tasks.__all__ if name.startswith("Has")):
        assert f"| `{name}` |" in PAGE
