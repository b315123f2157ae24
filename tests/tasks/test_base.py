import subprocess
import sys

import pytest

from rlhf_dagster.errors import UserError
from rlhf_dagster.tasks import Task, get_task
from rlhf_dagster.tasks.sentiment import TASK


def test_get_task_returns_the_embedded_task():
    task: Task = get_task("sentiment")
    assert task is TASK
    assert task.name == "sentiment"


def test_an_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"no task called `sentimant`.*sentiment"):
        get_task("sentimant")


def test_loading_a_task_imports_no_heavy_library():
    heavy = "torch transformers dagster pandas pyarrow scipy matplotlib"
    code = (
        "import sys; from rlhf_dagster.tasks import get_task; get_task('sentiment').prompts(1, 0, 'train'); "
        f"print(*sorted(set(sys.modules) & set('{heavy}'.split())))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert loaded.stdout.strip() == ""


def test_a_task_of_ones_own_is_named_by_its_file(tmp_path):
    (tmp_path / "mine.py").write_text("from rlhf_dagster.tasks.sentiment import TASK\n", encoding="utf-8")
    assert get_task("mine.py:TASK", tmp_path) is TASK


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", r"data\.task .*mine\.py:TASK' cannot be imported \(AttributeError.*\); give it as file\.py:NAME"),
        ("1 / 0", r"cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("class TASK:\n    name = 'x'\n", r"mine\.py:TASK' is no task, it has no `prompts`"),
    ],
)
def test_what_is_no_task_is_refused_in_a_sentence(content, said, tmp_path):
    (tmp_path / "mine.py").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        get_task("mine.py:TASK", tmp_path)
