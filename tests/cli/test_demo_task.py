"""`rlhf demo --task` and `rlhf init --task` write a task's own settings down."""

import pytest
import yaml
from loops import assert_one_sentence, rlhf_here

from rlhf_dagster.cli.demo import open_demo
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.data.task_settings import task_settings
from rlhf_dagster.errors import UserError
from rlhf_dagster.tasks.known import known_tasks

MINE = """
from rlhf_dagster.tasks.sentiment.task import SentimentTask


class Mine(SentimentTask):
    name = "My task!"
    settings = SETTINGS


TASK = Mine()
"""


def test_the_demo_s_loop_yaml_is_the_one_of_before(tmp_path):
    loop = open_demo(tmp_path / "demo", seed=5)
    written = yaml.safe_load((loop.root / CONFIG_FILE).read_text(encoding="utf-8"))
    assert written == {"name": "sentiment", "seed": 5}


@pytest.mark.parametrize("task", known_tasks())
def test_each_task_s_settings_are_settings_of_a_loop(task, tmp_path):
    loop = open_demo(tmp_path / "demo", 0, task)
    assert (loop.config.data.task, loop.task.name, loop.config.name) == (task, task, task)
    assert loop.config.sft.chat == loop.config.base_model.tiny.chat == (task == "helpful")
    assert open_demo(tmp_path / "demo", 0).config == loop.config


def test_a_demo_of_another_task_is_not_gone_on_with(tmp_path):
    open_demo(tmp_path / "demo", 0, "summaries")
    with pytest.raises(UserError, match="holds a demo of the task `summaries`; leave --task out"):
        open_demo(tmp_path / "demo", 0, "descriptive")


def test_a_task_of_ones_own_is_named_from_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE.replace("SETTINGS", '{"ppo": {"updates": 7}}'), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    loop = open_demo(tmp_path / "demo", 0, "mine.py:TASK")
    assert (loop.config.name, loop.config.ppo.updates, loop.task.name) == ("my_task", 7, "My task!")


def test_settings_that_are_none_are_refused_before_a_folder_is_made(tmp_path, monkeypatch):
    (tmp_path / "wrong.py").write_text(MINE.replace("SETTINGS", '{"ppo": {"update": 7}}'), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"The settings of the task `My task!`: .*update"):
        open_demo(tmp_path / "demo", 0, "wrong.py:TASK")
    result = rlhf_here("demo", "--out", tmp_path / "demo", "--task", "nothing")
    assert_one_sentence(result, "There is no task called `nothing`", "summaries")
    assert not (tmp_path / "demo").exists()


def test_init_writes_the_settings_of_a_task(tmp_path):
    assert rlhf_here("init", tmp_path / "loop", "--task", "helpful").returncode == 0
    written = yaml.safe_load((tmp_path / "loop" / CONFIG_FILE).read_text(encoding="utf-8"))
    assert written["data"] == {"source": "task", "task": "helpful"}
    proposed = {name: section for name, section in written.items() if name not in ("name", "data")}
    assert proposed == {name: given for name, given in task_settings("helpful").items() if name not in ("name", "data")}
    result = rlhf_here("init", tmp_path / "other", "--task", "helpful", "--source", "imports")
    assert_one_sentence(result, "--task is for a loop that learns a task")
