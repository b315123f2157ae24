"""Tasks that installed packages offer by entry points."""

from importlib.metadata import EntryPoint

import pytest

from rlhf_dagster.errors import UserError
from rlhf_dagster.tasks import known
from rlhf_dagster.tasks.sentiment import TASK


def offered(monkeypatch: pytest.MonkeyPatch, **tasks: str) -> None:
    entries = tuple(EntryPoint(name.rstrip("_"), value, known.GROUP) for name, value in tasks.items())
    monkeypatch.setattr(known, "_plug_ins", lambda: entries)


def test_a_task_of_an_installed_package_is_known_by_its_name(monkeypatch):
    offered(monkeypatch, reviews="rlhf_dagster.tasks.sentiment:TASK")
    assert known.get_task("reviews") is TASK
    assert {"reviews", "sentiment"} <= set(known.known_tasks())
    with pytest.raises(UserError, match=r"no task called `review`; choose one of: .*reviews.*sentiment"):
        known.get_task("review")


def test_entry_points_are_those_of_the_environment(tmp_path, monkeypatch):
    made = tmp_path / "my_tasks-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: my-tasks\nVersion: 1.0\n", encoding="utf-8")
    lines = f"[{known.GROUP}]\nmine = my_task_module:MINE\nbroken = my_task_module:NOTHING\n"
    (made / "entry_points.txt").write_text(lines, encoding="utf-8")
    module = "from rlhf_dagster.tasks.sentiment import TASK as MINE\n"
    (tmp_path / "my_task_module.py").write_text(module, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    known._plug_ins.cache_clear()
    try:
        assert known.get_task("mine") is TASK
        with pytest.raises(UserError, match=r"`broken` of the package my-tasks cannot be imported \(AttributeError"):
            known.get_task("broken")
    finally:
        known._plug_ins.cache_clear()


@pytest.mark.parametrize("other", ["sentiment", "twice"])
def test_two_tasks_of_one_name_are_refused(other, monkeypatch):
    offered(monkeypatch, **{other: "a.module:ONE", f"{other}_": "another.module:TWO"})
    with pytest.raises(UserError, match=rf"tasks are called `{other}`: of .*a\.module:ONE.* and of .*another\.module"):
        known.get_task(other)


def test_an_embedded_task_is_not_replaced_without_a_word(monkeypatch):
    offered(monkeypatch, sentiment="a.module:ONE")
    with pytest.raises(UserError, match=r"2 tasks are called `sentiment`: of rlhf_dagster itself and of .*module:NAME"):
        known.get_task("sentiment")


def test_what_a_package_offers_must_be_a_task(monkeypatch):
    offered(monkeypatch, wrong="rlhf_dagster.tasks.sentiment:gold_score")
    with pytest.raises(UserError, match=r"The task `wrong` of .* is no task, it has no `name`"):
        known.get_task("wrong")
